"""Where files lie between the wire and the parser: private, bounded, and gone afterwards.

Rules it keeps:
- a file is taken only if the disk has room for it several times over, so that an upload cannot take the
  room that the decision log and the indexes need;
- what arrives is at most what was offered, and is what was offered, or it is not taken;
- nothing stays: a file goes when it was read, an upload's folder when the upload ends, however that ends,
  and what a killed process left goes at the next start.

It does not look into files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mesh.core.documents import FileOffer
from mesh.core.errors import MeshError, Reason

# Of the file's size, on top of a margin: the file itself, and what is made of it.
ROOM_FACTOR = 3
ROOM_MARGIN_BYTES = 256 * 1024 * 1024
_RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A whole file that is what was offered."""

    offer: FileOffer
    path: Path

    def remove(self) -> None:
        """It was read, or is not wanted any more."""
        self.path.unlink(missing_ok=True)


class Inbox:
    """The folder of one node's uploads. Blocking; `open` empties it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def open(cls, folder: Path) -> Inbox:
        """Makes the folder, mode 0700, or empties it. Raises INDEX_UNAVAILABLE."""
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
        except OSError as error:
            raise _unavailable(error) from None
        return cls(folder)

    def tray(self) -> Tray:
        """A place for one upload's files. Raises INDEX_UNAVAILABLE."""
        try:
            return Tray(Path(tempfile.mkdtemp(dir=self._folder)))
        except OSError as error:
            raise _unavailable(error) from None


class Tray:
    """One upload's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def require_room(self, bytes: int) -> None:
        """Raises INDEX_UNAVAILABLE unless the disk has room for a file of this size."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise _unavailable(error) from None
        if free < ROOM_FACTOR * bytes + ROOM_MARGIN_BYTES:
            raise MeshError(
                Reason.INDEX_UNAVAILABLE, "the node's disk has no room for the file", {}, _RETRY_S
            )

    def receive(self, offer: FileOffer) -> Receiving:
        """Begins to take a file. Raises INDEX_UNAVAILABLE."""
        self.require_room(offer.bytes)
        return Receiving(self._folder / f"{offer.number}", offer)

    def clear(self) -> None:
        """Removes everything."""
        shutil.rmtree(self._folder, ignore_errors=True)


class Receiving:
    """A file that is arriving. `add` pieces, then `close`; or `abandon` it."""

    def __init__(self, path: Path, offer: FileOffer) -> None:
        self.offer = offer
        self._path = path
        self._digest = hashlib.sha256()
        self._bytes = 0
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unavailable(error) from None
        self._file = os.fdopen(descriptor, "wb")

    def add(self, data: bytes) -> None:
        """The next piece. REQUEST_INVALID if it is more than was offered, INDEX_UNAVAILABLE if it cannot
        be kept; the file is gone then."""
        self._bytes += len(data)
        if self._bytes > self.offer.bytes:
            self.abandon()
            raise MeshError(Reason.REQUEST_INVALID, "a file: expected no more bytes than were offered")
        try:
            self._file.write(data)
        except OSError as error:
            self.abandon()
            raise _unavailable(error) from None
        self._digest.update(data)

    def close(self) -> ReceivedFile:
        """The file, if it is what was offered; else DOCUMENT_INVALID."""
        try:
            self._file.close()
        except OSError as error:
            self.abandon()
            raise _unavailable(error) from None
        if self._bytes != self.offer.bytes or self._digest.digest() != self.offer.sha256:
            self.abandon()
            raise MeshError(
                Reason.DOCUMENT_INVALID, "expected the bytes that were offered: has the file changed?"
            )
        return ReceivedFile(self.offer, self._path)

    def abandon(self) -> None:
        """Removes it."""
        with contextlib.suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()
        self._path.unlink(missing_ok=True)


def _unavailable(error: OSError) -> MeshError:
    what = error.strerror or "an error of the disk"
    return MeshError(Reason.INDEX_UNAVAILABLE, f"the file cannot be kept: {what.lower()}", {}, _RETRY_S)
