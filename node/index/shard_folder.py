"""The folder of an embedded store: who owns it, and which version of the files in it counts.

    owner.lock   locked by the one process that has it open
    current      the number of the version that counts, replaced in one step
    shard-<n>    versions; all but the current one are unfinished or outdated, and removed at the next open

A new version is prepared beside the current one and then published, so that a crash at any moment leaves
one or the other, whole. What is in a version is for the store to know.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from mesh.core.errors import MeshError, Reason

_LOCK, _CURRENT, _PREFIX = "owner.lock", "current", "shard-"
_MAX_PIECE = 64 * 1024 * 1024


class ShardFolder:
    """Holds the lock from construction to `release`. INDEX_UNAVAILABLE if another process has it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if isinstance(error, BlockingIOError):
                raise _unavailable("store: expected a folder that nobody else has open") from None
            raise _unavailable("store: expected a folder to write to") from error

    def current(self) -> Path | None:
        """The version that counts, None if there is none; removes the others."""
        try:
            text = (self._folder / _CURRENT).read_text("ascii")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError):
            text = "?"
        if text and not (text.isascii() and text.isdigit()):
            raise _unavailable("store: expected the number of a version")
        found = self._folder / f"{_PREFIX}{int(text)}" if text else None
        for path in self._folder.glob(_PREFIX + "*"):
            if path != found:
                shutil.rmtree(path, ignore_errors=True)
        return found

    def following(self, path: Path | None) -> Path:
        """Where the version after `path` is to be prepared; nothing is there."""
        following = self._folder / f"{_PREFIX}{_number(path) + 1}"
        shutil.rmtree(following, ignore_errors=True)
        return following

    def publish(self, path: Path) -> None:
        """Makes the version count, once all of it is on the disk."""
        for parent, _, names in os.walk(path):
            for name in names:
                _sync(Path(parent, name))
            _sync(Path(parent))
        aside = self._folder / (_CURRENT + ".new")
        aside.write_text(str(_number(path)), "ascii")
        _sync(aside)
        aside.replace(self._folder / _CURRENT)
        _sync(self._folder)

    def remove(self, path: Path) -> None:
        """Removes a version that does not count, as far as it can; the next open tries again."""
        shutil.rmtree(path, ignore_errors=True)

    def discard(self) -> None:
        """Removes every version."""
        (self._folder / _CURRENT).unlink(missing_ok=True)
        for path in self._folder.glob(_PREFIX + "*"):
            shutil.rmtree(path)

    def release(self) -> None:
        """Lets others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def copy_version(source: Path, target: Path) -> None:
    """A copy that leaves out holes: the files of a shard are mostly room for what is to come."""
    for parent, _, names in os.walk(source):
        folder = target / Path(parent).relative_to(source)
        folder.mkdir(mode=0o700)
        for name in names:
            _copy(Path(parent, name), folder / name)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as there, target.open("wb") as here:
        size, at = os.fstat(there.fileno()).st_size, 0
        here.truncate(size)
        while at < size:
            try:
                start = os.lseek(there.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            at = os.lseek(there.fileno(), start, os.SEEK_HOLE)
            there.seek(start)
            here.seek(start)
            while start < at and (piece := there.read(min(_MAX_PIECE, at - start))):
                here.write(piece)
                start += len(piece)


def _number(path: Path | None) -> int:
    return int(path.name.removeprefix(_PREFIX)) if path is not None else 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unavailable(message: str) -> MeshError:
    return MeshError(Reason.INDEX_UNAVAILABLE, message)
