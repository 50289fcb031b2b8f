"""The live table of nodes: which rows, in which order, and what stands in them. Pure; top.py fetches.

A row says what the board has of a node, and for nodes of the own authority what they told of their last
minute. Whatever is not known is "-", never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from control.cli.node_view import state_of
from control.cli.output import harmless, table
from mesh.core.errors import MeshError, Reason
from mesh.core.text import shortened
from mesh.core.types import SpiffeId
from sovereign.mesh.v1 import admin_pb2, node_admin_pb2

_STYLES = {"ready": "green", "stale": "yellow", "cordoned": "yellow", "draining": "yellow"}
# Certificates are renewed at half their life, which is a day at most.
_CERTIFICATE_LOW_S = 6 * 3600.0
_MODELS_SHOWN = 36
# What a node's last minute cannot be beyond.
_LONGEST_S, _SHORTEST_WINDOW_S, _MOST = 86_400.0, 0.001, 10**12
_COLUMNS = (
    *("NODE", "AUTHORITY", "IN", "CTRL", "STATE", "LOAD", "MODELS"),
    *("RECORD", "CERT", "REQ/S", "TOK/S", "ERR", "P50", "P99"),
)
_SHORTENED = {"NODE", "AUTHORITY", "MODELS"}  # where there is too little room; nothing else is
# Below so many characters a line these columns are left out, the widest first.
_LEFT_OUT = ((140, {"MODELS"}), (105, {"AUTHORITY", "P50"}), (72, {"CTRL", "RECORD", "TOK/S"}))


class Sort(StrEnum):
    """What comes first."""

    LOAD = "load"  # the busiest
    NAME = "name"
    STATE = "state"  # what is not ready
    REQUESTS = "requests"  # the most
    ERRORS = "errors"  # the most
    CERTIFICATE = "certificate"  # what ends soonest


@dataclass(frozen=True, slots=True)
class Row:
    """One node. Times in seconds, None where not known; `minute` is the node's own word, `silent` why an own
    node gave none."""

    id: SpiffeId
    location: str
    controller: str
    state: str
    running: int | None = None
    waiting: int | None = None
    capacity: int | None = None
    models: tuple[str, ...] = ()
    record_age_s: float | None = None
    certificate_ends_in_s: float | None = None
    minute: node_admin_pb2.GetLastMinuteResponse | None = None
    silent: str = ""

    @property
    def load(self) -> float:
        """Requests in hand per request that can be served at once; -1 where not known."""
        if self.running is None or self.waiting is None:
            return -1.0
        return (self.running + self.waiting) / max(1, self.capacity or 0)

    def rate(self, count: Callable[[node_admin_pb2.GetLastMinuteResponse], int]) -> float | None:
        """So many a second in the last minute."""
        if self.minute is None or self.minute.window_seconds <= 0:
            return None
        return count(self.minute) / self.minute.window_seconds

    @property
    def requests_per_s(self) -> float | None:
        """Requests that ended, a second."""
        return self.rate(lambda minute: minute.requests)

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens written, a second."""
        return self.rate(lambda minute: minute.completion_tokens)

    @property
    def failed(self) -> int | None:
        """Requests of the last minute that failed."""
        return self.minute.failed if self.minute is not None and self.minute.window_seconds > 0 else None


