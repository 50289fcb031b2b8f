"""`python -m mesh.evidence FOLDER [--last N]`: prints a log's entries, one line of JSON each.

Reads beside the process that has the log open, and takes no lock. It shows what is there and verifies
nothing; proofs do that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mesh.core.errors import MeshError
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


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mesh.evidence", description="Prints a log's entries.")
    parser.add_argument("folder", type=Path, help="<state directory>/evidence/decisions, for example")
    parser.add_argument("--last", type=int, metavar="N", help="only the last so many")
    arguments = parser.parse_args()
    try:
        for entry in read_entries(arguments.folder, arguments.last):
            print(entry.decode())
    except BrokenPipeError:  # whoever reads has seen enough
        sys.stderr.close()
    except MeshError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
