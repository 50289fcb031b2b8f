"""Showing the flow map: a table that reads without colours, and a document for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from control.cli.output import table
from mesh.core.flow_map import Cell, Extent, FlowMap, Pair, alike
from mesh.core.types import SpiffeId

_WORDS = {Extent.ALL: "yes", Extent.SOME: "some", Extent.NO: "-"}
_STYLES = {Extent.ALL: "green", Extent.SOME: "yellow", Extent.NO: "dim"}


def map_json(found: FlowMap, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """All of it. `asked` says of which period and logs the flows are; None: none were read."""
    return {
        "by": str(found.by),
        "actions": [str(action) for action in found.actions],
        "classes": [str(data_class) for data_class in found.classes],
        "flows_read": dict(asked) if asked is not None else None,
        "pairs": [
            {
                "from": pair.source,
                "to": pair.target,
                "highest_permitted": str(pair.highest) if pair.highest is not None else None,
                "flows": pair.count,
                "flows_not_permitted_now": pair.against,
                "classes": {
                    str(c): {
                        "permitted": str(pair.cells[c].extent),
                        "by_action": {str(a): str(e) for a, e in sorted(pair.cells[c].permitted.items())},
                        "flows": {str(a): n for a, n in sorted(pair.cells[c].flowed.items())},
                        "flows_not_permitted_now": pair.cells[c].against,
                    }
                    for c in found.classes
                },
            }
            for _, pair in sorted(found.pairs.items())
        ],
        "flows_not_permitted_now": found.against,
        "flows_unplaced": found.unplaced,
        "flows_unlisted": found.unlisted,
    }


def map_text(found: FlowMap, asked: Mapping[str, Any] | None) -> Iterable[RenderableType]:
    """The parts to print."""
    columns = ("FROM", "TO", *(str(c).upper() for c in found.classes))
    rows: list[tuple[str | Text, ...]] = []
    for source, together in alike(found.pairs.values()):
        rows.append((_name(source), _names(together), *(_cell(together[0].cells[c]) for c in found.classes)))
    yield table(columns, rows) if rows else "nothing is permitted, and nothing flowed"
    if not found.pairs:
        return
    yield "yes: in all cases; some: for some purposes, callers, actions or nodes; -: never. A number: flows."
    if asked is not None:
        logs = len(asked["logs"])
        period = f"from {asked['from'] or 'the first entry'} to {asked['to'] or 'now'}, UTC"
        yield f"flows {period}, by {logs} {'log' if logs == 1 else 'logs'}"
        for node, reason in sorted(asked["unread"].items()):
            yield f"the log of {node} could not be read: {reason}"
    if found.against:
        yield Text(
            f"! {found.against:,} flows could not go that way now: see meshctl audit list", style="bold red"
        )
    if found.unplaced:
        yield f"{found.unplaced:,} flows are not on the map: their place, class or action is not among these"
    if found.unlisted:
        yield f"{found.unlisted:,} more flows are not on the map: there are too many kinds of them"


def _cell(cell: Cell) -> Text:
    """What may and how many did; with "!" the number of those that could not now."""
    shown = Text(_WORDS[cell.extent], style=_STYLES[cell.extent])
    if cell.count:
        shown = Text(f"{_WORDS[cell.extent]} {cell.count:,}", style=f"bold {_STYLES[cell.extent]}")
    if cell.against:
        shown = Text(f"{_WORDS[cell.extent]} {cell.count:,}! ", style="bold red")
    return shown


def _names(pairs: Iterable[Pair]) -> str:
    return ", ".join(_name(pair.target) for pair in pairs)


def _name(place: str) -> str:
    if not place.startswith("spiffe://"):
        return place
    node = SpiffeId.parse(place)
    return f"{node.trust_domain}/{node.name}"
