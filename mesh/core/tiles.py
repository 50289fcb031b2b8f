"""Tiles: a Merkle tree and its entries cut into files of 256, as the C2SP specification tlog-tiles lays down.

A tile of level L holds the roots of 256 subtrees of 256**L leaves each, 32 bytes a hash; what lies between
two tile levels is hashed anew from them. An entry bundle holds the 256 entries under a tile of level 0, each
after its length (uint16, big-endian). The last tile of a level, and the last bundle, may be partial: its name
says how wide it is, and it never changes under that name.

What is read may come from anywhere: a length or a name that is not exactly right is PROOF_INVALID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import HASH_BYTES, MAX_TREE_SIZE

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES
MAX_ENTRY_BYTES = 0xFFFF
MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)
ENTRIES = -1  # in place of a level: the tile is an entry bundle

CHECKPOINT_PATH = "checkpoint"

_PATH = re.compile(r"tile/(entries|[0-7])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile or, where `level` is ENTRIES, a bundle; `width` says how many hashes or entries it holds."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Where it is, below the log's prefix: "tile/0/x001/x234/067.p/8"."""
        folder = "entries" if self.level == ENTRIES else str(self.level)
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return f"tile/{folder}/{name}" + ("" if self.full else f".p/{self.width}")

    @property
    def full(self) -> bool:
        """Whether it is as wide as it gets."""
        return self.width == TILE_WIDTH

    @property
    def whole(self) -> Tile:
        """What becomes of it once it is full."""
        return replace(self, width=TILE_WIDTH)

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Reads a path as `path` writes it, and no other; PROOF_INVALID."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise _invalid("the path of a tile")
        folder, name, width = match.groups()
        tile = cls(
            ENTRIES if folder == "entries" else int(folder),
            int(name.replace("/", "").replace("x", "")),
            int(width or TILE_WIDTH),
        )
        if tile.path != path or tile.index > MAX_TREE_SIZE >> TILE_HEIGHT:
            raise _invalid("the path of a tile")
        return tile


def edge_of(size: int) -> Iterator[Tile]:
    """The partial tiles that a tree of this size ends with, the bundle first: none where a level is even."""
    if size % TILE_WIDTH:
        yield Tile(ENTRIES, size >> TILE_HEIGHT, size % TILE_WIDTH)
    level = 0
    while size:
        if size % TILE_WIDTH:
            yield Tile(level, size >> TILE_HEIGHT, size % TILE_WIDTH)
        size >>= TILE_HEIGHT
        level += 1


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile and bundle that a log of this size consists of, bundles first, partial ones included."""
    row, level = size, ENTRIES
    while row:
        yield from (Tile(level, index) for index in range(row >> TILE_HEIGHT))
        if row % TILE_WIDTH:
            yield Tile(level, row >> TILE_HEIGHT, row % TILE_WIDTH)
        if level != ENTRIES:
            row >>= TILE_HEIGHT
        level += 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where the root of a complete subtree comes from: hashes [start, end) of a tile, hashed together."""

    level: int
    index: int
    start: int
    end: int


def place_of(level: int, index: int) -> Place:
    """The place of the root of the subtree over the leaves [index << level, (index + 1) << level)."""
    tile_level, above = divmod(level, TILE_HEIGHT)
    first = index << above
    start = first % TILE_WIDTH
    return Place(tile_level, first >> TILE_HEIGHT, start, start + (1 << above))


def pack_hashes(hashes: Iterable[bytes]) -> bytes:
    """The bytes of a tile."""
    return b"".join(hashes)


def parse_hashes(data: bytes, width: int = TILE_WIDTH) -> tuple[bytes, ...]:
    """The hashes of a tile of this width; PROOF_INVALID if it is not exactly that."""
    if len(data) != width * HASH_BYTES:
        raise _invalid(f"a tile of {width} hashes")
    return tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of an entry bundle. An entry has at most MAX_ENTRY_BYTES: OverflowError."""
    return b"".join(part for entry in entries for part in (len(entry).to_bytes(2, "big"), entry))


def parse_bundle(data: bytes, width: int = TILE_WIDTH) -> tuple[bytes, ...]:
    """The entries of a bundle of this width; PROOF_INVALID if it is not exactly that."""
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise _invalid(f"a bundle of {width} entries")
        entries.append(data[start:at])
    if at != len(data):
        raise _invalid(f"a bundle of {width} entries")
    return tuple(entries)


def _invalid(what: str) -> MeshError:
    return MeshError(Reason.PROOF_INVALID, f"expected {what}")
