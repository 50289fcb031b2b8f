"""Following etcd's changes: where a watch stands, and the stream that it listens on.

Rules it keeps:
- A watch resumes after the last revision that was handled whole. Only changes move it on: etcd before
  3.5.8 may report progress ahead of changes that it has not sent yet.
- A store whose history is not the one that was followed (another cluster, or a revision that went
  back) is read anew, like one that has compacted what is missing.
- Silence is not good news: etcd is asked for progress when it says nothing, and counts as gone when it
  does not answer. A member that hangs with its connection open is noticed that way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field

from mesh.core.errors import MeshError, Reason
from mesh.store.base import Entry, WatchBatch, WatchKind
from mesh.store.etcd_channel import Stream

# A change that arrives in fragments is put together up to this size.
MAX_PENDING_BYTES = 64 * 1024 * 1024


class Compacted(Exception):
    """What follows cannot be replayed: list anew."""


class Renewed(Exception):
    """The connection was given up on purpose: go on over a new one."""


@dataclass(frozen=True, slots=True)
class Change:
    """A put, or a deletion where `value` is None."""

    key: str
    value: bytes | None
    revision: int


@dataclass(slots=True)
class Followed:
    """How far a watch has come: the last revision handled whole, of which cluster."""

    revision: int = 0
    cluster: int = 0
    _pending: list[Change] = field(default_factory=list)
    _pending_bytes: int = 0

    def check(self, revision: int, cluster: int, compact_revision: int) -> None:
        """Raises Compacted unless the store still tells the history that is being followed."""
        if compact_revision or cluster != self.cluster or revision < self.revision:
            raise Compacted

    def advance(self, changes: Sequence[Change], *, fragment: bool) -> Iterator[WatchBatch]:
        """Takes one message's changes; yields what is complete, in order. No changes: PROGRESS."""
        self._pending += [change for change in changes if change.revision > self.revision]
        self._pending_bytes += sum(len(change.value or b"") for change in changes)
        if self._pending_bytes > MAX_PENDING_BYTES:
            raise Compacted
        if fragment:
            return
        complete, self._pending, self._pending_bytes = self._pending, [], 0
        if not complete:
            yield WatchBatch(WatchKind.PROGRESS, self.revision)
            return
        self.revision = max(change.revision for change in complete)
        yield from _batches(complete)

    def restart(self) -> None:
        """Forgets an incomplete change: a new stream sends it from its beginning."""
        self._pending, self._pending_bytes = [], 0


def _batches(changes: Sequence[Change]) -> Iterator[WatchBatch]:
    """Cuts the changes where a put follows a deletion, so that puts before deletes is their order."""
    puts: list[Entry] = []
    deletes: list[str] = []
    revision = 0
    for change in changes:
        if change.value is not None and deletes:
            yield WatchBatch(WatchKind.CHANGES, revision, tuple(puts), tuple(deletes))
            puts, deletes = [], []
        if change.value is None:
            deletes.append(change.key)
        else:
            puts.append(Entry(change.key, change.value, change.revision))
        revision = change.revision
    yield WatchBatch(WatchKind.CHANGES, revision, tuple(puts), tuple(deletes))


class WatchStream:
    """One stream of watch messages, as bytes. `progress` is sent whenever nothing came for a while."""

    def __init__(
        self,
        call: Stream,
        create: bytes,
        progress: bytes,
        progress_s: float,
        silence_s: float,
    ) -> None:
        self._call = call
        self._create = create
        self._progress = progress
        self._progress_s = progress_s
        self._silence_s = silence_s

    def cancel(self) -> None:
        """Ends the stream; `messages` then raises Renewed."""
        self._call.cancel()

    async def messages(self) -> AsyncGenerator[bytes]:
        """Every message, until the stream fails: grpc.aio.AioRpcError, MeshError or Renewed."""
        clock = asyncio.get_running_loop().time
        heard = clock()
        reading = self._read()
        writing = self._write(self._create)
        try:
            while True:
                # Waiting, unlike awaiting with a time limit, does not cancel the stream.
                await asyncio.wait({reading}, timeout=self._progress_s)
                if not reading.done():
                    if clock() - heard > self._silence_s:
                        raise MeshError(Reason.STORE_UNAVAILABLE, "etcd says nothing")
                    if writing.done():
                        writing = self._write(self._progress)
                    continue
                if reading.cancelled():
                    raise Renewed
                message = reading.result()
                if not isinstance(message, bytes):
                    raise MeshError(Reason.STORE_UNAVAILABLE, "etcd ended the stream")
                heard = clock()
                reading = self._read()
                yield message
        finally:
            self._call.cancel()
            # A write to a call that ended before it began would wait for ever.
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)

    def _read(self) -> asyncio.Task[object]:
        return asyncio.get_running_loop().create_task(self._call.read())

    def _write(self, message: bytes) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._call.write(message))
        # A failure to write shows as a failure to read, which is where it is handled.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
