"""What `policy prove` and `policy diff` look at: policies and nodes, from files or from the control plane.

From files nothing is known but what they hold, so whoever is not in them is taken to permit everything.
From the control plane come the policies and groups of every authority that it knows and the nodes that
there are, as its own snapshot has them: an authority without policies refuses there, as it does in fact.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from control.cli.session import Session, call
from mesh.codec import facts_from_pb
from mesh.core.errors import MeshError, Reason
from mesh.core.expectations import read_nodes
from mesh.core.jurisdictions import COUNTRIES, Groups, require_country
from mesh.core.policy import validate_policy
from mesh.core.policy_flows import LEVELS, Scope, World
from mesh.core.policy_space import authority_of
from mesh.core.policy_view import Subject
from mesh.core.retrieval import parse_level
from mesh.core.snapshot import PolicyDocument, Snapshot
from mesh.core.types import Action, DataClass, RequestContext, SpiffeId, jurisdiction_of, parse_data_class
from mesh.identity.private_files import read_file
from mesh.settings import read_yaml
from sovereign.mesh.v1 import admin_pb2

MAX_FILE_BYTES = 1024 * 1024
MAX_PURPOSES = 1_000
# Where neither files nor a profile say which mesh it is.
_MESH = "mesh.example"

ClassesOption = Annotated[
    list[str] | None,
    typer.Option("--class", "-c", help=f"Only data of this class: {', '.join(DataClass)}. Repeatable."),
]
PurposesOption = Annotated[
    list[str] | None, typer.Option("--purpose", "-p", help="Only for this purpose. Repeatable.")
]
ActionsOption = Annotated[
    list[str] | None, typer.Option("--action", help=f"Only this action: {', '.join(Action)}. Repeatable.")
]
LevelsOption = Annotated[
    list[str] | None,
    typer.Option("--level", help="For release, only this level: count, reference, ... Repeatable."),
]
SendersOption = Annotated[
    list[str] | None,
    typer.Option("--from", help="Only what clients of this country or authority send. Repeatable."),
]
PoliciesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policies",
        metavar="AUTHORITY=FILE",
        help="Offline: an authority's policies, such as de=de.cedar or de.mesh.example=de.cedar. Repeatable.",
    ),
]
NodesOption = Annotated[
    Path | None,
    typer.Option("--nodes", help="The nodes to look at, as in a table of expectations.", dir_okay=False),
]
AnyNodeOption = Annotated[
    bool, typer.Option("--any-node", help="Not the nodes that there are: every node that could exist.")
]
DayOption = Annotated[
    str,
    typer.Option("--day", help="The day for which groups are looked up, such as 2026-03-01; today (UTC)."),
]


def read_cedar(file: Path) -> str:
    """The file's text; raises NOT_FOUND, CONFIG_INVALID or POLICY_MALFORMED."""
    try:
        return read_file(file, limit=MAX_FILE_BYTES).decode()
    except UnicodeDecodeError:
        raise MeshError(Reason.POLICY_MALFORMED, f"{file}: expected UTF-8 text") from None


def document_of(cedar: str) -> PolicyDocument:
    """A policy set that is in force nowhere yet; raises POLICY_MALFORMED or POLICY_TOO_LARGE."""
    validate_policy(cedar)
    return PolicyDocument.of(cedar, 0)


def require_one_choice(nodes: Path | None, any_node: bool) -> None:
    """A usage error for both of them."""
    if any_node and nodes is not None:
        raise typer.BadParameter("--any-node and --nodes exclude each other")


def day_of(text: str, now: float) -> datetime.date:
    """The day that was named, or that of `now` (Unix seconds) in UTC; a usage error if it is none."""
    if not text:
        return datetime.datetime.fromtimestamp(now, datetime.UTC).date()
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("--day: expected a day such as 2026-03-01") from None


def scope_of(
    classes: Sequence[str] | None,
    purposes: Sequence[str] | None,
    actions: Sequence[str] | None,
    levels: Sequence[str] | None,
) -> Scope:
    """What the options ask about; everything where they are left out. Senders are added by `from_of`."""
    for action in actions or ():
        if action not in set(Action):
            raise typer.BadParameter(f"--action: expected one of {', '.join(Action)}")
    if len(purposes or ()) > MAX_PURPOSES:
        raise typer.BadParameter(f"--purpose: at most {MAX_PURPOSES} of them")
    if levels and actions and Action.RELEASE not in actions:
        raise typer.BadParameter("--level is about the action release")
    for purpose in purposes or ():
        RequestContext.of([DataClass.PUBLIC], purpose)  # raises what is wrong with it
    return Scope(
        classes=frozenset(parse_data_class(each) for each in classes or DataClass),
        purposes=tuple(dict.fromkeys(purposes or ())),
        actions=tuple(action for action in Action if not actions or action in actions),
        levels=frozenset(parse_level(level) for level in levels) if levels else frozenset(LEVELS),
    )


