"""One worker process as the pool sees it: started, spoken to, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from node.index.parsing.frames import HEADER, body_length, decode
from node.index.parsing.limits import ParseLimits

_MODULE = "node.index.parsing.worker"
_CODE = str(Path(__file__).resolve().parents[3])
_WORN = 2  # replaced when it holds more than one part in so many of the memory that it may have


class WorkerProcess:
    """`at_rest`: it has finished its file and waits for the next."""

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._line: socket.socket | None = None
        self._files = 0
        self.at_rest = True

    @property
    def pid(self) -> int:
        """Its process id; 0 before it is started."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> bool:
        """Returns whether it has no network. Raises OSError, EOFError, ValueError or TimeoutError."""
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-B", "-P", "-m", _MODULE,
                str(os.getpid()), json.dumps(dataclasses.asdict(self._limits)),
                stdin=theirs.fileno(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
                cwd="/", env={"PYTHONPATH": _CODE, "LC_ALL": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()
        frame, _ = await self.frame(self._limits.start_s)
        match frame:
            case ["ready", bool(isolated)]:
                return isolated
            case _:
                raise ValueError("a worker says that it is ready")

    def begin(self, file: int, media: str) -> None:
        """Gives it a file to read. Raises OSError if it is gone."""
        self._files += 1
        self.at_rest = False
        os.lseek(file, 0, os.SEEK_SET)
        socket.send_fds(self._open_line(), [media.encode()], [file])

    async def frame(self, within_s: float) -> tuple[list[object], float]:
        """The next frame, and the seconds that it took.

        Raises TimeoutError, EOFError, OSError or ValueError.
        """
        begun = time.monotonic()
        async with asyncio.timeout(within_s):
            length = body_length(await self._exactly(HEADER.size))
            body = await self._exactly(length)
        return decode(body), time.monotonic() - begun

    def lives(self) -> bool:
        """Whether it waits for a file, having said nothing that it was not asked."""
        try:
            self._open_line().recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def worn(self) -> bool:
        """Whether it has read or grown enough."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                held = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return True
        return self._files >= self._limits.files_per_worker or held * _WORN > self._limits.memory_bytes

    async def kill(self) -> int:
        """Kills it and all that it started, and waits until it is gone; returns its exit status.

        Who listens to it hears the end.
        """
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        return await process.wait()

    async def end(self) -> None:
        """Kills it and hangs up, which only who listens to it may do. Safe to repeat."""
        await self.kill()
        if self._line is not None:
            self._line.close()
            self._line = None

    async def _exactly(self, length: int) -> bytearray:
        loop, line = asyncio.get_running_loop(), self._open_line()
        body, at = bytearray(length), 0
        view = memoryview(body)
        while at < length:
            received = await loop.sock_recv_into(line, view[at:])
            if received == 0:
                raise EOFError
            at += received
        return body

    def _open_line(self) -> socket.socket:
        if self._line is None:
            raise BrokenPipeError
        return self._line
