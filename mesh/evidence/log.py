"""The decision log on disk: an append-only Merkle log of its own folder.

Rules it keeps (I7):
- `record` returns only when the entry is on disk. If it cannot be, it raises EVIDENCE_UNAVAILABLE and
  whoever decided must act as if nothing had been decided;
- entries are in the order in which they were recorded, whatever any clock says, and are never changed;
- what was signed for is never taken back: a folder that no longer has it does not open (EVIDENCE_DAMAGED);
- one process at a time has a log open.

Writers share syncs (group commit): while one batch is being written, the next one gathers. The folder:

    journal/    what is durable and in no bundle yet (mesh/evidence/journal.py)
    tile/       hash tiles and entry bundles, as C2SP tlog-tiles has them
    checkpoint  what the log signed last, as C2SP tlog-checkpoint has it
    aside/      files being written; lock

It does not know what entries mean, nor who may read them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mesh.core.errors import MeshError
from mesh.core.notes import ED25519, VerifierKey
from mesh.evidence.base import Entry, SignedCheckpoint, Signer, unavailable
from mesh.evidence.disk import Disk, Failpoint
from mesh.evidence.entries import encode, ids_of
from mesh.evidence.journal import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES
from mesh.evidence.opening import Opened, open_folder
from mesh.evidence.publishing import Publisher
from mesh.evidence.reading import Reader, load_bundle

_LOG = logging.getLogger("mesh.evidence")

# Entries wait in memory until they are in bundles; if those cannot be written, the log refuses before the
# process is out of memory.
MAX_UNSTORED_BYTES = 64 << 20
CHECKPOINT_EVERY_S = 1.0


class _Waiting(NamedTuple):
    entry: bytes
    ids: tuple[str, ...]
    durable: asyncio.Future[int]


class MerkleLog:
    """Use `open`. Belongs to one event loop. It keeps the port EvidenceLog, which says what methods do."""

    def __init__(
        self, disk: Disk, lock: int, key: VerifierKey, signer: Signer, found: Opened, every_s: float | None
    ) -> None:
        self.key = key
        self.folder = disk.folder
        self._lock, self._held, self._journal = lock, found.held, found.journal
        self._reader = Reader(self._held, lambda tile: load_bundle(disk, tile))
        self._publisher = Publisher(
            disk, self._held, self._journal, key, signer, key.name, found.latest, every_s
        )
        self._pending: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evidence-journal")
        self._closing = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        origin: str,
        signer: Signer,
        checkpoint_every_s: float | None = CHECKPOINT_EVERY_S,
        failpoint: Failpoint = lambda _: None,
    ) -> MerkleLog:
        """Opens the log in the folder, which is made if it is not there.

        `origin` names the log in its checkpoints and its key. With `checkpoint_every_s` it signs by itself
        when it has grown, at most that often; None: only when asked and when it closes. `failpoint` is called
        with a name of STEPS (mesh/evidence/disk.py) before each file operation. Raises EVIDENCE_UNAVAILABLE
        if it cannot be opened for writing, EVIDENCE_DAMAGED if it is not what it was, and changes nothing.
        """
        key = VerifierKey(origin, ED25519, signer.public)
        disk = Disk(folder, failpoint)
        try:
            lock = disk.prepare()
            try:
                found = open_folder(disk, key, origin)
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise unavailable(f"the log's folder cannot be used: {error.strerror}") from error
        log = cls(disk, lock, key, signer, found, checkpoint_every_s)
        if asyncio._get_running_loop() is not None and found.held.size:
            log._publisher.grown()  # what was recorded before a crash is signed for now
        return log

    async def record(self, entry: Entry) -> int:
        """Returns the entry's index once it and all before it are on disk."""
        if self._closing:
            raise unavailable()
        if self._held.unstored_bytes > MAX_UNSTORED_BYTES:
            self._publisher.grown()  # tries again to store them
            raise unavailable()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(encode(entry), ids_of(entry), loop.create_future())
        self._pending.append(waiting)
        if self._committer is None:
            self._committer = loop.create_task(self._commit_batches())
        return await waiting.durable

    @property
    def size(self) -> int:
        """How many entries are durable."""
        return self._held.size

    async def entry(self, index: int) -> bytes:
        """One entry's bytes."""
        return await self._reader.entry(index)

    async def entries_in(self, start: int, end: int) -> tuple[bytes, ...]:
        """The entries [start, end), at most 1,024 of them."""
        return await self._reader.entries_in(start, end)

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The proof that the entry is in the tree of this size."""
        return await self._reader.inclusion(index, size)

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of size `new` begins with the one of size `old`."""
        return await self._reader.consistency(old, new)

    async def find(self, entry_id: str, *, recent_only: bool = False) -> tuple[int, ...]:
        """The indexes of the entries of this id."""
        return await self._reader.find(entry_id, recent_only=recent_only)

    @property
    def latest(self) -> SignedCheckpoint | None:
        """The newest checkpoint."""
        return self._publisher.latest

    async def checkpoint(self) -> SignedCheckpoint:
        """Signs for what is durable now, unless that was done already."""
        return await self._publisher.checkpoint()

    async def covering(self, size: int) -> SignedCheckpoint:
        """A checkpoint of at least this size: the newest, or the next that is due."""
        return await self._publisher.covering(size)

    def subscribe(self, told: Callable[[SignedCheckpoint], None]) -> Callable[[], None]:
        """Has every new checkpoint told; returns what ends that."""
        return self._publisher.subscribe(told)

    async def aclose(self) -> None:
        """Waits for what is being written, signs for it, and closes; later records are refused."""
        if self._closing:
            return
        self._closing = True
        while self._committer is not None:
            await asyncio.wait([self._committer])
        await self._publisher.aclose()
        self._thread.shutdown(wait=True)
        self._journal.close()
        os.close(self._lock)

    async def _commit_batches(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                batch = self._next_batch()
                entries = [waiting.entry for waiting in batch]
                try:
                    await loop.run_in_executor(self._thread, self._journal.append, self._held.size, entries)
                except Exception as error:
                    if not isinstance(error, OSError):
                        _LOG.exception("the journal failed")
                    _refuse(batch)
                else:
                    self._accept(batch, entries)
        finally:
            self._committer = None

    def _next_batch(self) -> list[_Waiting]:
        count = size = 0
        for waiting in self._pending[:MAX_BATCH_ENTRIES]:
            size += len(waiting.entry) + 2
            if size > MAX_BATCH_BYTES:
                break
            count += 1
        batch, self._pending = self._pending[:count], self._pending[count:]
        return batch

    def _accept(self, batch: list[_Waiting], entries: list[bytes]) -> None:
        """They are durable: they are in the log, also those whose caller has gone away."""
        first = self._held.size
        self._held.add(entries, (waiting.ids for waiting in batch))
        for index, waiting in enumerate(batch, first):
            if not waiting.durable.done():
                waiting.durable.set_result(index)
        self._publisher.grown()


def _refuse(batch: list[_Waiting]) -> None:
    refusals: list[MeshError] = [unavailable() for _ in batch]
    for waiting, refusal in zip(batch, refusals, strict=True):
        if not waiting.durable.done():
            waiting.durable.set_exception(refusal)
