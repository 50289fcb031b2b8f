"""Publishing: the next generation of a record, signed and put on the board.

Rules it keeps: no generation is signed twice, also where the fate of the first attempt is unknown, for
whoever owns the board could show each half of the mesh another of the two. A put always expects the
revision that was read before, so that of two writers one loses and reads again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

from mesh.core.assembly import Held
from mesh.core.errors import MeshError, Reason
from mesh.core.records import SIGNED_BY_NODE, RecordKey, RecordType
from mesh.identity.signing import Signer
from mesh.store.base import Entry, Lease, RecordStore

_ATTEMPTS = 8

# These are published every few seconds, and their generations come from the clock (milliseconds): a
# writer without memory, or a board that was wiped, must not send them back to 1, which everybody who
# saw more would refuse.
_NUMBERED_BY_CLOCK = frozenset({RecordType.STATUS, RecordType.HEADS})

# Whoever publishes these has the last word. Any other payload may be made from the one before it, such
# as a revocation list: publishing it over a record that its maker has not seen would undo that one.
_LAST_WORD_COUNTS = SIGNED_BY_NODE | {RecordType.HEADS}


class KnownBoard(Protocol):
    """What a publisher needs of a board; see mesh/board.py."""

    def generation(self, key: RecordKey) -> int:
        """The highest generation seen."""
        ...

    def held(self, key: RecordKey) -> Held | None:
        """The record in force."""
        ...

    def own(self) -> tuple[RecordKey, ...]:
        """The keys of the own trust domain that are in force, statuses excepted."""
        ...

    def board_revision(self, key: str) -> tuple[int, bool] | None:
        """Revision on the board, and whether that is what is in force."""
        ...

    def take(self, entry: Entry) -> None:
        """Takes an entry of the board."""
        ...

    def adopt(self, key: RecordKey, envelope: bytes) -> None:
        """Puts an envelope in force."""
        ...


class Publisher:
    """Puts records of one trust domain on the board."""

    def __init__(self, board: KnownBoard, store: RecordStore, clock: Callable[[], float]) -> None:
        self._board = board
        self._store = store
        self._clock = clock
        self._issued: dict[RecordKey, int] = {}
        self._published: dict[RecordKey, int] = {}

    async def publish(
        self, signer: Signer, key: RecordKey, payload: bytes, ttl_s: float, lease: Lease | None
    ) -> int:
        """See Board.publish."""
        before = self._board.generation(key)
        known = self._board.board_revision(str(key))
        try:
            revision = known[0] if known else await self._read(key)
        except MeshError:
            if key.type in SIGNED_BY_NODE:
                self.announce(signer, key, payload, ttl_s)
            raise
        for _ in range(_ATTEMPTS):
            if key.type not in _LAST_WORD_COUNTS and self._board.generation(key) != before:
                break
            generation, envelope = self._sign(signer, key, payload, ttl_s)
            if key.type in SIGNED_BY_NODE:
                self._board.adopt(key, envelope)
            try:
                revision = await self._store.put(str(key), envelope, expected_revision=revision, lease=lease)
            except MeshError as error:
                if error.reason is not Reason.STORE_CONFLICT or (lease is not None and lease.lost):
                    raise
                revision = await self._read(key)
                continue
            self._published[key] = generation
            self._board.take(Entry(str(key), envelope, revision))
            return generation
        raise MeshError(Reason.STORE_CONFLICT, "somebody else has written this key: look again")

    def announce(self, signer: Signer, key: RecordKey, payload: bytes, ttl_s: float) -> None:
        """See Board.announce."""
        if key.type not in SIGNED_BY_NODE:
            raise MeshError(Reason.RECORD_WRONG_SIGNER, "only what a node says of itself needs no board")
        self._board.adopt(key, self._sign(signer, key, payload, ttl_s)[1])

    def ahead(self, key: RecordKey) -> bool:
        """Whether a node's own word, signed here, is in force here alone: the board has yet to get it."""
        held = self._board.held(key)
        issued = self._issued.get(key)
        alone = held is not None and held.statement.generation == issued != self._published.get(key)
        return key.type in SIGNED_BY_NODE and alone

    def due(self, key: RecordKey, payload: bytes) -> bool:
        """See Board.due."""
        held = self._board.held(key)
        if held is None or held.statement.payload != payload:
            return True
        half_life = (held.statement.not_before + held.statement.not_after) / 2
        known = self._board.board_revision(str(key))
        return self._clock() >= half_life or (known is not None and not known[1])

    async def restore(self) -> int:
        """See Board.restore."""
        restored = 0
        for key in self._board.own():
            known, held = self._board.board_revision(str(key)), self._board.held(key)
            if known is None or known[1] or held is None:
                continue
            # Whoever wrote meanwhile knows better.
            with contextlib.suppress(MeshError):
                revision = await self._store.put(str(key), held.envelope, expected_revision=known[0])
                self._board.take(Entry(str(key), held.envelope, revision))
                restored += 1
        return restored

    async def _read(self, key: RecordKey) -> int:
        entry = await self._store.get(str(key))
        if entry is None:
            return 0
        self._board.take(entry)
        return entry.revision

    def _sign(self, signer: Signer, key: RecordKey, payload: bytes, ttl_s: float) -> tuple[int, bytes]:
        if signer.id != key.signer:
            raise MeshError(Reason.RECORD_WRONG_SIGNER, f"only {key.signer} may sign this key")
        now = self._clock()
        floor = int(now * 1000) if key.type in _NUMBERED_BY_CLOCK else 1
        generation = max(self._board.generation(key) + 1, self._issued.get(key, 0) + 1, floor)
        self._issued[key] = generation
        return generation, signer.sign(key.type, str(key), generation, now, now + ttl_s, payload)
