"""The port that models come through: files with names, each of which can be saved.

A source names and delivers; what is wanted and how much is for rules.py, and where it ends up for
fetch.py. Folders, archives, object stores and hubs are the implementations, a module each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mesh.core.errors import MeshError, Reason

PIECE_BYTES = 1 << 20

Wrote = Callable[[int], None]
"""Told of every piece that was written, in bytes, before the next; may raise to stop."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a source. `save` writes it to a path where nothing is yet."""

    name: str
    size: int
    save: Callable[[Path, Wrote], None]


class Source(Protocol):
    """Where a model comes from."""

    def items(self) -> Iterable[Item]:
        """Its files. A list where all are known before the first is saved; else each has to be saved, or
        passed over, before the next. Raises MeshError."""
        ...


def write(path: Path, pieces: Iterator[bytes], wrote: Wrote) -> None:
    """Writes a new file to the disk. Raises FileExistsError if there is one."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as file:
        for piece in pieces:
            wrote(len(piece))
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """The rest of an open file."""
    while piece := file.read(PIECE_BYTES):
        yield piece


def missing(what: str, extra: str) -> MeshError:
    """A package that this source needs is not installed."""
    return MeshError(Reason.CONFIG_INVALID, f"{what} is not installed: pip install '{extra}'")
