"""`meshctl policy diff`: which flows a change of policies opens and closes."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from control.cli.output import Output, OutputOption, emit, progress
from control.cli.policy_flow_view import difference_json, difference_text
from control.cli.policy_world import (
    ActionsOption,
    AnyNodeOption,
    ClassesOption,
    DayOption,
    LevelsOption,
    NodesOption,
    PoliciesOption,
    PurposesOption,
    day_of,
    document_of,
    from_control_plane,
    from_files,
    full_name,
    read_cedar,
    require_one_choice,
    scope_of,
    without,
)
from control.cli.session import ProfileOption, Session, act, open_session
from mesh.core.errors import MeshError
from mesh.core.policy import PolicyEngine
from mesh.core.policy_diff import Difference, compare
from mesh.core.policy_flows import Scope, World
from mesh.core.snapshot import PolicyDocument

# Whoever applies a policy set is waiting: some ten seconds on one core.
MAX_JUDGED_BEFORE_APPLYING = 100_000


class Changed(NamedTuple):
    """What a change opens and closes, in which world, and whose policies change."""

    difference: Difference
    world: World
    authority: str


def diff(
    old: Annotated[Path, typer.Argument(help="Cedar policies; with NEW left out, the new ones.")],
    new: Annotated[
        Path | None, typer.Argument(help="The new ones. If left out, OLD is compared with those in force.")
    ] = None,
    authority: Annotated[
        str, typer.Option("--authority", help="Offline: whose policies these are, such as de.mesh.example.")
    ] = "",
    policies: PoliciesOption = None,
    nodes: NodesOption = None,
    any_node: AnyNodeOption = False,
    data_class: ClassesOption = None,
    purpose: PurposesOption = None,
    action: ActionsOption = None,
    level: LevelsOption = None,
    day: DayOption = "",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit code 1 if any flow opens or closes.")
    ] = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the flows that a change of policies opens and closes, both sides' policies considered.

    With --authority it is offline; otherwise others' policies and the nodes come from the control plane.
    """
    require_one_choice(nodes, any_node)
    if authority and new is None:
        raise typer.BadParameter("with --authority, name the old policies and the new ones")
    if policies and not authority:
        raise typer.BadParameter("with --policies, say by --authority whose policies are compared")
    scope = scope_of(data_class, purpose, action, level)
    on = day_of(day, time.time())
    latest = document_of(read_cedar(new or old))
    former = document_of(read_cedar(old)) if new is not None else None
    if authority:
        world = from_files(policies or (), nodes, any_node, on, authority)
        own = full_name(authority, world.known, world.snapshot.trust_domain)
    else:
        world, own = act(_fetch(profile, nodes, any_node, on), output)
    others, in_force = without(world, own)
    with progress("comparing every kind of request and node", output):
        found = compare(PolicyEngine(), others, own, former if new is not None else in_force, latest, scope)
    emit(output, difference_json(found, others, own), *difference_text(found, others, own))
    if exit_code and found.changes:
        raise typer.Exit(1)


async def _fetch(
    profile: Path | None, nodes: Path | None, any_node: bool, on: datetime.date
) -> tuple[World, str]:
    async with open_session(profile) as session:
        return await from_control_plane(session, nodes, any_node, on), session.profile.trust_domain


async def before_applying(session: Session, now: float) -> World | MeshError:
    """What a change is to be judged against, or why it cannot be."""
    try:
        return await from_control_plane(session, None, False, day_of("", now))
    except MeshError as error:
        return error


def change_of(world: World | MeshError, old: PolicyDocument | None, cedar: str) -> Changed | MeshError:
    """What applying these policies of the own authority changes for the nodes that there are, or why that
    cannot be said: a policy set is put in force whether or not it can."""
    if isinstance(world, MeshError):
        return world
    authority = world.snapshot.trust_domain
    try:
        others, _ = without(world, authority)
        new = document_of(cedar)
        limit = MAX_JUDGED_BEFORE_APPLYING
        found = compare(PolicyEngine(), others, authority, old, new, Scope(), limit)
        return Changed(found, others, authority)
    except MeshError as error:
        return error
