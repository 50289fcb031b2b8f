"""The options that `meshctl audit`'s commands share: which logs, and which of their entries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mesh.core.audit_entries import Kind
from mesh.core.audit_filter import OUTCOMES, EntryFilter, filter_of

LogOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--log",
        help="A log: a daemon's state directory, the folder of one log, a file or folder of exported JSON"
        ' lines, a bundle, or "-" for standard input. Repeatable.',
        metavar="PATH",
    ),
]
ReadNodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--node",
        help="The log of this running node of your own authority (administrators). Repeatable.",
        metavar="NAME",
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        help=f"Only this kind: {', '.join(kind.value for kind in Kind)}. Repeatable.",
        metavar="KIND",
    ),
]
SinceOption = Annotated[
    str, typer.Option("--from", help="From this time on: 2026-03-01, 2026-03-01T12:00:00Z, 24h, 7d (UTC).")
]
UntilOption = Annotated[str, typer.Option("--to", help="Before this time, in the same form.")]
CallerOption = Annotated[
    str, typer.Option("--caller", help="Only of callers and requesters with this in their name.")
]
ClassOption = Annotated[str, typer.Option("--class", help="Only with this data class.")]
PurposeOption = Annotated[str, typer.Option("--purpose", help="Only for exactly this purpose.")]
OutcomeOption = Annotated[
    str, typer.Option("--outcome", help=f"Only with this outcome: {', '.join(sorted(OUTCOMES))}.")
]
FromCountryOption = Annotated[
    str, typer.Option("--from-country", help="Only what comes from here, such as DE.", metavar="CC")
]
ToCountryOption = Annotated[
    str,
    typer.Option("--to-country", help="Only what goes here, might, or was refused to.", metavar="CC"),
]
IdOption = Annotated[
    str, typer.Option("--id", help="Only with this id, its decision's, or the one that its permit cites.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")]


def chosen(
    kinds: list[str] | None,
    since: str,
    until: str,
    caller: str,
    data_class: str,
    purpose: str,
    outcome: str,
    from_country: str,
    to_country: str,
    id: str,
) -> EntryFilter:
    """The filter that the options state; REQUEST_INVALID, COUNTRY_UNKNOWN, DATA_CLASS_UNKNOWN."""
    return filter_of(
        now=time.time(),
        kinds=kinds or (),
        since=since,
        until=until,
        caller=caller,
        data_class=data_class,
        purpose=purpose,
        outcome=outcome,
        from_country=from_country,
        to_country=to_country,
        id=id,
    )
