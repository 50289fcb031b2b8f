"""Where `meshctl audit` reads entries from. Each kind of log is one class behind `EntrySource`.

Today: files of JSON lines, one entry a line, as nodes and control planes write them (decisions.jsonl,
actions.jsonl), or as `meshctl audit export` writes them, with log and index stated; folders of such files;
standard input. What a line holds is not looked at here: whoever gets a leaf reads it as hostile bytes
(mesh/core/audit_entries.py). A line that is too long is cut, to more than an entry may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from mesh.core.audit_entries import Leaf
from mesh.core.errors import MeshError, Reason
from mesh.core.strict_json import MAX_ENTRY_BYTES
from mesh.core.text import shortened

MAX_SOURCES = 64
POLL_S = 0.5
STDIN = Path("-")

_MAX_NAME = 300
_BATCH_LINES = 512
_MAX_LINE = MAX_ENTRY_BYTES + 4096  # an exported line states log and index besides
_EXPORTED = re.compile(
    rb'\{"origin":("(?:[^"\\]|\\.)*"),"index":([0-9]{1,18}),"(entry|unreadable)":(.*)\}', re.S
)


class EntrySource(Protocol):
    """One log, or several in one file. Leaves of each origin come by rising index."""

    def entries(self, start: int = 0, *, follow: bool = False) -> AsyncIterator[Leaf]:
        """What there is after the first `start` entries; with `follow` also what comes, without end.

        CONFIG_INVALID or NOT_FOUND if it cannot be read, or can no longer be.
        """
        ...

    async def size(self) -> int:
        """How many entries there are now; 0 where that cannot be told beforehand."""
        ...


class LinesSource:
    """A file of JSON lines, or standard input (`STDIN`). `poll_s`: how often a followed file is looked at."""

    def __init__(self, path: Path, *, poll_s: float = POLL_S) -> None:
        self._path = path
        self._origin = "standard input" if path == STDIN else shortened(str(path), _MAX_NAME)
        self._poll_s = poll_s

    async def size(self) -> int:
        """See EntrySource."""
        if self._path == STDIN:
            return 0
        with self._opened() as file:
            lines = _Lines(file)
            number = 0
            while batch := await asyncio.to_thread(lines.read):
                number += len(batch)
            return number

    async def entries(self, start: int = 0, *, follow: bool = False) -> AsyncGenerator[Leaf, None]:
        """See EntrySource. The last line counts as one though no line break ends it, unless it is followed:
        then it may be in the midst of being written."""
        with self._opened() as file:
            lines = _Lines(file)
            number = 0
            origins: set[str] = set()
            while True:
                batch = await asyncio.to_thread(lines.read)
                for line in batch:
                    if number >= start:
                        leaf = _leaf(self._origin, number, line)
                        origins.add(leaf.origin)
                        if len(origins) > MAX_SOURCES:
                            raise MeshError(
                                Reason.CONFIG_INVALID,
                                f"{self._origin}: expected at most {MAX_SOURCES} logs in one file",
                            )
                        yield leaf
                    number += 1
                if batch:
                    continue
                if not follow or self._path == STDIN:
                    break
                if os.fstat(file.fileno()).st_size < lines.position:
                    raise MeshError(Reason.CONFIG_INVALID, f"{self._origin} was cut while it was followed")
                await asyncio.sleep(self._poll_s)
            if lines.rest and number >= start:
                yield _leaf(self._origin, number, lines.rest)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._path == STDIN:
            yield sys.stdin.buffer
            return
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MeshError(Reason.NOT_FOUND, f"expected a log at {self._origin}") from None
        except OSError as error:
            raise MeshError(
                Reason.CONFIG_INVALID, f"{self._origin} cannot be read: {error.strerror}"
            ) from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise MeshError(Reason.CONFIG_INVALID, f"{self._origin}: expected a regular file or a folder")
            yield file


class _Lines:
    """Lines of a file, however long: what is beyond `_MAX_LINE` bytes of one is read and forgotten."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.rest = b""
        """What was read of a line that has not ended."""

    def read(self) -> list[bytes]:
        """Some more lines, without their ends; empty ones are left out. [] where there is none for now."""
        found: list[bytes] = []
        while len(found) < _BATCH_LINES:
            piece = self._file.readline(_MAX_LINE)
            if not piece:
                break
            self.position += len(piece)
            ended = piece.endswith(b"\n")
            self.rest = (self.rest + piece)[:_MAX_LINE] if self.rest else piece
            if ended:
                line = self.rest.removesuffix(b"\n").removesuffix(b"\r")
                self.rest = b""
                if line:
                    found.append(line)
        return found


