"""A report on a terminal: the numbers, what went between which countries, and what is amiss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType

from control.cli.output import table
from mesh.core.audit_html import doubts

_SHOWN = 30


def report_text(document: Mapping[str, Any]) -> Iterable[RenderableType]:
    """The parts to print; the whole of it is in the page and in the JSON."""
    totals, period, between = document["totals"], document["period"], document["between"]
    yield f"from {period['from'] or 'the first entry'} to {period['to'] or 'the last entry'}, UTC"
    yield (
        f"{totals['flows']:,} flows, {totals['crossing']:,} of them across a border; {totals['releases']:,}"
        f" releases with {totals['chunks_released']:,} chunks; {totals['refused_by_policy']:,} refusals by"
        f" policy, {totals['refusals'] - totals['refused_by_policy']:,} otherwise"
    )
    rows = [
        (row["from"] or "?", row["to"] or "?", row["what"], f"{row['count']:,}")
        for row in between["rows"][:_SHOWN]
    ]
    if rows:
        yield table(("FROM", "TO", "WHAT", "COUNT"), rows)
    hidden = len(between["rows"][_SHOWN:]) + between["left_out"]["rows"]
    if hidden:
        yield f"and {hidden:,} more: see --out or --output json"
    yield from doubts(document)
    yield "This is evidence for a person to judge; --out writes all of it as a page."
