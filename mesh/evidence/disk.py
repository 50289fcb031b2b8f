"""The log's file operations: each with a failpoint before it, and in the order that makes them last.

A file appears under its name only when its bytes are on the disk, and `place` returns only when its name is,
too. A test may have the failpoint end the process there, or raise the OSError that a full disk would.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from mesh.evidence.base import unavailable
from mesh.identity.private_files import sync_directory

Failpoint = Callable[[str], None]

_PLACING = ("write", "sync", "rename", "folder", "done")
# Where `failpoint` is called. "roll": a new part of the journal; "seal": full tiles and bundles; "partial"
# and "checkpoint": what a signed size needs; "append": entries; "cut": what was never acknowledged; "drop":
# parts of the journal whose entries are in bundles; "sweep": partial tiles whose full ones are there.
STEPS = (
    *(f"{purpose}:{step}" for purpose in ("roll", "seal", "partial", "checkpoint") for step in _PLACING),
    *("append:write", "append:sync", "append:done"),
    *("cut:truncate", "cut:sync", "cut:done"),
    *("drop:unlink", "drop:folder", "sweep:unlink"),
)
_ASIDE = "aside"


class Disk:
    """Files below one folder, all for their owner's eyes only."""

    def __init__(self, folder: Path, failpoint: Failpoint) -> None:
        self.folder = folder
        self.failpoint = failpoint
        self._lasting: set[Path] = set()  # folders whose own names are durable

    def prepare(self) -> int:
        """Makes the folder, and removes what was being written when a process died.

        Returns a handle that holds the folder's lock until it is closed, or the process ends, however it
        ends. Raises EVIDENCE_UNAVAILABLE if another process holds it, OSError for any other trouble.
        """
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(self.folder.parent)
        self._lasting.add(self.folder)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside = self.folder / _ASIDE
            aside.mkdir(mode=0o700, exist_ok=True)
            for left in aside.iterdir():
                left.unlink()
        except BlockingIOError:
            os.close(lock)
            raise unavailable("another process has this log open") from None
        except BaseException:
            os.close(lock)
            raise
        return lock

    def place(self, purpose: str, files: Mapping[str, bytes]) -> None:
        """Makes these files (path below the folder -> bytes), durably, replacing equal names."""
        aside = {self.folder / name: self.folder / _ASIDE / f"{purpose}-{n}" for n, name in enumerate(files)}
        try:
            for temporary, data in zip(aside.values(), files.values(), strict=True):
                self.failpoint(f"{purpose}:write")
                _write(temporary, data)
            for temporary in aside.values():  # after writing all: the disk then takes them together
                self.failpoint(f"{purpose}:sync")
                _sync_file(temporary)
            changed: dict[Path, None] = {}
            for path, temporary in aside.items():
                self.failpoint(f"{purpose}:rename")
                changed.update(dict.fromkeys(self._make(path.parent)))
                os.replace(temporary, path)
            for folder in changed:
                self.failpoint(f"{purpose}:folder")
                sync_directory(folder)
            self._lasting.update(changed)
        except OSError:
            for temporary in aside.values():
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise
        self.failpoint(f"{purpose}:done")

    def read(self, name: str, limit: int) -> bytes | None:
        """At most `limit` + 1 bytes of a file; None if it is not there. Raises OSError, also for what is no
        regular file: a copy may be anybody's."""
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "expected a regular file")
            return file.read(limit + 1)

    def sweep(self, folder: str) -> None:
        """Removes a folder of partial tiles; what cannot be removed does no harm."""
        with contextlib.suppress(OSError):
            for file in (self.folder / folder).iterdir():
                self.failpoint("sweep:unlink")
                file.unlink()
            (self.folder / folder).rmdir()

    def _make(self, folder: Path) -> list[Path]:
        """Makes a folder with its parents; every folder whose names must be synced for a file in it."""
        chain = [folder]
        while chain[-1] not in self._lasting:
            chain.append(chain[-1].parent)
        for each in reversed(chain[:-1]):
            each.mkdir(mode=0o700, exist_ok=True)
        return chain


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, where one call may write less."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
