"""Which chunks changed since a search began.

A change reaches the durable store first and the vector store a moment later. A search that knows what
changed meanwhile can ignore what the vector store says of it, and so give the ranking of one moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Touched:
    """Chunks that may be in one store and not yet in the other, and those changed since a search began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: set[bytes] = set()
        self._watching: list[set[bytes]] = []

    def begin(self, ids: set[bytes]) -> None:
        """Before the commit: too early does no harm, too late would."""
        with self._lock:
            self._pending |= ids
            for each in self._watching:
                each |= ids

    def settle(self, ids: set[bytes]) -> None:
        """The vector store has them."""
        with self._lock:
            self._pending -= ids

    @contextmanager
    def watch(self) -> Iterator[Callable[[], frozenset[bytes]]]:
        """Enter before a view is opened; call the result for what changed since, or had not settled then."""
        with self._lock:
            mine = set(self._pending)
            self._watching.append(mine)

        def touched() -> frozenset[bytes]:
            with self._lock:
                return frozenset(mine)

        try:
            yield touched
        finally:
            with self._lock:
                self._watching = [each for each in self._watching if each is not mine]

    def pending(self) -> int:
        """How many have not settled."""
        return len(self._pending)
