"""A log's folder read on start: the right edge of its tiles, the journal after it, and what it signed last.

Reads in proportion to the edge and the journal, whatever the log's size. Everything is checked before
anything is changed: if the folder is not what this log signed for, opening it fails with EVIDENCE_DAMAGED and
the files stay as they are.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import leaf_hash, root_at
from mesh.core.notes import MAX_NOTE_BYTES, Checkpoint, VerifierKey, parse_note, verify
from mesh.core.tiles import CHECKPOINT_PATH, TILE_BYTES, TILE_WIDTH, Tile
from mesh.evidence.base import SignedCheckpoint, damaged
from mesh.evidence.disk import Disk
from mesh.evidence.entries import ids_in
from mesh.evidence.held import Held
from mesh.evidence.journal import FOLDER, Journal, Part, read_part, starts_of
from mesh.evidence.tree import TiledTree
from mesh.identity.log_keys import verify_ed25519

_LOG = logging.getLogger("mesh.evidence")


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found, ready to go on."""

    held: Held
    journal: Journal
    latest: SignedCheckpoint | None


def open_folder(disk: Disk, key: VerifierKey, origin: str) -> Opened:
    """Opens a folder that is prepared, or begins a log in it. Raises EVIDENCE_DAMAGED and OSError."""
    latest = _read_checkpoint(disk, key, origin)
    starts = starts_of(disk)
    if not starts:
        if latest is not None or (disk.folder / "tile").exists():
            raise damaged(f"{FOLDER}: expected the journal that belongs to the tiles and the checkpoint")
        return Opened(Held(_restored(disk, 0)), Journal.begin(disk), None)
    parts = _read_parts(disk, starts)
    # A file of the journal goes only when the next one's first entry is in a bundle.
    base = -(-starts[0] // TILE_WIDTH) * TILE_WIDTH
    if parts[-1].end < base:
        raise damaged(f"{FOLDER}: expected entries up to {base} at least")
    held = Held(_restored(disk, base))
    _add_parts(held, parts)
    if latest is not None:
        _check_signed(held, latest.checkpoint)
    last = parts[-1]
    if last.whole < last.length:
        _LOG.warning("the log ended in %d bytes that nobody was told of: cut off", last.length - last.whole)
    return Opened(held, Journal(disk, starts, last), latest)


def begin(folder: Path) -> None:
    """Begins a log in the folder, unless there is one. Raises EVIDENCE_UNAVAILABLE and OSError."""
    disk = Disk(folder, lambda _: None)
    lock = disk.prepare()
    try:
        if not starts_of(disk):
            Journal.begin(disk).close()
    finally:
        os.close(lock)


def load_tile(disk: Disk, tile: Tile) -> bytes:
    """The bytes of a full tile, as they are; EVIDENCE_DAMAGED if it is not there or cannot be read."""
    try:
        data = disk.read(tile.path, TILE_BYTES)
    except OSError as error:
        raise damaged(f"{tile.path} cannot be read: {error.strerror}") from None
    if data is None:
        raise damaged(f"{tile.path}: expected it to be there")
    return data


def _restored(disk: Disk, base: int) -> TiledTree:
    return TiledTree.restored(base, lambda tile: load_tile(disk, tile))


def _read_checkpoint(disk: Disk, key: VerifierKey, origin: str) -> SignedCheckpoint | None:
    data = disk.read(CHECKPOINT_PATH, MAX_NOTE_BYTES)
    if data is None:
        return None
    try:
        note = parse_note(data)
        verify(note, [key], verify_ed25519)
        checkpoint = Checkpoint.parse(note.text)
    except MeshError as error:
        if error.reason is not Reason.NOTE_INVALID:
            raise
        raise damaged(
            "checkpoint: expected one that this log's key has signed; its key file belongs to the folder"
        ) from None
    if checkpoint.origin != origin:
        raise damaged("checkpoint: expected one of this log, by its origin")
    return SignedCheckpoint(checkpoint, data)


def _read_parts(disk: Disk, starts: list[int]) -> list[Part]:
    parts: list[Part] = []
    for first in starts:
        part = read_part(disk, first, newest=first == starts[-1])
        if part is None:
            raise damaged(f"{FOLDER}: expected a part to stay while the log is open")
        if parts and parts[-1].end != first:
            raise damaged(f"{FOLDER}: expected parts that follow each other")
        parts.append(part)
    return parts


def _add_parts(held: Held, parts: list[Part]) -> None:
    """Adds the entries that are in no bundle yet; the others must be those that the tiles have."""
    for part in parts:
        known = part.entries[: max(0, held.stored - part.first)]
        for index, entry in enumerate(known, part.first):
            if held.tree.read(0, index) != leaf_hash(entry):
                raise damaged(f"{FOLDER}: expected the same entries as in the tiles")
        fresh = part.entries[len(known) :]
        held.add(fresh, map(ids_in, fresh))


def _check_signed(held: Held, signed: Checkpoint) -> None:
    if signed.size > held.size:
        raise damaged(
            f"{FOLDER}: expected the {signed.size} entries that the log has signed for, found {held.size}"
        )
    if root_at(held.tree.read, signed.size) != signed.root:
        raise damaged("tile and journal: expected the entries that the log has signed for")
