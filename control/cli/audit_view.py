"""Showing entries of decision logs: a row or a line for people, an object for programs, a row of CSV.

Entries are of others, and so may be hostile: texts of a `LoggedEntry` are printable already, `raw` is shown
as escaped JSON only, and a cell of CSV never begins with what a spreadsheet takes for a formula.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from control.cli.output import table
from mesh.core.audit_entries import Kind, Leaf, LoggedEntry, read_entry
from mesh.core.audit_filter import time_text
from mesh.core.errors import MeshError
from mesh.core.types import SpiffeId

COLUMNS = ("LOG", "INDEX", "TIME", "KIND", "OUTCOME", "CALLER", "WHAT", "DATA", "PURPOSE", "FROM → TO", "ID")
CSV_COLUMNS = (
    "log", "index", "time", "kind", "outcome", "reason", "node", "caller", "requester", "tenant", "action",
    "subject", "data_classes", "purpose", "transfer_basis", "from", "to", "released", "id", "cites",
)  # fmt: skip

MAX_UNREADABLE = 100

# What spreadsheets begin a formula with, the full-width forms included.
_FORMULA = frozenset("=+-@|%\uff1d\uff0b\uff0d\uff20")
_GOOD = frozenset({"served", "permitted", "done"})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that could not be read, and what was expected."""

    origin: str
    index: int
    error: MeshError


class Trouble:
    """Reads entries, and remembers which could not be read: the first hundred, and how many."""

    def __init__(self) -> None:
        self.found: list[Unreadable] = []
        self.total = 0

    def read(self, leaf: Leaf) -> LoggedEntry | None:
        """The entry; None if it cannot be read."""
        try:
            return read_entry(leaf)
        except MeshError as error:
            self.total += 1
            if len(self.found) < MAX_UNREADABLE:
                self.found.append(Unreadable(leaf.origin, leaf.index, error))
            return None

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "unreadable": [unreadable_json(each) for each in self.found],
            "unreadable_total": self.total,
        }


def entry_json(entry: LoggedEntry, *, whole: bool = False) -> dict[str, Any]:
    """An entry for programs; `whole` adds it as it was written."""
    shown: dict[str, Any] = {
        "log": entry.origin,
        "index": entry.index,
        "time": time_text(entry.at),
        "at": entry.at,
        "kind": entry.name,
        "id": entry.id,
        "node": entry.node,
        "caller": entry.caller,
        "requester": entry.requester,
        "action": entry.action,
        "subject": entry.subject,
        "data_classes": list(entry.data_classes),
        "purpose": entry.purpose,
        "transfer_basis": entry.transfer_basis,
        "tenant": entry.tenant,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "from": entry.from_country,
        "to": entry.to_country,
        "cites": entry.cites,
    }
    if entry.kind is Kind.RELEASE:
        shown |= {"released": dict(entry.released), "released_classes": list(entry.released_classes)}
    return shown | ({"entry": entry.raw} if whole else {})


def unreadable_json(found: Unreadable) -> dict[str, Any]:
    """An entry that could not be read, for programs."""
    return {
        "log": found.origin,
        "index": found.index,
        "unreadable": found.error.reason.code,
        "message": found.error.message,
    }


def entries_table(entries: Sequence[LoggedEntry]) -> RenderableType:
    """Entries for people, one row each; the log is named only where there are several."""
    several = len({entry.origin for entry in entries}) > 1
    rows = [_cells(entry)[0 if several else 1 :] for entry in entries]
    return table(COLUMNS[0 if several else 1 :], rows)


def unreadable_text(found: Sequence[Unreadable], total: int) -> list[RenderableType]:
    """Which entries could not be read, for people; nothing if all could."""
    if not total:
        return []
    named = ", ".join(f"{each.origin}:{each.index}" for each in found[:10])
    return [f"{total:,} entries could not be read: {named}{', …' if total > min(10, len(found)) else ''}"]


def entry_line(entry: LoggedEntry) -> str:
    """An entry on one line, as they are followed."""
    cells = [cell.plain if isinstance(cell, Text) else str(cell) for cell in _cells(entry)]
    return "  ".join(filter(None, cells))


def entry_text(entry: LoggedEntry) -> list[RenderableType]:
    """All of an entry, for people."""
    facts = entry_json(entry)
    rows = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in facts.items()
        if value not in ("", [], {}) and name != "at"
    ]
    # Escaped: what is not ASCII, and so everything that could drive a terminal.
    return [table(("", ""), rows), json.dumps(entry.raw, indent=2, ensure_ascii=True), ""]


def csv_row(entry: LoggedEntry) -> list[str]:
    """An entry as cells of CSV_COLUMNS; lists are joined by blanks."""
    released = " ".join(f"{level}:{count}" for level, count in entry.released.items())
    cells = (
        entry.origin, str(entry.index), time_text(entry.at), entry.name, entry.outcome, entry.reason,
        entry.node, entry.caller, entry.requester, entry.tenant, entry.action, entry.subject,
        " ".join(entry.data_classes), entry.purpose, entry.transfer_basis, entry.from_country,
        entry.to_country, released, entry.id, entry.cites,
    )  # fmt: skip
    return [guarded(cell) for cell in cells]


def guarded(cell: str) -> str:
    """The cell, marked as text if a spreadsheet would take it for a formula."""
    return f"'{cell}" if cell.lstrip()[:1] in _FORMULA and cell.strip() else cell


def _cells(entry: LoggedEntry) -> list[RenderableType]:
    outcome = " ".join(filter(None, (entry.outcome, entry.reason)))
    style = "green" if entry.outcome in _GOOD else "red" if entry.reason else ""
    what = " ".join(filter(None, (entry.action, entry.subject)))
    if entry.kind is Kind.RELEASE:
        what += "".join(f" {count} {level}" for level, count in entry.released.items())
    way = f"{entry.from_country or '?'} → {entry.to_country or '?'}"
    return [
        entry.origin,
        str(entry.index),
        time_text(entry.at),
        entry.name,
        Text(outcome, style=style),
        short_name(entry.requester or entry.caller),
        what.strip(),
        ",".join(entry.data_classes),
        entry.purpose,
        "" if way == "? → ?" or entry.kind in (Kind.CUT, Kind.COVERED, Kind.ACTION) else way,
        entry.id,
    ]


def short_name(spiffe_id: str) -> str:
    """ "a/b (de)" for spiffe://de.mesh.example/client/a/b; what is no such name as it is."""
    try:
        parsed = SpiffeId.parse(spiffe_id)
    except MeshError:
        return spiffe_id
    return f"{parsed.path[1:].partition('/')[2]} ({parsed.trust_domain.split('.', 1)[0]})"
