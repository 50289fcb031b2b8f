"""A log read back: entries, proofs, and where an id is.

Whatever is in memory is answered at once; what is in files is read on other threads, and held against the
tree before it is believed (EVIDENCE_DAMAGED).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from mesh.core.errors import MeshError
from mesh.core.merkle import consistency_proof, inclusion_proof, leaf_hash
from mesh.core.tiles import ENTRIES, MAX_BUNDLE_BYTES, TILE_HEIGHT, TILE_WIDTH, Tile, parse_bundle
from mesh.evidence.base import not_there
from mesh.evidence.disk import Disk
from mesh.evidence.entries import ids_in
from mesh.evidence.held import Held
from mesh.evidence.tree import damaged

MAX_READ_ENTRIES = 1024
_BUNDLES_AT_ONCE = 64

LoadBundle = Callable[[Tile], bytes]


def load_bundle(disk: Disk, tile: Tile) -> bytes:
    """The bytes of a full bundle, as they are; EVIDENCE_DAMAGED if it is not there or cannot be read."""
    try:
        data = disk.read(tile.path, MAX_BUNDLE_BYTES)
    except OSError:
        data = None
    if data is None:
        raise damaged(tile)
    return data


class Reader:
    """Reads what `held` has and what `load` fetches: the bundles below `held.stored`."""

    def __init__(self, held: Held, load: LoadBundle) -> None:
        self._held, self._load = held, load

    async def entry(self, index: int) -> bytes:
        """One entry's bytes; NOT_FOUND, EVIDENCE_DAMAGED."""
        return (await self.entries_in(index, index + 1))[0]

    async def entries_in(self, start: int, end: int) -> tuple[bytes, ...]:
        """The entries [start, end); NOT_FOUND, EVIDENCE_DAMAGED."""
        held = self._held
        if not 0 <= start <= end <= min(held.size, start + MAX_READ_ENTRIES):
            raise not_there(f"at most {MAX_READ_ENTRIES} entries, below {held.size}")
        stored = held.stored
        here = held.tail(max(start, stored), end)
        if start >= stored:
            return here
        return await asyncio.to_thread(self._stored, start, min(end, stored)) + here

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The proof for an entry in the tree of this size; NOT_FOUND, EVIDENCE_DAMAGED."""
        if not 0 <= index < size <= self._held.size:
            raise not_there(f"an index below a size up to {self._held.size}")
        if index >= self._held.stored:  # its siblings are all on the edge
            return inclusion_proof(self._held.tree.read, index, size)
        return await asyncio.to_thread(inclusion_proof, self._held.tree.read, index, size)

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of `new` begins with that of `old`; NOT_FOUND, EVIDENCE_DAMAGED."""
        if not 0 <= old <= new <= self._held.size:
            raise not_there(f"sizes up to {self._held.size}, the older one first")
        if old >= self._held.stored:
            return consistency_proof(self._held.tree.read, old, new)
        return await asyncio.to_thread(consistency_proof, self._held.tree.read, old, new)

    async def find(self, entry_id: str, *, recent_only: bool = False) -> tuple[int, ...]:
        """The indexes of the entries of this id; EVIDENCE_DAMAGED."""
        held = self._held
        recent = held.recent.find(entry_id)
        if recent_only:
            return recent
        # One moment: what is older than the recent ids, in bundles and in memory.
        since, stored = held.recent.since, held.stored
        here = [n for n, entry in enumerate(held.tail(stored, since), stored) if entry_id in ids_in(entry)]
        older: list[int] = []
        bundles = range(-(-min(since, stored) // TILE_WIDTH))
        for at in range(0, len(bundles), _BUNDLES_AT_ONCE):
            older += await asyncio.to_thread(self._scan, bundles[at : at + _BUNDLES_AT_ONCE], entry_id)
        return (*(n for n in older if n < since), *here, *recent)

    def _stored(self, start: int, end: int) -> tuple[bytes, ...]:
        found: list[bytes] = []
        for number in range(start >> TILE_HEIGHT, (end - 1 >> TILE_HEIGHT) + 1):
            first = number << TILE_HEIGHT
            found += self._checked(number)[max(0, start - first) : end - first]
        return tuple(found)

    def _checked(self, number: int, data: bytes | None = None) -> tuple[bytes, ...]:
        """The entries of a bundle, each of which is the one in the tree."""
        tile = Tile(ENTRIES, number)
        try:
            entries = parse_bundle(self._load(tile) if data is None else data)
        except MeshError:
            raise damaged(tile) from None
        if tuple(map(leaf_hash, entries)) != self._held.tree.leaves(number):
            raise damaged(tile)
        return entries

    def _scan(self, numbers: Sequence[int], entry_id: str) -> list[int]:
        needle = json.dumps(entry_id)[1:-1].encode()  # as it would stand in an entry, number or text
        found: list[int] = []
        for number in numbers:
            data = self._load(Tile(ENTRIES, number))
            if needle in data:
                entries = self._checked(number, data)
                found += [
                    index
                    for index, entry in enumerate(entries, number << TILE_HEIGHT)
                    if needle in entry and entry_id in ids_in(entry)
                ]
        return found
