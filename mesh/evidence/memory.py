"""The log's twin in memory: the same tree and the same proofs, without files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import ED25519, Checkpoint, Note, VerifierKey, sign
from mesh.core.tiles import Tile
from mesh.evidence.base import Entry, SignedCheckpoint, Signer, not_there, unavailable
from mesh.evidence.entries import encode, ids_of
from mesh.evidence.held import Held
from mesh.evidence.reading import Reader
from mesh.evidence.tree import TiledTree


class MemoryDecisionLog:
    """Keeps the port EvidenceLog. Set `full` to make it refuse, as a full disk would.

    Without a `signer` it can be read and proved, but signs nothing (EVIDENCE_UNAVAILABLE).
    """

    def __init__(self, origin: str = "memory", signer: Signer | None = None) -> None:
        self.entries: list[dict[str, Any]] = []
        self.full = False
        self.key = VerifierKey(origin, ED25519, signer.public) if signer is not None else None
        self.latest: SignedCheckpoint | None = None
        self._signer = signer
        self._held = Held(TiledTree(_never))
        self._reader = Reader(self._held, _never)
        self._told: list[Callable[[SignedCheckpoint], None]] = []

    async def record(self, entry: Entry) -> int:
        """Keeps the entry, also in `entries`, as it would be read back."""
        data = encode(entry)
        if self.full:
            raise unavailable()
        self.entries.append(json.loads(data))
        self._held.add([data], [ids_of(entry)])
        return self._held.size - 1

    @property
    def size(self) -> int:
        """How many entries there are."""
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

    async def checkpoint(self) -> SignedCheckpoint:
        """Signs for what is there, unless that was done already."""
        if self.key is None or self._signer is None:
            raise unavailable("this log has no key to sign with")
        if self.full:
            raise unavailable("the log's files cannot be written")
        if self.latest is None or self.latest.size < self.size:
            statement = Checkpoint(self.key.name, self.size, self._held.root())
            signature = sign(statement.text, self.key, self._signer.sign)
            self.latest = SignedCheckpoint(statement, bytes(Note(statement.text, (signature,))))
            for told in tuple(self._told):
                told(self.latest)
        return self.latest

    async def covering(self, size: int) -> SignedCheckpoint:
        """A checkpoint of at least this size."""
        if size > self.size:
            raise not_there(f"a size up to {self.size}")
        return await self.checkpoint()

    def subscribe(self, told: Callable[[SignedCheckpoint], None]) -> Callable[[], None]:
        """Has every new checkpoint told; returns what ends that."""
        self._told.append(told)
        return lambda: self._told.remove(told) if told in self._told else None

    async def aclose(self) -> None:
        """Nothing to do."""


def _never(tile: Tile) -> bytes:
    raise MeshError(Reason.EVIDENCE_DAMAGED, f"{tile.path}: expected it in memory")
