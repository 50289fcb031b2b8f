"""A model in a bucket that speaks S3's protocol (AWS, MinIO, Ceph and others).

Through obstore, which takes address and credentials from the environment (AWS_ENDPOINT, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, a workload's own identity), and which tries
again by itself. Objects are read in ranges, so that a connection that stalls costs one range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mesh.core.errors import MeshError, Reason
from node.models.rules import MOST_FILES
from node.models.source import Item, Wrote, missing, write

_RANGE_BYTES = 32 << 20
_TIMEOUT = "300s"  # for one range, from asking to its last byte


class ObjectSource:
    """See the module. `store` is an obstore store; names are relative to its prefix."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1)

    @classmethod
    def of_s3(cls, bucket: str, prefix: str, environment: Mapping[str, str]) -> ObjectSource:
        """Raises CONFIG_INVALID where obstore is missing or the environment contradicts itself."""
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise missing("obstore", "sovereign-mesh[object-store]") from None
        try:
            # Options that are given here take the place of those in the environment, of which this is one.
            plain = environment.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
            options: Any = {"timeout": _TIMEOUT, "allow_http": plain}
            return cls(S3Store(bucket, prefix=prefix or None, client_options=options))
        except (BaseError, ValueError, TypeError) as error:
            # Its words may quote the environment.
            raise MeshError(Reason.CONFIG_INVALID, f"object store: {type(error).__name__}") from None

    def items(self) -> list[Item]:
        """All objects below the prefix."""
        found: list[Item] = []
        for page in self._pages():
            for each in page:
                if each["path"] and not each["path"].endswith("/"):  # a "folder" that some tool made
                    found.append(Item(each["path"], each["size"], self._saver(each)))
            if len(found) > MOST_FILES:
                raise MeshError(Reason.MODEL_TOO_LARGE, f"more than {MOST_FILES} objects")
        if not found:
            raise MeshError(Reason.NOT_FOUND, "there is nothing below this prefix")
        return found

    def _pages(self) -> Iterator[Any]:
        import obstore

        pages = iter(obstore.list(self._store, chunk_size=1000))
        while page := self._ask(lambda: next(pages, None)):
            yield page

    def _ask(self, call: Callable[[], Any]) -> Any:
        """Calls it in a thread: whoever waits for another thread hears signals, and obstore does not."""
        from obstore.exceptions import BaseError

        try:
            return self._thread.submit(call).result()
        except BaseError as error:
            raise _explained(error) from None

    def _saver(self, each: Any) -> Any:
        def save(target: Path, wrote: Wrote) -> None:
            write(target, self._content(each["path"], each["size"]), wrote)

        return save

    def _content(self, path: str, size: int) -> Iterator[bytes]:
        import obstore

        for start in range(0, size, _RANGE_BYTES):
            length = min(_RANGE_BYTES, size - start)
            piece = bytes(
                self._ask(partial(obstore.get_range, self._store, path, start=start, length=length))
            )
            if len(piece) != length:
                raise MeshError(Reason.PEER_MISBEHAVED, "the object store gave another length than asked for")
            yield piece


def _explained(error: Exception) -> MeshError:
    """By its kind alone: its words may quote addresses, and what the server said."""
    from obstore import exceptions

    denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
    # Of a listing that was refused it makes no kind of its own.
    if isinstance(error, denied) or "403 Forbidden" in str(error) or "401 Unauthorized" in str(error):
        return MeshError(Reason.IDENTITY_NOT_ALLOWED, "the object store does not let us in")
    if isinstance(error, exceptions.NotFoundError):
        return MeshError(Reason.NOT_FOUND, "the object store has nothing of this name")
    return MeshError(Reason.UNREACHABLE, f"the object store: {type(error).__name__}")
