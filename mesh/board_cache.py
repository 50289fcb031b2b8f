"""The board's memory on disk: envelopes in force, and the highest generation ever seen of each key.

Envelopes are kept as they were signed and are verified anew when loaded, so this file is believed no
more than the board itself (I5). The generations are what keeps a node that restarts from being led back
to older records. Heads change every few seconds and lie in a file of their own, so that a large mesh
does not rewrite everything with them; losing the latest costs nothing, for they age by themselves.

Rules it keeps: a file appears whole or not at all, with mode 0600; a disk that is full leaves the old
one. A file that cannot be read is put aside, never overwritten.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import make_private_directory, read_file, write_file

RECORDS = "records.json"
HEADS = "heads.json"
MAX_CACHE_BYTES = 512 * 1024 * 1024
_FORMAT = 1
# Seconds from a change to the file.
SAVE_AFTER_S = {RECORDS: 0.2, HEADS: 5.0}
SAVE_AGAIN_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedBoard:
    """What is on disk. `saved_at` is Unix time in seconds; `envelopes` go by key."""

    version: int = 0
    saved_at: float = 0.0
    seen: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    envelopes: Mapping[str, bytes] = field(default_factory=dict)


class BoardCache:
    """Keeps two files in a directory of mode 0700. `memory` says what belongs into a file now."""

    def __init__(self, directory: Path, memory: Callable[[str], CachedBoard]) -> None:
        self._directory = directory
        self._memory = memory
        self._unsaved = {RECORDS: asyncio.Event(), HEADS: asyncio.Event()}
        self._problems: dict[str, str] = {}
        self.problems: Mapping[str, str] = MappingProxyType(self._problems)

    def load(self) -> CachedBoard:
        """What was saved. What cannot be read is told in `problems`."""
        records, heads = self._read(RECORDS), self._read(HEADS)
        envelopes = {**records.envelopes, **heads.envelopes}
        return CachedBoard(records.version, records.saved_at, records.seen, envelopes)

    def changed(self, name: str) -> None:
        """Says that a file is behind what is in force."""
        self._unsaved[name].set()

    async def keep(self, name: str) -> None:
        """Writes a file soon after it has changed, for ever. Several changes at once are one write."""
        while True:
            await self._unsaved[name].wait()
            await asyncio.sleep(SAVE_AFTER_S[name])
            self._unsaved[name].clear()
            writing = asyncio.ensure_future(asyncio.to_thread(self._try, name, self._memory(name)))
            try:
                failure = await asyncio.shield(writing)
            except asyncio.CancelledError:
                # The thread cannot be stopped, and must not overwrite what is written after it.
                await writing
                self._unsaved[name].set()
                raise
            if not self._save(name, failure):
                self._unsaved[name].set()
                await asyncio.sleep(SAVE_AGAIN_S)

    def flush(self) -> None:
        """Writes what is behind, now."""
        for name, unsaved in self._unsaved.items():
            if unsaved.is_set():
                unsaved.clear()
                self._save(name, self._try(name, self._memory(name)))

    def _save(self, name: str, failure: str) -> bool:
        if not failure:
            self._problems.pop(name, None)
            return True
        if name not in self._problems:
            _log.error("the board's records are not saved: %s", failure)
        self._problems[name] = failure
        return False

    def _try(self, name: str, cached: CachedBoard) -> str:
        try:
            make_private_directory(self._directory)
            write_file(self._directory / name, b"".join(_lines(cached)), replace=True)
        except OSError as error:
            return f"{name} cannot be written, the old one stays: {error.strerror}"
        return ""

    def _read(self, name: str) -> CachedBoard:
        path = self._directory / name
        try:
            if path.exists():
                return read_cached(path)
        except _Damaged:
            self._problems[name] = f"{name} is damaged: it was put aside, and what it remembered is lost"
            _put_aside(path)
        except (MeshError, OSError) as error:
            self._problems[name] = f"{name} cannot be read: {error}"
        return CachedBoard()


class _Damaged(MeshError):
    """A file that is not what was written."""


def read_cached(path: Path) -> CachedBoard:
    """One file, changing nothing. Raises NOT_FOUND, CONFIG_INVALID and OSError.

    What is in it is as believable as the board: not before each envelope has been verified.
    """
    try:
        return _decode(read_file(path, private=True, limit=MAX_CACHE_BYTES))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
        raise _Damaged(Reason.CONFIG_INVALID, f"{path.name} is damaged") from None


def _lines(cached: CachedBoard) -> Iterator[bytes]:
    """One JSON line about the whole, and one for each key: encoding everything at once would keep the
    interpreter from everybody else while it lasts."""
    yield _line({"format": _FORMAT, "version": cached.version, "saved_at": cached.saved_at})
    for key in sorted(cached.seen.keys() | cached.envelopes.keys()):
        envelope = cached.envelopes.get(key)
        encoded = base64.b64encode(envelope).decode() if envelope is not None else None
        yield _line({"key": key, "seen": cached.seen.get(key), "envelope": encoded})


def _line(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _decode(data: bytes) -> CachedBoard:
    first, *rest = data.splitlines()
    whole = json.loads(first)
    if whole["format"] != _FORMAT:
        raise ValueError
    seen: dict[str, tuple[int, str]] = {}
    envelopes: dict[str, bytes] = {}
    for line in rest:
        entry = json.loads(line)
        key = str(entry["key"])
        if entry["seen"] is not None:
            generation, digest = entry["seen"]
            seen[key] = (int(generation), str(digest))
        if entry["envelope"] is not None:
            envelopes[key] = base64.b64decode(entry["envelope"], validate=True)
    return CachedBoard(int(whole["version"]), float(whole["saved_at"]), seen, envelopes)


def _put_aside(path: Path) -> None:
    try:
        path.replace(path.with_name(path.name + ".damaged"))
    except OSError:
        return  # a read-only disk: it will not be overwritten either
