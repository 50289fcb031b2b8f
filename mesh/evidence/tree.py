"""A growing Merkle tree of which only the right edge is in memory; the rest is in tiles that somebody keeps.

Rules it keeps:
- what it reads back is not believed: each tile is held against its own root, which the tile above it holds,
  and so on up to the edge, which is here. An altered, torn or missing tile is EVIDENCE_DAMAGED;
- a tile that has become full stays in memory until its keeper says that it is stored (`forget`);
- the hash at a place never changes, so a reader on another thread sees one tree, of any size up to `size`.

Appending costs one hash a leaf. It knows nothing of files; `load` fetches a full tile's bytes, and raises
what it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from mesh.core.bounded import Bounded
from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import HASH_BYTES, root_of
from mesh.core.tiles import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    edge_of,
    pack_hashes,
    parse_hashes,
    place_of,
)

CACHED_TILES = 64  # of 8 KiB

Load = Callable[[Tile], bytes]


class TiledTree:
    """Safe to read from many threads while one appends."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = Lock()
        self._size = 0
        self._edge: list[list[bytes]] = [[]]  # per tile level: the hashes of its partial tile
        self._full: dict[tuple[int, int], bytes] = {}
        self._cache: Bounded[tuple[int, int], bytes] = Bounded(CACHED_TILES)

    @classmethod
    def restored(cls, size: int, load: Load) -> TiledTree:
        """A tree of `size` leaves, a multiple of 256, whose full tiles `load` can all fetch.

        Reads the full tiles under the partial ones of the levels above: at most 255 a level. Whether these
        are the right ones, a root that is known from elsewhere must show. Raises EVIDENCE_DAMAGED.
        """
        tree = cls(load)
        tree._size = size
        row, level = size >> TILE_HEIGHT, 1
        while row:
            width = row % TILE_WIDTH
            below = (Tile(level - 1, index) for index in range(row - width, row))
            tree._edge.append([root_of(_hashes(load(tile), tile)) for tile in below])
            row >>= TILE_HEIGHT
            level += 1
        return tree

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self._size

    def append(self, leaves: Iterable[bytes]) -> None:
        """More leaf hashes."""
        with self._lock:
            for leaf in leaves:
                self._size += 1
                hashed, level = leaf, 0
                while True:
                    row = self._edge[level]
                    row.append(hashed)
                    if len(row) < TILE_WIDTH:
                        break
                    self._full[level, (self._size >> TILE_HEIGHT * (level + 1)) - 1] = pack_hashes(row)
                    hashed, level = root_of(row), level + 1
                    row.clear()
                    if level == len(self._edge):
                        self._edge.append([])

    def read(self, level: int, index: int) -> bytes:
        """The root of a complete subtree (a HashReader). Raises EVIDENCE_DAMAGED."""
        place = place_of(level, index)
        data = self._tile(place.level, place.index)
        wanted = data[place.start * HASH_BYTES : place.end * HASH_BYTES]
        if len(wanted) != (place.end - place.start) * HASH_BYTES:
            raise IndexError("no complete subtree is there")
        return wanted if level % TILE_HEIGHT == 0 else root_of(parse_hashes(wanted, place.end - place.start))

    def leaves(self, number: int) -> tuple[bytes, ...]:
        """The leaf hashes of a full tile of level 0. Raises EVIDENCE_DAMAGED."""
        return parse_hashes(self._tile(0, number))

    def unstored(self) -> Mapping[Tile, bytes]:
        """The full tiles that nobody has said are stored, in the order in which they became full."""
        with self._lock:
            return {Tile(level, index): data for (level, index), data in self._full.items()}

    def forget(self, tiles: Iterable[Tile]) -> None:
        """These are stored: `load` fetches them from now on."""
        with self._lock:
            for tile in tiles:
                self._full.pop((tile.level, tile.index), None)

    def partial(self) -> Mapping[Tile, bytes]:
        """The partial hash tiles of the present size."""
        with self._lock:
            tiles = (tile for tile in edge_of(self._size) if tile.level != ENTRIES)
            return {tile: pack_hashes(self._edge[tile.level]) for tile in tiles}

    def _tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile that are there by now."""
        with self._lock:
            if index == self._size >> TILE_HEIGHT * (level + 1):
                return pack_hashes(self._edge[level]) if level < len(self._edge) else b""
            held = self._full.get((level, index)) or self._cache.get((level, index))
        if held is not None:
            return held
        if not 0 <= index < self._size >> TILE_HEIGHT * (level + 1):
            raise IndexError("no complete tile is there")
        tile = Tile(level, index)
        data = self._load(tile)
        if root_of(_hashes(data, tile)) != self.read(TILE_HEIGHT * (level + 1), index):
            raise damaged(tile)
        with self._lock:
            return self._cache.put((level, index), data)


def damaged(tile: Tile) -> MeshError:
    """The refusal of a tile or bundle that is not the one that was written."""
    return MeshError(
        Reason.EVIDENCE_DAMAGED, f"{tile.path}: expected the {TILE_WIDTH} that were written there"
    )


def _hashes(data: bytes, tile: Tile) -> tuple[bytes, ...]:
    try:
        return parse_hashes(data)
    except MeshError:
        raise damaged(tile) from None
