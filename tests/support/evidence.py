"""Logs of decisions for tests, and a reader that has only what a file server would give: folder and key.

The reader knows leaves, tiles and notes, and hashes everything anew; nothing of mesh/evidence is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mesh.core.merkle import leaf_hash, root_of
from mesh.core.notes import Checkpoint, VerifierKey, parse_note, verify
from mesh.core.tiles import ENTRIES, Tile, parse_bundle, parse_hashes, tiles_of
from mesh.evidence import MerkleLog
from mesh.evidence.disk import Failpoint
from mesh.identity.log_keys import LogKey, verify_ed25519

ORIGIN = "de.mesh.example/node/fra-1"


def open_log(
    folder: Path,
    signer: LogKey,
    *,
    every_s: float | None = None,
    failpoint: Failpoint = lambda _: None,
) -> MerkleLog:
    """A log that signs only when asked, unless told otherwise."""
    return MerkleLog.open(
        folder, origin=ORIGIN, signer=signer, checkpoint_every_s=every_s, failpoint=failpoint
    )


def served(folder: Path, key: VerifierKey) -> tuple[Checkpoint, list[bytes]]:
    """The checkpoint and all entries under it, after every tile and bundle has been held against the root."""
    note = parse_note((folder / "checkpoint").read_bytes())
    verify(note, [key], verify_ed25519)
    checkpoint = Checkpoint.parse(note.text)
    entries: list[bytes] = []
    rows: dict[int, list[bytes]] = {}
    for tile in tiles_of(checkpoint.size):
        data = (folder / tile.path).read_bytes()
        if tile.level == ENTRIES:
            entries += parse_bundle(data, tile.width)
        else:
            rows.setdefault(tile.level, []).extend(parse_hashes(data, tile.width))
    leaves = [leaf_hash(entry) for entry in entries]
    assert rows.get(0, []) == leaves
    for level in range(1, len(rows)):
        below = rows[level - 1]
        assert rows[level] == [root_of(below[i : i + 256]) for i in range(0, len(below) - 255, 256)]
    assert root_of(leaves) == checkpoint.root
    return checkpoint, entries


async def all_entries(log: Any) -> list[dict[str, Any]]:
    """Every entry of either log, read back."""
    found: list[bytes] = []
    while len(found) < log.size:
        found += await log.entries_in(len(found), min(log.size, len(found) + 1024))
    return [json.loads(entry) for entry in found]


def journal_files(folder: Path) -> list[Path]:
    """The journal's files, the oldest first."""
    return sorted((folder / "journal").iterdir())


def bundle(number: int) -> str:
    """The path of a full entry bundle."""
    return Tile(ENTRIES, number).path