def open_sources(paths: Sequence[Path], *, poll_s: float = POLL_S) -> list[EntrySource]:
    """The logs at these places; NOT_FOUND, CONFIG_INVALID, REQUEST_INVALID."""
    if not paths:
        raise MeshError(Reason.REQUEST_INVALID, "expected a log: name one with --log")
    found: list[EntrySource] = []
    for path in paths:
        files = _files_in(path) if path != STDIN and path.is_dir() else [path]
        found.extend(LinesSource(file, poll_s=poll_s) for file in files)
    if len(found) > MAX_SOURCES:
        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_SOURCES} logs at once")
    return found


async def leaves_of(sources: Iterable[EntrySource]) -> AsyncGenerator[Leaf, None]:
    """All leaves, one log after the other."""
    for source in sources:
        async for leaf in source.entries():
            yield leaf


async def followed(sources: Sequence[EntrySource], last: int) -> AsyncGenerator[Leaf, None]:
    """The last so many leaves of each log, and then those of all as they come.

    Ends when every source has ended; an error of one ends it, too.
    """
    queue: asyncio.Queue[Leaf] = asyncio.Queue(_BATCH_LINES)

    async def pass_on(source: EntrySource) -> None:
        start = max(0, await source.size() - last)
        async for leaf in source.entries(start, follow=True):
            await queue.put(leaf)

    async def pass_all() -> None:
        async with asyncio.TaskGroup() as tasks:
            for source in sources:
                tasks.create_task(pass_on(source))

    work = asyncio.create_task(pass_all())
    waiting: asyncio.Task[Leaf] | None = None
    try:
        while not (work.done() and queue.empty()):
            waiting = waiting or asyncio.create_task(queue.get())
            await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                leaf, waiting = waiting.result(), None
                yield leaf
        try:
            await work
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
    finally:
        for task in (work, waiting):
            if task is not None:
                task.cancel()
        await asyncio.gather(work, return_exceptions=True)


def exported_line(leaf: Leaf, *, readable: bool) -> bytes:
    """A leaf as a line of an export, from which it is read back as it is; an unreadable one only as such."""
    head = f'{{"origin":{json.dumps(leaf.origin)},"index":{leaf.index},'
    if not readable:
        return f'{head}"unreadable":true}}\n'.encode()
    data = leaf.data
    if b"\n" in data or b"\r" in data:  # blanks between tokens, in an entry that no writer of ours wrote
        data = json.dumps(json.loads(data)).encode()
    return f'{head}"entry":'.encode() + data + b"}\n"


def _leaf(origin: str, number: int, line: bytes) -> Leaf:
    found = _EXPORTED.fullmatch(line)
    if found is None:
        return Leaf(origin, number, line)
    try:
        stated = json.loads(found[1])
    except ValueError:
        return Leaf(origin, number, line)
    data = found[4] if found[3] == b"entry" else b""
    return Leaf(shortened(stated, _MAX_NAME), int(found[2]), data)


def _files_in(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix == ".jsonl")
    if not files:
        raise MeshError(Reason.NOT_FOUND, f"expected .jsonl files in {shortened(str(folder), _MAX_NAME)}")
    return files
