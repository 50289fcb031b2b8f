"""What makes a log's folder a tiled log (C2SP tlog-tiles) that a plain file server could serve: full tiles
and bundles, the partial ones of each size that was signed, and the checkpoint.

Rules it keeps:
- signed is what is durable, and only after every tile that the size needs is on the disk;
- sizes never fall, and a size has one root: it is computed twice, from the frontier and from the tiles, and
  nothing is signed if the two differ;
- when this fails (a full disk), nothing that was recorded is affected; it is tried again.

It signs when asked, and by itself when the log has grown, at most once in `every_s` seconds. The waiting is
by the event loop's own clock, which no change of the time of day moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from mesh.core.errors import MeshError
from mesh.core.merkle import root_at
from mesh.core.notes import Checkpoint, Note, VerifierKey, sign
from mesh.core.tiles import CHECKPOINT_PATH, Tile
from mesh.evidence.base import SignedCheckpoint, Signer, damaged, not_there, unavailable
from mesh.evidence.disk import Disk
from mesh.evidence.held import Held
from mesh.evidence.journal import Journal

_LOG = logging.getLogger("mesh.evidence")

STORE_AT_BYTES = 8 << 20  # of entries in memory, beyond which full bundles are stored before the next signing
STORE_AT_ENTRIES = 4096


class Publisher:
    """Of one log. All methods belong to the event loop; files are written on a thread of its own."""

    def __init__(
        self,
        disk: Disk,
        held: Held,
        journal: Journal,
        key: VerifierKey,
        signer: Signer,
        origin: str,
        latest: SignedCheckpoint | None,
        every_s: float | None,
    ) -> None:
        self.latest = latest
        self._disk, self._held, self._journal = disk, held, journal
        self._key, self._signer, self._origin = key, signer, origin
        self._every_s = every_s
        self._told: list[Callable[[SignedCheckpoint], None]] = []
        self._waiting: list[tuple[int, asyncio.Future[SignedCheckpoint]]] = []
        self._work: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tried_at = float("-inf")
        self._failing = self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evidence-files")

    def grown(self) -> None:
        """The log has more entries."""
        held = self._held
        if held.unstored_bytes > STORE_AT_BYTES or held.size - held.stored > STORE_AT_ENTRIES:
            self._start(signing=False)
        self._schedule()

    def subscribe(self, told: Callable[[SignedCheckpoint], None]) -> Callable[[], None]:
        """Calls back with each new checkpoint; returns what ends that."""
        self._told.append(told)
        return lambda: self._told.remove(told) if told in self._told else None

    async def checkpoint(self) -> SignedCheckpoint:
        """One of the present size at least. EVIDENCE_UNAVAILABLE, EVIDENCE_DAMAGED."""
        wanted = self._held.size
        while self.latest is None or self.latest.size < wanted:
            if self._closed:
                raise unavailable("the log is closed")
            # Work that was under way may have begun before the last entry came: then once more.
            await asyncio.shield(self._start(signing=True))
        return self.latest

    async def covering(self, size: int) -> SignedCheckpoint:
        """One of this size at least, when it is due; NOT_FOUND if the log is not that long."""
        if size > self._held.size:
            raise not_there(f"a size up to {self._held.size}")
        if self.latest is not None and self.latest.size >= size:
            return self.latest
        if self._every_s is None:
            return await self.checkpoint()
        if self._closed:
            raise unavailable("the log is closed")
        wanted: asyncio.Future[SignedCheckpoint] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, wanted))
        self._schedule()
        return await wanted

    async def aclose(self) -> None:
        """Signs for everything, if it can, and ends."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            if not self._closed and self._held.size:
                await self.checkpoint()
        except MeshError as error:
            _LOG.warning("the log is closed without a last checkpoint: %s", error)
        self._closed = True
        if self._work is not None:
            await asyncio.wait([self._work])
        self._answer(unavailable("the log is closed"))
        self._thread.shutdown(wait=True)

    def _schedule(self) -> None:
        behind = self.latest is None or self.latest.size < self._held.size or self._waiting
        if self._every_s is None or self._closed or self._timer is not None or not behind:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(max(loop.time(), self._tried_at + self._every_s), self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._closed:
            self._start(signing=True)

    def _start(self, *, signing: bool) -> asyncio.Task[None]:
        """The work under way, or new one."""
        if self._work is None:
            if signing:
                self._tried_at = asyncio.get_running_loop().time()
            self._work = asyncio.get_running_loop().create_task(self._publish(signing))
            self._work.add_done_callback(self._ended)
        return self._work

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._work = None
        error = None if work.cancelled() else work.exception()
        if error is not None and not self._failing:
            _LOG.error("the log cannot be published: %s", error)
        self._failing = error is not None
        self._schedule()

    async def _publish(self, signing: bool) -> None:
        held, loop = self._held, asyncio.get_running_loop()
        # One moment, before anything is awaited.
        full, partial = held.full(), held.partial() if signing else {}
        statement = Checkpoint(self._origin, held.size, held.root())
        try:
            if full:
                await loop.run_in_executor(self._thread, self._store, full)
                held.are_stored(full)
            await loop.run_in_executor(self._thread, self._journal.drop, held.stored)
            if not signing or (self.latest is not None and self.latest.size == statement.size):
                return
            made = await loop.run_in_executor(self._thread, self._sign, partial, statement)
        except OSError as error:
            raise unavailable(f"the log's files cannot be written: {error.strerror}") from None
        self.latest = made
        self._answer(None)
        for told in tuple(self._told):
            told(made)

    def _store(self, full: Mapping[Tile, bytes]) -> None:
        self._disk.place("seal", {tile.path: data for tile, data in full.items()})
        for tile in full:
            self._disk.sweep(f"{tile.path}.p")

    def _sign(self, partial: Mapping[Tile, bytes], statement: Checkpoint) -> SignedCheckpoint:
        if root_at(self._held.tree.read, statement.size) != statement.root:
            raise damaged("tile: expected those of the entries in memory; nothing is signed")
        if partial:
            self._disk.place("partial", {tile.path: data for tile, data in partial.items()})
        signature = sign(statement.text, self._key, self._signer.sign)
        made = SignedCheckpoint(statement, bytes(Note(statement.text, (signature,))))
        self._disk.place("checkpoint", {CHECKPOINT_PATH: made.note})
        return made

    def _answer(self, refusal: MeshError | None) -> None:
        """Those who wait for what is signed now; with a refusal, all of them."""
        waiting, self._waiting = self._waiting, []
        for size, wanted in waiting:
            if refusal is not None:
                with contextlib.suppress(asyncio.InvalidStateError):
                    wanted.set_exception(refusal)
            elif self.latest is not None and self.latest.size >= size:
                with contextlib.suppress(asyncio.InvalidStateError):
                    wanted.set_result(self.latest)
            elif not wanted.done():
                self._waiting.append((size, wanted))