_ORDER: Mapping[Sort, Callable[[Row], Any]] = {
    Sort.LOAD: lambda row: -row.load,
    Sort.NAME: lambda row: 0,
    Sort.STATE: lambda row: (row.state == "ready", row.state),
    Sort.REQUESTS: lambda row: -(row.requests_per_s if row.requests_per_s is not None else -1.0),
    Sort.ERRORS: lambda row: -(row.failed if row.failed is not None else -1),
    Sort.CERTIFICATE: lambda row: (
        row.certificate_ends_in_s if row.certificate_ends_in_s is not None else float("inf")
    ),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What an own node said of its last minute, or why it said nothing."""

    minute: node_admin_pb2.GetLastMinuteResponse | None = None
    silent: Reason | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """One look at the mesh. `at`: Unix seconds; `rows` in order, `hidden` more were left out."""

    trust_domain: str
    at: float
    connected: bool
    rows: tuple[Row, ...]
    hidden: int = 0
    states: Mapping[str, int] = field(default_factory=dict)


def board_of(
    status: admin_pb2.GetStatusResponse,
    nodes: Sequence[admin_pb2.NodeView],
    told: Mapping[str, Told],
    now: float,
    sort: Sort,
    limit: int | None,
) -> Board:
    """Rows in order, at most `limit`. `told` by SPIFFE id. Nodes with malformed names are left out."""
    rows = [row for node in nodes if (row := _row(node, told.get(node.node, Told()), now)) is not None]
    rows.sort(key=lambda row: (_ORDER[sort](row), str(row.id)))
    shown = rows if limit is None else rows[:limit]
    states = Counter(row.state for row in rows)
    return Board(
        status.trust_domain, now, status.board_connected, tuple(shown), len(rows) - len(shown), dict(states)
    )


def _row(node: admin_pb2.NodeView, told: Told, now: float) -> Row | None:
    try:
        identity = SpiffeId.parse(node.node)
    except MeshError:
        return None
    known = node.HasField("status")
    state = state_of(node)
    return Row(
        id=identity,
        location=node.facts.location,
        controller=node.facts.controller,
        state="stale" if state.startswith("ready (") else state,
        running=node.status.in_flight if known else None,
        waiting=node.status.queued if known else None,
        capacity=node.status.capacity if known else None,
        models=tuple(model.name for model in node.record.models),
        record_age_s=max(0.0, now - node.heads_at_ms / 1000) if node.heads_at_ms else None,
        certificate_ends_in_s=(
            node.certificate_not_after_ms / 1000 - now if node.certificate_not_after_ms else None
        ),
        minute=told.minute if told.minute is not None and _believable(told.minute) else None,
        silent=told.silent.code if told.silent is not None else "",
    )


def _believable(minute: node_admin_pb2.GetLastMinuteResponse) -> bool:
    """Whether it counts, and by numbers that a node can have: one that has been broken into may say anything,
    and is not to fill the screen or make JSON that is none."""
    times = (minute.window_seconds, minute.p50_seconds, minute.p99_seconds)
    counts = (minute.requests, minute.failed, minute.refused, minute.prompt_tokens, minute.completion_tokens)
    return (
        minute.measured
        and all(0 <= seconds <= _LONGEST_S for seconds in times)
        and (minute.window_seconds >= _SHORTEST_WINDOW_S or not any(counts))
        and max(counts) < _MOST
    )


def board_json(board: Board) -> dict[str, Any]:
    """For programs: one object a look."""
    return {
        "at": board.at,
        "trust_domain": board.trust_domain,
        "board_connected": board.connected,
        "states": dict(sorted(board.states.items())),
        "nodes": [_row_json(row) for row in board.rows],
        "hidden": board.hidden,
    }


def _row_json(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "node": str(row.id),
        "location": row.location,
        "controller": row.controller,
        "state": row.state,
        "running": row.running,
        "waiting": row.waiting,
        "capacity": row.capacity,
        "models": list(row.models),
        "record_age_s": row.record_age_s,
        "certificate_ends_in_s": row.certificate_ends_in_s,
        "last_minute": None,
    }
    minute = row.minute
    if minute is not None and minute.window_seconds > 0:
        found["last_minute"] = {
            "window_s": minute.window_seconds,
            "requests": minute.requests,
            "failed": minute.failed,
            "refused": minute.refused,
            "prompt_tokens": minute.prompt_tokens,
            "completion_tokens": minute.completion_tokens,
            "requests_per_s": row.requests_per_s,
            "tokens_per_s": row.tokens_per_s,
            "p50_s": minute.p50_seconds if minute.HasField("p50_seconds") else None,
            "p99_s": minute.p99_seconds if minute.HasField("p99_seconds") else None,
        }
    if row.silent:
        found["silent"] = row.silent
    return found


def board_text(board: Board, width: int, trouble: str = "") -> RenderableType:
    """The table with a line above it, for lines of `width` characters; `trouble` is why this is not the
    newest. A node is one line, whatever is too long in it."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(board.states.items())) or "no nodes"
    answers = "answers" if board.connected else "does not answer"
    head = Text(harmless(f"{board.trust_domain}  board {answers}  {states}"))
    if not board.connected:
        head.stylize("bold red")
    without = set[str]().union(*(names for limit, names in _LEFT_OUT if width < limit))
    kept = [i for i, name in enumerate(_COLUMNS) if name not in without]
    rows = [_cells(row) for row in board.rows]
    nodes = table([_COLUMNS[i] for i in kept], [[cells[i] for i in kept] for cells in rows])
    widths = _widths([[_COLUMNS[i], *(str(cells[i]) for cells in rows)] for i in kept], width)
    for column, wide in zip(nodes.columns, widths, strict=True):
        column.no_wrap, column.overflow, column.width = True, "ellipsis", wide
    parts: list[RenderableType] = [head, nodes]
    if board.hidden:
        parts.append(Text(f"and {board.hidden} more: see --limit", style="dim"))
    silent = Counter(row.silent for row in board.rows if row.silent)
    parts.extend(
        Text(f"{count} own nodes did not tell of their last minute: {why}", style="yellow")
        for why, count in sorted(silent.items())
    )
    if trouble:
        parts.append(Text(trouble, style="bold red"))
    return Group(*parts)


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """How wide each column is: as wide as it needs to be, but that names share what the others leave."""
    needed = [max(len(cell) for cell in cells) for cells in columns]
    names = [i for i, cells in enumerate(columns) if cells[0] in _SHORTENED]
    left = width - 2 * (len(columns) - 1) - sum(n for i, n in enumerate(needed) if i not in names)
    for count, i in enumerate(sorted(names, key=lambda i: needed[i])):
        needed[i] = max(4, min(needed[i], left // (len(names) - count)))
        left -= needed[i]
    return needed


def _cells(row: Row) -> tuple[str | Text, ...]:
    minute = row.minute
    waiting = f" +{row.waiting}" if row.waiting else ""
    ends = row.certificate_ends_in_s
    low = ends is not None and ends < _CERTIFICATE_LOW_S
    failed = row.failed
    return (
        row.id.name,
        row.id.trust_domain,
        row.location,
        row.controller,
        Text(row.state, style=_STYLES.get(row.state, "red")),
        f"{row.running}/{row.capacity}{waiting}" if row.running is not None else "-",
        shortened(", ".join(row.models), _MODELS_SHOWN),
        _span(row.record_age_s),
        Text(_span(ends) if ends is None or ends > 0 else "ended", style="red" if low else ""),
        _number(row.requests_per_s),
        _number(row.tokens_per_s),
        Text("-" if failed is None else str(failed), style="red" if failed else ""),
        _time(minute.p50_seconds if minute is not None and minute.HasField("p50_seconds") else None),
        _time(minute.p99_seconds if minute is not None and minute.HasField("p99_seconds") else None),
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _span(seconds: float | None) -> str:
    """So long, in its largest unit."""
    if seconds is None:
        return "-"
    for size, letter in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{letter}"
    return f"{max(0.0, seconds):.0f}s"
