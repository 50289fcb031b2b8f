"""How many lines a second may be written about what callers bring about.

Whoever is refused costs a line. A peer that wants to be refused ten thousand times a second must not fill
the disk with them, nor bury what else the log says: beyond the budget lines are counted, and the next one
that is written says how many were not.
"""

from __future__ import annotations


class LineBudget:
    """A bucket of `per_second` lines that fills up within a second. Times are monotonic seconds."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._at: float | None = None
        self._suppressed = 0

    def take(self, now: float) -> int | None:
        """None if this line may not be written; else how many were not since the last that was."""
        if self._at is not None:
            self._left = min(float(self._per_second), self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            self._suppressed += 1
            return None
        self._left -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
