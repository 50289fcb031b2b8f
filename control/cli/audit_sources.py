"""Where `meshctl audit` reads entries from. Each kind of log is one class behind `EntrySource`.

Folders of logs as daemons write them; the logs of running nodes; files of JSON lines, one entry a line, or
as `meshctl audit export` writes them, with log and index stated; folders of such files; bundles
(log_files.py); standard input. What
an entry holds is not looked at here: whoever gets a leaf reads it as hostile bytes
(mesh/core/audit_entries.py). A line that is too long is cut, to more than an entry may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import grpc

from control.cli.log_files import BundleSource, is_bundle, opened
from control.cli.node_link import open_evidence
from control.cli.session import call
from mesh.core.audit_entries import Leaf
from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.strict_json import MAX_ENTRY_BYTES
from mesh.core.text import shortened
from mesh.evidence.offline import origin_in, read_entries, size_of
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import evidence_pb2

MAX_SOURCES = 64
POLL_S = 0.5
STDIN = Path("-")

_MAX_NAME = 300
_PAST_ALL = (1 << 63) - 1
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
        with opened(self._path) as file:
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


class FolderSource:
    """The folder of one log, beside the daemon that has it open, or a copy. Nothing is verified."""

    def __init__(self, folder: Path, *, poll_s: float = POLL_S) -> None:
        self._folder = folder
        self._origin = shortened(origin_in(folder) or str(folder), _MAX_NAME)
        self._poll_s = poll_s

    async def size(self) -> int:
        """See EntrySource."""
        return await asyncio.to_thread(size_of, self._folder)

    async def entries(self, start: int = 0, *, follow: bool = False) -> AsyncGenerator[Leaf, None]:
        """See EntrySource. EVIDENCE_DAMAGED if its files are not those of a log."""
        while True:
            reading = await asyncio.to_thread(read_entries, self._folder, start)
            while batch := await asyncio.to_thread(_next, reading):
                for entry in batch:
                    yield Leaf(self._origin, start, entry)
                    start += 1
            if not follow:
                return
            await asyncio.sleep(self._poll_s)


def _next(reading: Iterator[bytes]) -> list[bytes]:
    return list(islice(reading, _BATCH_LINES))


class NodeSource:
    """The log of a running node of the profile's own authority, as its Evidence service shows it."""

    def __init__(self, name: str, profile: Path | None) -> None:
        self._name = name
        self._profile = profile

    async def size(self) -> int:
        """See EntrySource: told by the node's newest checkpoint, which may be a second behind."""
        async with open_evidence(self._profile, self._name) as (_, evidence):
            return int((await call(evidence.Read(evidence_pb2.ReadRequest(start=_PAST_ALL)).read())).size)

    async def entries(self, start: int = 0, *, follow: bool = False) -> AsyncGenerator[Leaf, None]:
        """See EntrySource. Raises what the node says."""
        async with open_evidence(self._profile, self._name) as (node, evidence):
            reading = evidence.Read(evidence_pb2.ReadRequest(start=start, follow=follow))
            try:
                async for part in reading:
                    for at, entry in enumerate(part.entries, part.start):
                        yield Leaf(origin_of(node), at, entry)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None
            finally:
                reading.cancel()


def open_sources(
    paths: Sequence[Path] | None,
    nodes: Sequence[str] | None = None,
    profile: Path | None = None,
    *,
    poll_s: float = POLL_S,
) -> list[EntrySource]:
    """The logs at these places and of these nodes; NOT_FOUND, CONFIG_INVALID, REQUEST_INVALID."""
    if not paths and not nodes:
        raise MeshError(Reason.REQUEST_INVALID, "expected a log: name one with --log, or a node with --node")
    found: list[EntrySource] = [NodeSource(name, profile) for name in nodes or ()]
    for path in paths or ():
        folders = _logs_in(path) if path != STDIN and path.is_dir() else []
        found.extend(FolderSource(folder, poll_s=poll_s) for folder in folders)
        if not folders:
            files = _files_in(path) if path != STDIN and path.is_dir() else [path]
            found.extend(
                BundleSource(file) if file != STDIN and is_bundle(file) else LinesSource(file, poll_s=poll_s)
                for file in files
            )
    if len(found) > MAX_SOURCES:
        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_SOURCES} logs at once")
    return found


def _logs_in(path: Path) -> list[Path]:
    """The folders of logs that a path means: its own, or those of a daemon's state directory."""
    return [folder for folder in (path, *sorted(path.glob("evidence/*"))) if (folder / "journal").is_dir()]


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
