"""What of a log is in memory: the right edge of its tree, the entries that are in no bundle yet, recent ids.

Only the event loop changes it, always in one step; other threads read the tree. It does not know how entries
became durable, nor who stores what is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from mesh.core.merkle import Frontier, leaf_hash
from mesh.core.tiles import ENTRIES, TILE_HEIGHT, TILE_WIDTH, Tile, pack_bundle
from mesh.evidence.tree import TiledTree

RECENT_IDS = 32_768


class Held:
    """`tree` holds everything up to `stored`, a multiple of 256; entries from there on are added."""

    def __init__(self, tree: TiledTree) -> None:
        self.tree = tree
        self.stored = tree.size
        self.unstored_bytes = 0
        self.recent = RecentIds(tree.size)
        self._tail: list[bytes] = []  # from `stored` on
        self._frontier = Frontier.at(tree.read, tree.size)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.tree.size

    def root(self) -> bytes:
        """The root over all of them."""
        return self._frontier.root()

    def add(self, entries: Sequence[bytes], ids: Iterable[tuple[str, ...]]) -> None:
        """Durable entries, in order."""
        leaves = [leaf_hash(entry) for entry in entries]
        self.tree.append(leaves)
        for leaf in leaves:
            self._frontier.append(leaf)
        self._tail += entries
        self.unstored_bytes += sum(map(len, entries))
        self.recent.add(ids)

    def tail(self, start: int, end: int) -> tuple[bytes, ...]:
        """Those of the entries [start, end) that are here."""
        return tuple(self._tail[max(0, start - self.stored) : max(0, end - self.stored)])

    def full(self) -> dict[Tile, bytes]:
        """The bundles and tiles that are full and not stored yet, bundles first."""
        bundles = range(self.stored >> TILE_HEIGHT, self.size >> TILE_HEIGHT)
        made = {
            Tile(ENTRIES, n): pack_bundle(self.tail(n << TILE_HEIGHT, (n + 1) << TILE_HEIGHT))
            for n in bundles
        }
        return {**made, **self.tree.unstored()}

    def partial(self) -> dict[Tile, bytes]:
        """The partial bundle and tiles of the present size."""
        start = self.size - self.size % TILE_WIDTH
        made: dict[Tile, bytes] = {}
        if start < self.size:
            tile = Tile(ENTRIES, start >> TILE_HEIGHT, self.size - start)
            made[tile] = pack_bundle(self.tail(start, self.size))
        return {**made, **self.tree.partial()}

    def are_stored(self, tiles: Mapping[Tile, bytes]) -> None:
        """What `full` gave is where it can be loaded from."""
        bundles = sum(tile.level == ENTRIES for tile in tiles)
        self.tree.forget(tiles)
        gone = self._tail[: bundles << TILE_HEIGHT]
        del self._tail[: bundles << TILE_HEIGHT]
        self.unstored_bytes -= sum(map(len, gone))
        self.stored += bundles << TILE_HEIGHT


class RecentIds:
    """Where the newest entries' ids are: as many entries as RECENT_IDS, from index `since` on."""

    def __init__(self, since: int) -> None:
        self.since = since
        self._ids: deque[tuple[str, ...]] = deque()
        self._where: dict[str, list[int]] = {}

    def add(self, ids: Iterable[tuple[str, ...]]) -> None:
        """Of the next entries, those of each."""
        for those in ids:
            for each in those:
                self._where.setdefault(each, []).append(self.since + len(self._ids))
            self._ids.append(those)
            if len(self._ids) > RECENT_IDS:
                self._forget_oldest()

    def find(self, entry_id: str) -> tuple[int, ...]:
        """The indexes, rising."""
        return tuple(self._where.get(entry_id, ()))

    def _forget_oldest(self) -> None:
        oldest = self._ids.popleft()
        self.since += 1
        for each in oldest:
            places = self._where[each]
            del places[0]
            if not places:
                del self._where[each]
