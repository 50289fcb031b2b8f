"""`meshctl audit`: reading decision logs. What was decided, what went where, and what was refused.

Logs are named by --log or --node and read as they are, through control/cli/audit_sources.py. That a log is
whole and signed is another question, which control/cli/audit_verify.py answers. What writes files is in
control/cli/audit_files.py.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import aclosing
from typing import Annotated

import typer

from control.cli import audit_alarms, audit_files, audit_verify
from control.cli.audit_options import (
    CallerOption,
    ClassOption,
    FromCountryOption,
    IdOption,
    KindOption,
    LogOption,
    OutcomeOption,
    PurposeOption,
    ReadNodeOption,
    SinceOption,
    ToCountryOption,
    UntilOption,
    chosen,
)
from control.cli.audit_sources import followed, leaves_of, open_sources
from control.cli.audit_view import (
    Trouble,
    Unreadable,
    entries_table,
    entry_json,
    entry_line,
    entry_text,
    unreadable_json,
    unreadable_text,
)
from control.cli.output import Output, OutputOption, console, emit, emit_json, harmless
from control.cli.session import ProfileOption, act
from mesh.core.audit_entries import LoggedEntry, read_entry
from mesh.core.audit_filter import EntryFilter
from mesh.core.errors import MeshError, Reason

MAX_SHOWN = 10_000

app = typer.Typer(
    help="Read decision logs (what was decided, what went where, what was refused), and verify receipts."
)
app.command("verify")(audit_verify.verify)
app.command("alarms")(audit_alarms.alarms)
app.command()(audit_files.export)
app.command()(audit_files.report)


@app.command("list")
def list_entries(
    log: LogOption = None,
    node: ReadNodeOption = None,
    kind: KindOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    caller: CallerOption = "",
    data_class: ClassOption = "",
    purpose: PurposeOption = "",
    outcome: OutcomeOption = "",
    from_country: FromCountryOption = "",
    to_country: ToCountryOption = "",
    id: IdOption = "",
    limit: Annotated[int, typer.Option("--limit", help="The newest so many.", min=1, max=MAX_SHOWN)] = 100,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List entries, oldest first: the newest 100 that the options choose."""
    wanted = chosen(kind, since, until, caller, data_class, purpose, outcome, from_country, to_country, id)

    async def work() -> tuple[list[LoggedEntry], int, Trouble]:
        newest: list[tuple[float, int, LoggedEntry]] = []
        trouble, matching = Trouble(), 0
        async with aclosing(leaves_of(open_sources(log, node, profile))) as leaves:
            async for leaf in leaves:
                entry = trouble.read(leaf)
                if entry is None or not wanted.matches(entry):
                    continue
                matching += 1
                keep = heapq.heappush if len(newest) < limit else heapq.heappushpop
                keep(newest, (entry.at, matching, entry))
        return [entry for _, _, entry in sorted(newest, key=lambda each: each[:2])], matching, trouble

    entries, matching, trouble = act(work(), output, "reading")
    hidden = matching - len(entries)
    emit(
        output,
        {
            "entries": [entry_json(entry) for entry in entries],
            "matching": matching,
            **trouble.json(),
        },
        entries_table(entries) if entries else "no such entry",
        *([f"and {hidden:,} older ones: see --limit"] if hidden else []),
        *unreadable_text(trouble.found, trouble.total),
    )


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="An entry's index, its id, or the id of a decision.")],
    log: LogOption = None,
    node: ReadNodeOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show all of an entry, or of all that have to do with one decision."""
    number = int(what) if what.isascii() and what.isdecimal() and len(what) < 19 else None
    wanted = EntryFilter(id=what)

    async def work() -> tuple[list[LoggedEntry], Trouble]:
        found: list[LoggedEntry] = []
        trouble = Trouble()
        async with aclosing(leaves_of(open_sources(log, node, profile))) as leaves:
            async for leaf in leaves:
                if number is not None and leaf.index != number:
                    continue
                entry = trouble.read(leaf)
                if entry is not None and (number is not None or wanted.matches(entry)):
                    found.append(entry)
                    if len(found) > MAX_SHOWN:
                        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_SHOWN} such entries")
        return found, trouble

    entries, trouble = act(work(), output, "reading")
    if not entries and number is not None and trouble.found:
        raise trouble.found[0].error
    if not entries:
        raise MeshError(Reason.NOT_FOUND, "expected the index or the id of an entry in these logs")
    emit(
        output,
        {"entries": [entry_json(entry, whole=True) for entry in entries], **trouble.json()},
        *(part for entry in entries for part in entry_text(entry)),
        *unreadable_text(trouble.found, trouble.total),
    )


@app.command()
def follow(
    log: LogOption = None,
    node: ReadNodeOption = None,
    kind: KindOption = None,
    caller: CallerOption = "",
    data_class: ClassOption = "",
    purpose: PurposeOption = "",
    outcome: OutcomeOption = "",
    from_country: FromCountryOption = "",
    to_country: ToCountryOption = "",
    id: IdOption = "",
    last: Annotated[
        int, typer.Option("--last", help="Begin with the last so many of each log.", min=0, max=MAX_SHOWN)
    ] = 10,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show entries as they come, until Ctrl-C. With --output json, one object a line."""
    wanted = chosen(kind, "", "", caller, data_class, purpose, outcome, from_country, to_country, id)

    async def work() -> None:
        async with aclosing(followed(open_sources(log, node, profile), last)) as leaves:
            async for leaf in leaves:
                try:
                    entry = read_entry(leaf)
                except MeshError as error:
                    _show_unreadable(Unreadable(leaf.origin, leaf.index, error), output)
                    continue
                if not wanted.matches(entry):
                    continue
                if output is Output.JSON:
                    emit_json(entry_json(entry, whole=True))
                else:
                    console().print(harmless(entry_line(entry)), soft_wrap=True)

    asyncio.run(work())


def _show_unreadable(found: Unreadable, output: Output) -> None:
    if output is Output.JSON:
        emit_json(unreadable_json(found))
    else:
        line = f"{found.origin}  {found.index}  cannot be read: {found.error.message}"
        console().print(harmless(line), soft_wrap=True)
