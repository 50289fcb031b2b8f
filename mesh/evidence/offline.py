"""Reading a log's folder beside the process that has it open, or a copy of one: no lock is taken.

What is there is read, and nothing verified: proofs and receipts do that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from mesh.core.errors import MeshError
from mesh.core.notes import MAX_NOTE_BYTES, Checkpoint, parse_note
from mesh.core.tiles import CHECKPOINT_PATH, ENTRIES, TILE_HEIGHT, TILE_WIDTH, Tile, parse_bundle
from mesh.evidence.base import damaged
from mesh.evidence.disk import Disk
from mesh.evidence.journal import read_part, starts_of
from mesh.evidence.reading import load_bundle


def read_entries(folder: Path, start: int = 0) -> Iterator[bytes]:
    """The entries from the index `start` on that are durable. Raises EVIDENCE_DAMAGED."""
    disk = Disk(folder, lambda _: None)
    first, newest = _journal(disk)
    bundles = range(min(start, first) >> TILE_HEIGHT, -(-first // TILE_WIDTH))
    stored = chain.from_iterable(
        _bundle(disk, number)[: first - (number << TILE_HEIGHT)] for number in bundles
    )
    begins = bundles.start << TILE_HEIGHT if bundles else first
    return islice(chain(stored, newest), max(0, start - begins), None)


def size_of(folder: Path) -> int:
    """How many entries there are. Raises EVIDENCE_DAMAGED."""
    first, newest = _journal(Disk(folder, lambda _: None))
    return first + len(newest)


def origin_in(folder: Path) -> str:
    """What the log calls itself by its newest checkpoint; "" if there is none to be read."""
    try:
        data = Disk(folder, lambda _: None).read(CHECKPOINT_PATH, MAX_NOTE_BYTES)
        return Checkpoint.parse(parse_note(data).text).origin if data else ""
    except (MeshError, OSError):
        return ""


def _journal(disk: Disk) -> tuple[int, list[bytes]]:
    """The index that the journal begins with, and its entries. Again, if the log drops a part meanwhile."""
    before: list[int] = []
    while (starts := starts_of(disk)) and starts != before:
        try:
            parts = [read_part(disk, first, newest=first == starts[-1]) for first in starts]
        except OSError as error:
            raise damaged(f"journal: expected files that can be read: {error.strerror}") from None
        entries = [entry for part in parts if part is not None for entry in part.entries]
        if None not in parts:
            return starts[0], entries
        before = starts
    raise damaged("journal: expected one whose parts can be read")


def _bundle(disk: Disk, number: int) -> tuple[bytes, ...]:
    try:
        return parse_bundle(load_bundle(disk, Tile(ENTRIES, number)))
    except OSError as error:
        raise damaged(f"bundle {number}: expected a file that can be read: {error.strerror}") from None
