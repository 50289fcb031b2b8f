"""The journal: where entries become durable, before anything else becomes of them.

It is a row of files in `journal/`, each named by the index of its first entry. A file begins with a header;
what follows are frames, one for each batch that was synced together:

    header   magic (8 bytes), index of the first entry (8), CRC-32 of those (4)
    frame    magic (4), index of its first entry (8), entries (4), bytes (4), CRC-32 of all of it (4),
             then the entries, each after its length (2), as in a bundle

All numbers are big-endian. A frame is there whole or not at all: one that is not was never acknowledged if
nothing whole comes after it, and is cut off; anything else is damage, and nothing is changed then. When the
entries of a file are all in bundles, the file goes; so neither a file nor the row grows without bound.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.core.errors import MeshError
from mesh.core.tiles import pack_bundle, parse_bundle
from mesh.evidence.base import damaged
from mesh.evidence.disk import Disk, write_all
from mesh.identity.private_files import sync_directory

FOLDER = "journal"
FILE_ENTRIES = 4096
FILE_BYTES = 8 << 20
MAX_BATCH_ENTRIES = 1024
MAX_BATCH_BYTES = 4 << 20
_MAX_FILE_BYTES = 32 << 20  # a full file and the largest batch on top, amply

# Bytes that no JSON in UTF-8 holds: a frame cannot be taken for what an entry says.
_FILE_MAGIC = b"\xff\xf5smj\x01\r\n"
_FRAME_MAGIC = b"\xff\xf5f\x01"
_HEADER = struct.Struct(">8sQ")
_FRAME = struct.Struct(">4sQII")
_CRC = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Part:
    """One file as it was read: its entries, and how many of its bytes are whole frames, of how many."""

    first: int
    entries: tuple[bytes, ...]
    whole: int
    length: int

    @property
    def end(self) -> int:
        """The index after its last entry."""
        return self.first + len(self.entries)


class Journal:
    """What appends. All methods block; one thread appends, another may `drop`."""

    def __init__(self, disk: Disk, starts: list[int], last: Part) -> None:
        """`starts`: the first index of each file; `last` is the newest one. Raises OSError."""
        self._disk = disk
        self._starts = starts
        self._descriptor = self._open(last.first)
        self._length, self._count = last.whole, len(last.entries)
        self._torn = last.whole < last.length
        try:
            self._cut()
        except OSError:
            os.close(self._descriptor)
            raise

    @classmethod
    def begin(cls, disk: Disk) -> Journal:
        """An empty one."""
        disk.place("roll", {_name(0): _header(0)})
        return cls(disk, [0], Part(0, (), _HEADER.size + _CRC.size, _HEADER.size + _CRC.size))

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Makes a batch durable, all of it, or raises OSError: then it is as if it had never come."""
        self._cut()
        if self._count >= FILE_ENTRIES or self._length >= FILE_BYTES:
            self._roll(first)
        frame = _frame(first, entries)
        try:
            self._disk.failpoint("append:write")
            self._torn = True
            write_all(self._descriptor, frame)
            self._disk.failpoint("append:sync")
            os.fdatasync(self._descriptor)
            self._disk.failpoint("append:done")
        except OSError:
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self._torn = False
        self._length += len(frame)
        self._count += len(entries)

    def drop(self, stored: int) -> None:
        """Removes the files of which every entry is below `stored`, the oldest first, if it can."""
        with contextlib.suppress(OSError):
            while len(self._starts) > 1 and self._starts[1] <= stored:
                self._disk.failpoint("drop:unlink")
                (self._disk.folder / _name(self._starts[0])).unlink(missing_ok=True)
                self._disk.failpoint("drop:folder")
                sync_directory(self._disk.folder / FOLDER)  # before the next: no gap, whatever happens
                del self._starts[0]

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)

    def _roll(self, first: int) -> None:
        self._disk.place("roll", {_name(first): _header(first)})
        os.close(self._descriptor)
        self._descriptor = self._open(first)
        self._starts.append(first)
        self._length, self._count = _HEADER.size + _CRC.size, 0

    def _cut(self) -> None:
        """Takes away what is after the last whole frame, if there is something."""
        if self._torn:
            self._disk.failpoint("cut:truncate")
            os.ftruncate(self._descriptor, self._length)
            self._disk.failpoint("cut:sync")
            os.fsync(self._descriptor)
            self._disk.failpoint("cut:done")
            self._torn = False

    def _open(self, first: int) -> int:
        return os.open(self._disk.folder / _name(first), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def starts_of(disk: Disk) -> list[int]:
    """The first index of each file that is there, rising."""
    try:
        names = os.listdir(disk.folder / FOLDER)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if len(name) == 20 and name.isascii() and name.isdigit())


def read_part(disk: Disk, first: int, *, newest: bool) -> Part | None:
    """Reads one file; None if it is not there. EVIDENCE_DAMAGED unless each frame is whole and follows the
    one before; of the newest file, the last may be torn."""
    name = _name(first)
    data = disk.read(name, _MAX_FILE_BYTES)
    if data is None:
        return None
    at = _HEADER.size + _CRC.size
    if data[:at] != _header(first) or len(data) > _MAX_FILE_BYTES:
        raise damaged(f"{name}: expected a part of the journal that begins with this entry")
    entries: list[bytes] = []
    while at < len(data):
        frame = _read_frame(data, at)
        if frame is None:
            if newest and not _frame_after(data, at + 1):
                break
            raise damaged(f"{name}: expected whole frames up to the last one")
        began, found, end = frame
        if began != first + len(entries):
            raise damaged(f"{name}: expected frames that follow each other")
        entries += found
        at = end
    return Part(first, tuple(entries), at, len(data))


def _read_frame(data: bytes, at: int) -> tuple[int, tuple[bytes, ...], int] | None:
    """The frame that begins at `at`: its first index, its entries and where it ends; None if it is torn."""
    body = at + _FRAME.size + _CRC.size
    if len(data) < body:
        return None
    magic, first, count, length = _FRAME.unpack_from(data, at)
    (crc,) = _CRC.unpack_from(data, at + _FRAME.size)
    payload = data[body : body + length]
    if magic != _FRAME_MAGIC or len(payload) != length or not 1 <= count <= MAX_BATCH_ENTRIES:
        return None
    if zlib.crc32(payload, zlib.crc32(data[at : at + _FRAME.size])) != crc:
        return None
    try:
        return first, parse_bundle(payload, count), body + length
    except MeshError:
        return None


def _frame_after(data: bytes, at: int) -> bool:
    """Whether a whole frame begins anywhere from `at` on."""
    while (at := data.find(_FRAME_MAGIC, at)) >= 0:
        if _read_frame(data, at) is not None:
            return True
        at += 1
    return False


def _name(first: int) -> str:
    return f"{FOLDER}/{first:020}"


def _header(first: int) -> bytes:
    header = _HEADER.pack(_FILE_MAGIC, first)
    return header + _CRC.pack(zlib.crc32(header))


def _frame(first: int, entries: Sequence[bytes]) -> bytes:
    payload = pack_bundle(entries)
    head = _FRAME.pack(_FRAME_MAGIC, first, len(entries), len(payload))
    return head + _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload
