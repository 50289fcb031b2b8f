"""`meshctl map`: who may send what where by the policies in force, and what did flow by decision logs."""

from __future__ import annotations

import datetime
import time
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.audit_options import ForceOption, LogOption, ReadNodeOption, UntilOption
from control.cli.audit_sources import leaves_of, open_sources
from control.cli.flow_map_view import map_json, map_text
from control.cli.output import Output, OutputOption, emit, progress
from control.cli.policy_world import (
    ActionsOption,
    ClassesOption,
    DayOption,
    NodesOption,
    PoliciesOption,
    PurposesOption,
    day_of,
    from_control_plane,
    from_files,
    scope_of,
)
from control.cli.session import ProfileOption, act, open_session
from mesh.core.audit_filter import period_of, time_text
from mesh.core.audit_report import AuditReport
from mesh.core.audit_rows import MAX_HELD_ROWS
from mesh.core.errors import MeshError, Reason
from mesh.core.flow_map import ACTIONS, By, flow_map
from mesh.core.map_picture import picture
from mesh.core.policy import PolicyEngine
from mesh.core.policy_flows import World
from mesh.identity.private_files import write_file

TITLE = "Who may send what where, and what did flow"


def map_flows(
    by: Annotated[By, typer.Option("--by", help="What receives: countries, or each node.")] = By.COUNTRY,
    since: Annotated[
        str,
        typer.Option("--from", help="What flowed from this time on: 24h, 7d, 2026-03-01, ... (UTC)."),
    ] = "24h",
    until: UntilOption = "",
    data_class: ClassesOption = None,
    action: ActionsOption = None,
    purpose: PurposesOption = None,
    log: LogOption = None,
    node: ReadNodeOption = None,
    no_logs: Annotated[bool, typer.Option("--no-logs", help="Only what may flow: read no log.")] = False,
    policies: PoliciesOption = None,
    nodes: NodesOption = None,
    day: DayOption = "",
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Draw it into this file, mode 0600.", dir_okay=False)
    ] = None,
    force: ForceOption = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show who may send what where, and what did flow.

    What may flow follows from all authorities' policies and the nodes that there are. What did flow is read
    from the logs of the running nodes of your own authority, unless --log or --node name others. With
    --policies and --nodes it is offline.
    """
    now = time.time()
    if bool(policies) != (nodes is not None):
        raise typer.BadParameter("--policies and --nodes belong together")
    if no_logs and (log or node):
        raise typer.BadParameter("--no-logs and the logs to read exclude each other")
    period = period_of(since, until, now)
    scope = scope_of(data_class, purpose, action or [str(each) for each in ACTIONS], None)
    on = day_of(day, now)
    if svg is not None and not force and (svg.exists() or svg.is_symlink()):
        raise MeshError(
            Reason.CONFIG_INVALID, f"{svg.name} exists already and is not overwritten: see --force"
        )
    read = not no_logs and (not policies or bool(log or node))
    running: list[str] = []
    if policies:
        world = from_files(policies, nodes, False, on)
        world = World(world.snapshot, world.on, world.nodes, trusting=False)
    else:
        world, running = act(_fetch(profile, on), output)
    report = AuditReport(period, rows=MAX_HELD_ROWS)
    unread: dict[str, str] = {}
    if read:
        act(_read(report, log, node, [] if log or node else running, profile, unread), output, "reading")
    document: dict[str, Any] | None = report.document(made_at=now) if read else None
    with progress("asking the policies about every kind of request", output):
        found = flow_map(PolicyEngine(), world, scope, document, by)
    logs = [each["origin"] for each in document["logs"]] if document is not None else []
    if svg is not None:
        write_file(svg, picture(found, TITLE, _note(read, period.start, period.end)).encode(), replace=force)
    asked = {"from": time_text(period.start), "to": time_text(period.end), "logs": logs, "unread": unread}
    emit(
        output,
        map_json(found, asked if read else None),
        *map_text(found, asked if read else None),
        *([f"wrote {svg}"] if svg is not None else []),
    )


async def _fetch(profile: Path | None, on: datetime.date) -> tuple[World, list[str]]:
    """The world, and the own nodes whose logs can be read."""
    async with open_session(profile) as session:
        world = await from_control_plane(session, None, False, on)
        own = session.profile.trust_domain
        names = [s.node.name for s in world.nodes or () if s.node.trust_domain == own]
        return world, sorted(names)


async def _read(
    report: AuditReport,
    log: list[Path] | None,
    node: list[str] | None,
    running: list[str],
    profile: Path | None,
    unread: dict[str, str],
) -> None:
    """Feeds the report. Of the nodes that nobody named, one that cannot be read is told in `unread`; whoever
    names a log wants that one."""
    if log or node:
        await _feed(report, log, node, profile)
        return
    for name in running:
        try:
            await _feed(report, None, [name], profile)
        except MeshError as error:
            unread[name] = error.reason.code


async def _feed(
    report: AuditReport, log: list[Path] | None, node: list[str] | None, profile: Path | None
) -> None:
    async with aclosing(leaves_of(open_sources(log, node, profile))) as leaves:
        async for leaf in leaves:
            report.add(leaf)


def _note(read: bool, start: float | None, end: float | None) -> str:
    if not read:
        return "by the policies as they are now; no log was read"
    begun, ended = time_text(start) or "the first entry", time_text(end) or "now"
    return f"flows from {begun} to {ended}, UTC; policies as they are now"
