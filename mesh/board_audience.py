"""Who wants to know when the snapshot changes: subscribers, and whoever waits for a condition."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.core.snapshot import Snapshot

_log = logging.getLogger(__name__)


class Audience:
    """Tells each in the same synchronous block in which the change becomes visible."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[Snapshot], None]] = []
        self._waiters: list[tuple[Callable[[Snapshot], bool], asyncio.Future[Snapshot]]] = []

    def subscribe(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Calls back with every new snapshot. Returns what ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def publish(self, snapshot: Snapshot) -> None:
        """Tells subscribers of a new snapshot."""
        for callback in tuple(self._subscribers):
            try:
                callback(snapshot)
            except Exception:
                # One that fails must not keep the others from learning of a revocation.
                _log.exception("a subscriber of the board failed")

    def nudge(self, snapshot: Snapshot) -> None:
        """Lets everybody who waits look again, after a change of any kind."""
        for predicate, future in self._waiters:
            if future.done():
                continue
            try:
                if predicate(snapshot):
                    future.set_result(snapshot)
            except Exception as error:
                future.set_exception(error)

    async def wait_for(
        self, predicate: Callable[[Snapshot], bool], snapshot: Snapshot, timeout: float
    ) -> Snapshot:
        """The first snapshot that the predicate accepts, from this one on; TimeoutError."""
        if predicate(snapshot):
            return snapshot
        future: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        waiter = (predicate, future)
        self._waiters.append(waiter)
        try:
            return await asyncio.wait_for(future, timeout)
        finally:
            self._waiters.remove(waiter)
