"""A model in a tar archive (plain, gzip, bzip2 or xz): a file, or streamed over HTTPS.

Read once from front to back, and never kept. Only regular files are taken; a link or a device is refused.
HTTPS only, and no redirect leads out of it. Whoever serves it may want an Authorization header:
MESH_MODEL_AUTHORIZATION in the environment, shown to the named host alone.
"""

from __future__ import annotations

import http.client
import lzma
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from mesh.core.errors import MeshError, Reason
from node.models.rules import Rules, require_room
from node.models.source import PIECE_BYTES, Item, Wrote, write

AUTHORIZATION = "MESH_MODEL_AUTHORIZATION"
_TIMEOUT_S = 60.0  # without a byte
_MOST_HEADER_BYTES = 1 << 20
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
_LONG_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

Open = Callable[[], AbstractContextManager[Any]]


class ArchiveSource:
    """See the module. `opened` gives the archive's bytes."""

    def __init__(self, opened: Open, rules: Rules) -> None:
        self._opened, self._rules = opened, rules

    def items(self) -> Iterator[Item]:
        """The files, one after the other."""
        with self._opened() as stream, _read(), _tar(stream) as archive:
            seen = 0
            for member in archive:
                seen += max(0, member.size)
                require_room(seen, self._rules)  # also what is passed over has to be unpacked
                if member.isdir():
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise MeshError(Reason.MODEL_UNSAFE, "the archive holds a link or a device")
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


def _tar(stream: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|*", tarinfo=_BoundedInfo, errorlevel=2)


def opened_file(path: Path) -> Open:
    """An archive on this machine."""
    return lambda: path.open("rb")


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
