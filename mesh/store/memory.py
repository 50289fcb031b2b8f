"""The record store in memory: the twin of mesh/store/etcd.py, for tests and for trying things out.

Several stores can share one `MemoryBoard`, as several clients share one etcd. The board can be taken
away and compacted, so that what the real one does on bad days can be rehearsed without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES, MAX_KEY_BYTES
from mesh.store.base import Entry, Lease, WatchBatch, WatchKind

_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class _Change:
    revision: int
    entry: Entry | None  # None: deleted
    key: str


class MemoryBoard:
    """What the stores share: entries, their history, and whether anybody can reach them."""

    def __init__(self) -> None:
        self.revision = 1
        self.reachable = True
        self.holders: dict[str, MemoryLease] = {}  # the keys that hang on a lease
        self._entries: dict[str, Entry] = {}
        self._history: list[_Change] = []
        self._compacted = 1  # changes up to here are forgotten
        self._moved = asyncio.Event()

    def compact(self) -> None:
        """Forgets history: a watch that is behind must list anew."""
        self._history.clear()
        self._compacted = self.revision

    def disconnect(self) -> None:
        """From now on every operation fails and watches report DISCONNECTED."""
        self.reachable = False
        self.wake()

    def reconnect(self) -> None:
        """Ends `disconnect`."""
        self.reachable = True
        self.wake()

    def overwrite(self, key: str, value: bytes) -> None:
        """Puts as whoever owns the board can: any bytes under any key."""
        self.commit(key, Entry(key, value, self.revision + 1))

    def commit(self, key: str, entry: Entry | None, holder: MemoryLease | None = None) -> int:
        """Applies one change and tells the watchers; returns its revision."""
        self.revision += 1
        self.holders.pop(key, None)
        if holder is not None:
            self.holders[key] = holder
        if entry is None:
            self._entries.pop(key)
        else:
            self._entries[key] = entry
        self._history.append(_Change(self.revision, entry, key))
        if len(self._history) > _HISTORY:
            self.compact()
        self.wake()
        return self.revision

    def get(self, key: str) -> Entry | None:
        """The entry under this key."""
        return self._entries.get(key)

    def under(self, prefix: str) -> list[Entry]:
        """Every entry under the prefix, sorted by key."""
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)]

    def since(self, revision: int) -> list[_Change] | None:
        """What changed after this revision; None where that is forgotten."""
        if revision < self._compacted:
            return None
        return self._history[revision - self._compacted :]

    def wake(self) -> None:
        """Lets every watcher look again."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def moved(self) -> None:
        """Waits until there may be something new."""
        await self._moved.wait()


class MemoryLease:
    """See the port. Runs out `ttl_s` seconds after its store was closed."""

    def __init__(self, board: MemoryBoard, ttl_s: float) -> None:
        self._board = board
        self.ttl_s = ttl_s
        self.lost = False

    def expire(self) -> None:
        """What happens when nobody renews: the keys vanish."""
        self.lost = True
        for key in sorted(key for key, holder in self._board.holders.items() if holder is self):
            self._board.commit(key, None)

    async def aclose(self) -> None:
        """See the port."""
        self.expire()


class MemoryStore:
    """See mesh/store/base.py. A board of its own unless one is given."""

    def __init__(self, board: MemoryBoard | None = None) -> None:
        self.board = board or MemoryBoard()
        self._leases: list[MemoryLease] = []
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        """See the port."""
        await self._reach(key)
        return self.board.get(key)

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """See the port."""
        await self._reach(prefix)
        return self.board.under(prefix), self.board.revision

    async def put(
        self, key: str, value: bytes, *, expected_revision: int | None = None, lease: Lease | None = None
    ) -> int:
        """See the port."""
        if len(value) > MAX_ENVELOPE_BYTES:
            raise MeshError(Reason.RECORD_TOO_LARGE, f"a value has at most {MAX_ENVELOPE_BYTES} bytes")
        await self._reach(key)
        self._expect(key, expected_revision)
        if lease is not None:
            if not isinstance(lease, MemoryLease):
                raise TypeError("a lease of another store")
            if lease.lost:
                raise MeshError(Reason.STORE_CONFLICT, "the lease is lost: take a new one")
        return self.board.commit(key, Entry(key, value, self.board.revision + 1), lease)

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        """See the port."""
        await self._reach(key)
        self._expect(key, expected_revision)
        if self.board.get(key) is None:
            return False
        self.board.commit(key, None)
        return True

    async def watch(self, prefix: str) -> AsyncGenerator[WatchBatch]:
        """See the port. PROGRESS comes after an interruption only: memory needs no proof of life."""
        position = 0
        away = False
        while not self._closed:
            changes = self.board.since(position)
            if not self.board.reachable:
                if not away:
                    away = True
                    yield WatchBatch(WatchKind.DISCONNECTED, position)
                    continue
            elif changes is None or not position:
                away = False
                position = self.board.revision
                yield WatchBatch(WatchKind.LISTING, position, tuple(self.board.under(prefix)))
                continue
            elif changes or away:
                if away:
                    away = False
                    yield WatchBatch(WatchKind.PROGRESS, position)
                position += len(changes)
                for change in changes:
                    if change.key.startswith(prefix):
                        puts = (change.entry,) if change.entry else ()
                        yield WatchBatch(
                            WatchKind.CHANGES, change.revision, puts, () if change.entry else (change.key,)
                        )
                continue
            await self.board.moved()

    async def lease(self, ttl_s: float) -> MemoryLease:
        """See the port."""
        await self._reach("lease")
        lease = MemoryLease(self.board, ttl_s)
        self._leases.append(lease)
        return lease

    async def aclose(self) -> None:
        """See the port."""
        self._closed = True
        self.board.wake()
        for lease in self._leases:
            asyncio.get_running_loop().call_later(lease.ttl_s, lease.expire)

    async def _reach(self, key: str) -> None:
        # A real store lets others run meanwhile; so does its twin, or tests would see no races.
        await asyncio.sleep(0)
        if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
            raise MeshError(Reason.RECORD_WRONG_KEY, f"a key has 1 to {MAX_KEY_BYTES} bytes")
        if self._closed or not self.board.reachable:
            raise MeshError(Reason.STORE_UNAVAILABLE, "the board is away")

    def _expect(self, key: str, revision: int | None) -> None:
        entry = self.board.get(key)
        if revision is not None and revision != (entry.revision if entry else 0):
            raise MeshError(Reason.STORE_CONFLICT, "the key has changed since it was read")
