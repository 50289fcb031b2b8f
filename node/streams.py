"""Calls that stay open while they wait for somebody else and hold no place in line meanwhile: bounded."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from mesh.core.errors import MeshError, Reason

MAX_STREAMS = 256
MAX_STREAMS_OF_ONE = 64
_RETRY_S = 1.0


class Streams:
    """How many are open, at all and by whom. `what` names them in refusals."""

    def __init__(
        self, what: str = "searches", most: int = MAX_STREAMS, most_of_one: int = MAX_STREAMS_OF_ONE
    ) -> None:
        self._what = what
        self._most = most
        self._most_of_one = most_of_one
        self._by_asker: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many there are now."""
        return self._by_asker.total()

    @contextlib.contextmanager
    def one(self, asker: str) -> Iterator[None]:
        """Counts one for as long as it lasts; OVERLOADED if there are too many."""
        if self._by_asker[asker] >= self._most_of_one or self.open >= self._most:
            raise MeshError(Reason.OVERLOADED, f"too many {self._what} are open at once", {}, _RETRY_S)
        self._by_asker[asker] += 1
        try:
            yield
        finally:
            self._by_asker[asker] -= 1
            if not self._by_asker[asker]:
                del self._by_asker[asker]
