"""Reading a log's folder beside the process that has it open, or a copy of one: no lock is taken.

What is there is read, and nothing verified: proofs and receipts do that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mesh.core.tiles import ENTRIES, TILE_HEIGHT, TILE_WIDTH, Tile, parse_bundle
from mesh.evidence.base import damaged
from mesh.evidence.disk import Disk
from mesh.evidence.journal import read_part, starts_of
from mesh.evidence.reading import load_bundle


def read_entries(folder: Path, last: int | None = None) -> Iterator[bytes]:
    """The entries that are durable, the oldest first, or the `last` so many. Raises EVIDENCE_DAMAGED."""
    disk = Disk(folder, lambda _: None)
    first, newest = _journal(disk)
    start = 0 if last is None else max(0, first + len(newest) - last)
    bundles = range(start >> TILE_HEIGHT, -(-first // TILE_WIDTH))
    stored = chain.from_iterable(
        _bundle(disk, number)[: first - (number << TILE_HEIGHT)] for number in bundles
    )
    skipped = start - (bundles.start << TILE_HEIGHT) if bundles else start - first
    for index, entry in enumerate(chain(stored, newest)):
        if index >= skipped:
            yield entry


def _journal(disk: Disk) -> tuple[int, list[bytes]]:
    """The index that the journal begins with, and its entries. Again, if the log drops a part meanwhile."""
    while starts := starts_of(disk):
        parts = [read_part(disk, first, newest=first == starts[-1]) for first in starts]
        entries = [entry for part in parts if part is not None for entry in part.entries]
        if None not in parts:
            return starts[0], entries
    raise damaged("journal: expected one")


def _bundle(disk: Disk, number: int) -> tuple[bytes, ...]:
    return parse_bundle(load_bundle(disk, Tile(ENTRIES, number)))
