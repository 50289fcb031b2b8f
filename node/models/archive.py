"""A model in a tar archive (plain, gzip, bzip2 or xz): a file, or streamed over HTTPS.

Read once from front to back, and never kept. Only regular files are taken; a link or a device is refused.
It is unpacked a piece at a time, for a few bytes may stand for gigabytes, and what is no file's content
(headers, folders, padding) is bounded as a whole.
HTTPS only, and no redirect leads out of it. Whoever serves it may want an Authorization header:
MESH_MODEL_AUTHORIZATION in the environment, shown to the named host alone.
"""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import lzma
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from mesh.core.errors import MeshError, Reason
from node.models.rules import Rules, require_room
from node.models.source import PIECE_BYTES, Item, Wrote, write

AUTHORIZATION = "MESH_MODEL_AUTHORIZATION"
_TIMEOUT_S = 60.0  # without a byte
_MOST_HEADER_BYTES = 1 << 20
_MOST_OVERHEAD_BYTES = 64 << 20  # for all files together
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, RecursionError)
_MAGIC: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda packed: gzip.GzipFile(fileobj=packed),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_LONG_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

Open = Callable[[], AbstractContextManager[Any]]


class ArchiveSource:
    """See the module. `opened` gives the archive's bytes."""

    def __init__(self, opened: Open, rules: Rules) -> None:
        self._opened, self._rules = opened, rules

    def items(self) -> Iterator[Item]:
        """The files, one after the other."""
        with self._opened() as stream, _read(), _Unpacked(stream) as unpacked, _tar(unpacked) as archive:
            seen = 0
            for member in archive:
                seen += max(0, member.size)
                require_room(seen, self._rules)  # also what is passed over has to be unpacked
                if member.isdir():
                    continue
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise MeshError(
                        Reason.MODEL_UNSAFE, "the archive holds a link, a device or a sparse file"
                    )
                unpacked.expect(member.size)
                yield Item(member.name.removeprefix("./"), member.size, _Saver(content))


class _Saver:
    def __init__(self, content: IO[bytes]) -> None:
        self._content = content

    def __call__(self, target: Path, wrote: Wrote) -> None:
        write(target, self._pieces(), wrote)

    def _pieces(self) -> Iterator[bytes]:
        while True:
            with _read():
                piece = self._content.read(PIECE_BYTES)
            if not piece:
                return
            yield piece


class _Unpacked(io.RawIOBase):
    """What an archive unpacks to; by what it begins with, as its name may lie."""

    def __init__(self, stream: Any) -> None:
        packed = io.BufferedReader(stream)
        head = packed.peek(6)
        reader = next((reader for magic, reader in _MAGIC.items() if head.startswith(magic)), None)
        self._content = reader(packed) if reader else packed
        self._left = _MOST_OVERHEAD_BYTES

    def expect(self, size: int) -> None:
        """So many bytes of a file come next."""
        self._left += size

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes. Raises MODEL_UNSAFE for more than was expected."""
        try:
            found: bytes = self._content.read(size)
        except OSError as error:
            if type(error) is OSError and error.errno is None:  # bz2's way of saying it
                raise tarfile.ReadError("damaged") from None
            raise
        self._left -= len(found)
        if self._left < 0:
            raise MeshError(Reason.MODEL_UNSAFE, "the archive has more headers than a model needs")
        return found


@contextmanager
def _read() -> Iterator[None]:
    """Around reading the archive, and nothing else that could fail in the same way."""
    try:
        yield
    except _BROKEN as error:
        raise MeshError(Reason.MODEL_UNSAFE, f"no whole tar archive: {type(error).__name__}") from None
    except (OSError, http.client.HTTPException) as error:
        raise MeshError(Reason.UNREACHABLE, f"the archive broke off: {type(error).__name__}") from None


class _BoundedInfo(tarfile.TarInfo):
    """Headers that tarfile would read into memory whole are bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedInfo:
        """As tarfile's. Raises MODEL_UNSAFE for a header that is longer than any path."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _LONG_HEADERS and found.size > _MOST_HEADER_BYTES:
            raise MeshError(Reason.MODEL_UNSAFE, "the archive has a header of more than a mebibyte")
        return found


def _tar(unpacked: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_BoundedInfo, errorlevel=2)


def opened_file(path: Path) -> Open:
    """An archive on this machine."""
    return lambda: path.open("rb", buffering=0)


def opened_url(url: str, environment: Mapping[str, str]) -> Open:
    """An archive behind an https:// address.

    Opening raises NOT_FOUND, IDENTITY_NOT_ALLOWED or UNREACHABLE.
    """
    request = urllib.request.Request(url)  # noqa: S310 (https alone: see _OnlyHttps and sources.py)
    if environment.get(AUTHORIZATION):
        request.add_unredirected_header("Authorization", environment[AUTHORIZATION])
    opener = urllib.request.build_opener(_OnlyHttps)

    def opened() -> Any:
        try:
            return opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise refused(error.code) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            raise MeshError(Reason.UNREACHABLE, f"no answer: {type(cause).__name__}") from None

    return opened


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Follows, but never out of HTTPS."""
        if not newurl.lower().startswith("https://"):
            raise MeshError(Reason.MODEL_UNSAFE, "the server leads from HTTPS to something else")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def refused(status: int) -> MeshError:
    """What an HTTP status means here."""
    if status in (401, 403):
        return MeshError(Reason.IDENTITY_NOT_ALLOWED, f"the source does not let us in (HTTP {status})")
    if status in (404, 410):
        return MeshError(Reason.NOT_FOUND, f"the source has nothing of this name (HTTP {status})")
    return MeshError(Reason.UNREACHABLE, f"the source answers HTTP {status}")
