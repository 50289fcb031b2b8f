"""The rows of a report: sums by key, bounded however many keys hostile logs bring.

Whatever is cut off is summed, so that what is shown and what is left out add up to what was counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

MAX_HELD_ROWS = 20_000
MAX_NAMED = 16  # policies and digests of a row

_T = TypeVar("_T")


@dataclass(slots=True)
class Row:
    """Sums of one kind of thing. `facts` are what its document shows besides them."""

    facts: Mapping[str, Any]
    first: float
    last: float
    count: int = 0
    chunks: int = 0
    cut: int = 0
    both: int = 0
    policies: set[str] = field(default_factory=set)
    digests: set[tuple[str, str]] = field(default_factory=set)
    more: bool = False

    def add(self, at: float, policies: Iterable[str] = (), digests: Iterable[tuple[str, str]] = ()) -> None:
        """Counts one more, at this time, determined by these policies."""
        self.first, self.last = min(self.first, at), max(self.last, at)
        self.count += 1
        self.more |= _name(self.policies, policies) | _name(self.digests, digests)


def _name(named: set[_T], more: Iterable[_T]) -> bool:
    """Adds to the names as long as there is room; whether some had none."""
    new = sorted(set(more) - named, key=str)
    named.update(new[: MAX_NAMED - len(named)])
    return not named.issuperset(new)


class Section:
    """Rows by key, at most 20,000. When there are too many, what has no row yet is summed in one."""

    def __init__(self) -> None:
        self.rows: dict[tuple[object, ...], Row] = {}
        self.count = 0
        self._beyond = Row({}, 0.0, 0.0)

    def row(self, key: tuple[object, ...], facts: Callable[[], Mapping[str, Any]], at: float) -> Row:
        """The row of this key, made if need be; the caller adds to it once."""
        self.count += 1
        found = self.rows.get(key)
        if found is None:
            if len(self.rows) >= MAX_HELD_ROWS:
                return self._beyond
            found = self.rows[key] = Row(facts(), at, at)
        return found

    def document(self, limit: int, shown: Callable[[Row], Mapping[str, Any]]) -> dict[str, Any]:
        """The largest `limit` rows, and the sums of the others. `shown` gives what a row shows besides its
        facts and its count. Rows that were not held apart count as one each."""
        ordered = sorted(self.rows.items(), key=lambda item: (-item[1].count, tuple(map(str, item[0]))))
        rest = [*(row for _, row in ordered[limit:]), self._beyond]
        return {
            "rows": [{**row.facts, "count": row.count, **shown(row)} for _, row in ordered[:limit]],
            "left_out": {
                "rows": len(rest) - 1 + self._beyond.count,
                "count": sum(row.count for row in rest),
                "chunks": sum(row.chunks for row in rest),
            },
        }
