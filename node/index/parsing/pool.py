"""Keeps the workers that read files, and reads files with them.

A worker reads one file at a time and many in its life, since starting one takes a second. It is replaced
when it dies, misbehaves, takes too long, was left in the middle of a file, has grown, or has read its
number of files. What is dead never fails the next file. Waiting for whoever takes the documents costs a
worker none of its time: it stops when its pipe is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from node.index.documents import MetaDefaults, ParsedDocument
from node.index.parsing.complaints import Complaint
from node.index.parsing.intake import Intake, Misbehaved, Skipped
from node.index.parsing.limits import ParseLimits
from node.index.parsing.media import HEAD_BYTES, MEDIA, STREAMED, agrees
from node.index.parsing.worker_process import WorkerProcess


class ParserPool:
    """At most `workers` processes, started when first needed. Belongs to one event loop."""

    def __init__(self, workers: int = 1, limits: ParseLimits | None = None) -> None:
        self._limits = limits or ParseLimits()
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._closed = False
        self.isolated: bool | None = None  # whether the last worker that was started has no network

    async def parse(
        self, path: Path, media: str, defaults: MetaDefaults
    ) -> AsyncGenerator[ParsedDocument | Skipped, None]:
        """The file's documents: one, or for JSONL and CSV one per row, with a Skipped for each bad row.

        `media` is what media_of says of the file's own name. Raises MeshError, for JSONL and CSV
        perhaps after some rows: DOCUMENT_UNREADABLE, DOCUMENT_TOO_LARGE, DOCUMENT_INVALID (the file), or
        INDEX_UNAVAILABLE (this pool). Close the iterator (contextlib.aclosing) if you leave it early.
        """
        if media not in MEDIA:
            raise Complaint.UNKNOWN_KIND.error()
        file = _opened(path, media, self._limits)
        try:
            async with self._slots:
                worker = await self._take()
                try:
                    async with contextlib.aclosing(self._read(worker, file, media, defaults)) as read:
                        async for found in read:
                            yield found
                finally:
                    await self._give_back(worker, worker.at_rest)
        finally:
            os.close(file)

    async def aclose(self) -> None:
        """Ends all workers, those that read included; their readers get INDEX_UNAVAILABLE."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(w.end() for w in idle), *(w.kill() for w in list(self._busy)))

    async def _read(
        self, worker: WorkerProcess, file: int, media: str, defaults: MetaDefaults
    ) -> AsyncGenerator[ParsedDocument | Skipped, None]:
        intake = Intake(defaults, media in STREAMED, self._limits)
        budget_s = self._limits.wall_s
        try:
            worker.begin(file, media)
            while True:
                frame, took_s = await worker.frame(budget_s)
                budget_s -= took_s
                # One whose memory ran out is on its way to its end.
                worker.at_rest = frame[0] in ("done", "failed") and frame != ["failed", Complaint.MEMORY.name]
                try:
                    found = intake.feed(frame)
                except MeshError:
                    if frame[0] == "end" and media not in STREAMED:
                        # Refused for what it says of itself: the worker has done nothing wrong.
                        worker.at_rest = (await worker.frame(budget_s))[0] == ["done"]
                    raise
                if intake.done:
                    return
                if found is not None:
                    yield found
                    budget_s = self._limits.wall_s
        except TimeoutError:
            raise Complaint.TOO_SLOW.error() from None
        except (Misbehaved, OSError, EOFError, ValueError):
            worker.at_rest = False
            self._check_open()
            out_of_time = await worker.kill() == -signal.SIGXCPU
            raise (Complaint.TOO_SLOW if out_of_time else Complaint.GAVE_UP).error() from None

    async def _take(self) -> WorkerProcess:
        self._check_open()
        while self._idle:
            worker = self._idle.pop()
            if worker.lives():
                self._busy.add(worker)
                return worker
            await worker.end()
        worker = WorkerProcess(self._limits)
        self._busy.add(worker)
        try:
            self.isolated = await worker.start()
            self._check_open()
        except (TimeoutError, OSError, EOFError, ValueError):
            await self._give_back(worker, usable=False)
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the process that reads files does not start") from None
        except BaseException:
            await self._give_back(worker, usable=False)
            raise
        return worker

    async def _give_back(self, worker: WorkerProcess, usable: bool) -> None:
        self._busy.discard(worker)
        if usable and not self._closed and not worker.worn():
            self._idle.append(worker)
        else:
            await worker.end()

    def _check_open(self) -> None:
        if self._closed:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "reading files has been stopped")


def _opened(path: Path, media: str, limits: ParseLimits) -> int:
    """A descriptor of the file, checked for what it is and how long it is before anything is read."""
    file = -1
    try:
        # Not to wait, should it be a pipe.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Complaint.NOT_A_FILE.error()
        if found.st_size > (limits.stream_bytes if media in STREAMED else limits.file_bytes):
            raise Complaint.FILE_SIZE.error()
        if not agrees(media, os.pread(file, HEAD_BYTES, 0)):
            raise Complaint.WRONG_KIND.error()
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.close(file)
        if isinstance(error, OSError | ValueError):
            raise Complaint.NOT_A_FILE.error() from None
        raise
    return file
