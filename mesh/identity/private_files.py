"""Files that hold keys: readable by their owner alone, written whole or not at all.

A file appears under its name only after its bytes are on the disk, so a crash or a full disk leaves
the old one. It does not know what is in the files.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mesh.core.errors import MeshError, Reason

MAX_FILE_BYTES = 256 * 1024


def make_private_directory(directory: Path) -> None:
    """Creates the directory (mode 0700) with its parents, or leaves an existing one alone."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_file(path: Path, data: bytes, *, mode: int = 0o600, replace: bool = False) -> None:
    """Writes atomically and durably; CONFIG_INVALID if the file exists and `replace` is not set.

    Raises OSError if the disk does not take it; nothing has changed then.
    """
    with writing_file(path, mode=mode, replace=replace) as file:
        file.write(data)


@contextmanager
def writing_file(path: Path, *, mode: int = 0o600, replace: bool = False) -> Iterator[BinaryIO]:
    """The same for what is written bit by bit: the file is there when the block has ended, or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _link_new(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_directory(path.parent)


def _link_new(temporary: str, path: Path) -> None:
    # link() fails where rename() would silently replace
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise MeshError(Reason.CONFIG_INVALID, f"{path.name} exists already and is not overwritten") from None


def read_file(path: Path, *, private: bool = False, limit: int = MAX_FILE_BYTES) -> bytes:
    """Reads a regular file of at most `limit` bytes.

    Raises NOT_FOUND if there is none; CONFIG_INVALID if it is too large or no regular file, or, where
    `private`, if anybody but its owner has access to it.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if private else 0)
        )
    except FileNotFoundError:
        raise MeshError(Reason.NOT_FOUND, f"expected a file {path.name}") from None
    except OSError as error:
        raise MeshError(Reason.CONFIG_INVALID, f"{path.name} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MeshError(Reason.CONFIG_INVALID, f"{path.name}: expected a regular file")
        if private and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            raise MeshError(
                Reason.CONFIG_INVALID,
                f"{path.name}: expected a file that its owner alone may read (chown to this user, chmod 600)",
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise MeshError(Reason.CONFIG_INVALID, f"{path.name}: expected at most {limit} bytes")
    return data


def sync_directory(directory: Path) -> None:
    """Makes what was made, renamed and removed in the directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