def from_of(world: World, named: Iterable[str] | None) -> tuple[str, ...]:
    """The authorities that are named by their country or trust domain; none if none is."""
    known = (*world.known, *(subject.node.trust_domain for subject in world.nodes or ()))
    return tuple(dict.fromkeys(full_name(each, known, world.snapshot.trust_domain) for each in named or ()))


def full_name(authority: str, known: Iterable[str], mesh: str) -> str:
    """The trust domain that a country's code stands for: the known one, or else that of the same mesh."""
    if "." in authority:
        jurisdiction_of(authority)
        return SpiffeId(authority, "/authority/x").trust_domain
    country = require_country(authority.upper())
    for each in known:
        if jurisdiction_of(each) == country:
            return each
    return authority_of(country, mesh)


def from_files(
    policies: Iterable[str], nodes: Path | None, any_node: bool, on: datetime.date, first: str = ""
) -> World:
    """The world of these files; `first` is an authority whose mesh it is, if one is named elsewhere.

    Raises CONFIG_INVALID, POLICY_MALFORMED or POLICY_TOO_LARGE; a usage error for what is not NAME=FILE.
    """
    subjects = nodes_of(nodes)
    there = [subject.node.trust_domain for subject in subjects or ()]
    files: list[tuple[str, Path]] = []
    for each in policies:
        name, equals, file = each.partition("=")
        if not equals or not name or not file:
            raise typer.BadParameter("--policies: expected AUTHORITY=FILE, such as de=de.cedar")
        files.append((name, Path(file)))
    # A full name says which mesh the short ones are of.
    full = [each for each in (first, *(name for name, _ in files)) if "." in each]
    mesh = next(iter([*full, *there]), f"xx.{_MESH}")
    known: dict[str, PolicyDocument] = {}
    for name, path in files:
        authority = full_name(name, [*full, *there], mesh)
        if authority in known:
            raise typer.BadParameter(f"--policies: {authority} is named twice")
        known[authority] = document_of(read_cedar(path))
    own = full_name(first, [*full, *there], mesh) if first else next(iter(known), mesh)
    snapshot = Snapshot(version=0, trust_domain=own, policies=known)
    return World(snapshot, on, None if any_node else subjects, trusting=True)


def nodes_of(file: Path | None) -> tuple[Subject, ...] | None:
    """The nodes of a file, by name; None if there is no file. Raises CONFIG_INVALID."""
    if file is None:
        return None
    return tuple(Subject(*each) for _, each in sorted(read_nodes(read_yaml(file)).items()))


async def from_control_plane(
    session: Session, nodes: Path | None, any_node: bool, on: datetime.date
) -> World:
    """The world as this authority's control plane knows it. Raises MeshError if it cannot be asked."""
    status = await call(session.admin.GetStatus(admin_pb2.GetStatusRequest()))
    policies: dict[str, PolicyDocument] = {}
    groups: dict[str, Groups] = {}
    for authority in sorted({session.profile.trust_domain, *status.fresh, *status.stale}):
        if not _has_country(authority):
            continue
        found = await policy_of(session, authority)
        if found is not None:
            policies[authority] = PolicyDocument(found.cedar, found.digest, found.generation)
            if found.groups:
                groups[authority] = Groups.from_json(found.groups)
    subjects = nodes_of(nodes)
    if subjects is None and not any_node:
        listed = await call(session.admin.ListNodes(admin_pb2.ListNodesRequest()))
        subjects = tuple(
            Subject(identity, facts_from_pb(each.facts))
            for each in listed.nodes
            if (identity := SpiffeId.parse(each.node)) and _has_country(identity.trust_domain)
        )
    snapshot = Snapshot(
        version=status.snapshot_version,
        trust_domain=session.profile.trust_domain,
        policies=policies,
        groups=groups,
    )
    return World(snapshot, on, None if any_node else subjects, trusting=any_node)


async def policy_of(session: Session, authority: str) -> admin_pb2.GetPolicyResponse | None:
    """The policies of this authority in force, with its groups; None if it has none."""
    try:
        return await call(session.admin.GetPolicy(admin_pb2.GetPolicyRequest(trust_domain=authority)))
    except MeshError as error:
        if error.reason is Reason.NOT_FOUND:
            return None
        raise


def _has_country(authority: str) -> bool:
    """Whether it stands for a country: placement refuses every other one's nodes and clients (I4)."""
    return authority.split(".", 1)[0].upper() in COUNTRIES


def without(world: World, authority: str) -> tuple[World, PolicyDocument | None]:
    """The world without this authority's policies, and what they are."""
    policies = dict(world.snapshot.policies)
    own = policies.pop(authority, None)
    return replace(world, snapshot=replace(world.snapshot, policies=policies)), own
