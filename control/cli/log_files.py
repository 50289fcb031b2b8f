"""Files that hold entries of logs: how they are opened, and bundles (mesh/core/log_range.py) read as a log.

Nothing is verified here but a bundle's form: that its entries are the log's is for `meshctl audit verify`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mesh.core.audit_entries import Leaf
from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import MARK, read_entries, read_proof
from mesh.core.text import shortened

_MAX_NAME = 300
_BATCH_LINES = 512


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, to be read; NOT_FOUND, CONFIG_INVALID."""
    name = shortened(str(path), _MAX_NAME)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise MeshError(Reason.NOT_FOUND, f"expected a log at {name}") from None
    except OSError as error:
        raise MeshError(Reason.CONFIG_INVALID, f"{name} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise MeshError(Reason.CONFIG_INVALID, f"{name}: expected a regular file or a folder")
        yield file


def is_bundle(path: Path) -> bool:
    """Whether the file says that it is one; False also where it cannot be read."""
    try:
        with opened(path) as file:
            return file.read(len(MARK)) == MARK
    except (MeshError, OSError):
        return False


class BundleSource:
    """A bundle's entries, under the name of the log that they are said to be of. It ends where the file does.

    Keeps EntrySource (audit_sources.py); RECEIPT_INVALID where the file is not of the form.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def size(self) -> int:
        """See EntrySource."""
        with opened(self._path) as file:
            return read_proof(file.readline).count

    async def entries(self, start: int = 0, *, follow: bool = False) -> AsyncGenerator[Leaf, None]:
        """See EntrySource. Nothing comes later, so there is nothing to follow."""
        with opened(self._path) as file:
            proof = read_proof(file.readline)
            origin = shortened(origin_of(proof.node), _MAX_NAME)
            reading = islice(read_entries(file.readline, proof), start, None)
            while batch := await asyncio.to_thread(_next, reading):
                for index, entry in batch:
                    yield Leaf(origin, index, entry)


def _next(reading: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return list(islice(reading, _BATCH_LINES))
