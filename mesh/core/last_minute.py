"""What a node did in the last minute: differences between counts that only grow.

Somebody adds `Counts` every few seconds; the newest is held against one that is about a minute old, so that
a figure is there at once, whoever asks and however seldom. Times are seconds of a clock that never goes
back. Quantiles are read from a histogram as Prometheus does (histogram_quantile): linear within a bucket,
and the last bound for what is beyond it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WINDOW_S = 60.0
# More than enough for one every second.
_MAX_HELD = 128


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals since the node began. `durations`: (upper bound in seconds, how many took at most that), by
    rising bounds; the last one is infinity and counts all."""

    requests: float = 0
    failed: float = 0
    refused: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    durations: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Minute:
    """What happened within `window_s` seconds; quantiles are None where nothing ended."""

    window_s: float
    requests: int
    failed: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    p50_s: float | None
    p99_s: float | None


@dataclass(slots=True)
class LastMinute:
    """Counts with their times, for a minute."""

    window_s: float = WINDOW_S
    _held: deque[tuple[float, Counts]] = field(default_factory=deque)

    def add(self, at: float, counts: Counts) -> None:
        """Takes the counts of now; those that nobody needs any more are dropped."""
        self._held.append((at, counts))
        while len(self._held) > 2 and (at - self._held[1][0] >= self.window_s or len(self._held) > _MAX_HELD):
            self._held.popleft()

    def minute(self) -> Minute | None:
        """What happened between the oldest counts and the newest; None before there are two."""
        if len(self._held) < 2:
            return None
        (began, first), (ended, last) = self._held[0], self._held[-1]
        durations = _difference(first.durations, last.durations)
        return Minute(
            window_s=ended - began,
            requests=_grown(first.requests, last.requests),
            failed=_grown(first.failed, last.failed),
            refused=_grown(first.refused, last.refused),
            prompt_tokens=_grown(first.prompt_tokens, last.prompt_tokens),
            completion_tokens=_grown(first.completion_tokens, last.completion_tokens),
            p50_s=quantile(0.5, durations),
            p99_s=quantile(0.99, durations),
        )


def _grown(first: float, last: float) -> int:
    return max(0, round(last - first))


def _difference(
    first: Sequence[tuple[float, float]], last: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    before: Mapping[float, float] = dict(first)
    return [(bound, max(0.0, count - before.get(bound, 0.0))) for bound, count in last]


def quantile(of: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """The value below which the share `of` lies, in the bounds' unit; None of nothing."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = of * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * ((rank - below) / (count - below) if count > below else 0.0)
        lower, below = bound, count
    return lower
