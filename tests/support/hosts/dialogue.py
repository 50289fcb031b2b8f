"""Talking to a child process in lines of JSON over its standard input and output, with deadlines."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from typing import Any

END_S = 10.0


class Dialogue:
    """With a process whose pipes are unbuffered."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._read = b""

    def write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    def read(self, deadline_s: float) -> dict[str, Any]:
        """The next line. TimeoutError; EOFError if the process has ended."""
        assert self.process.stdout is not None
        until = time.monotonic() + deadline_s
        while b"\n" not in self._read:
            left = until - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, left))
            if not ready:
                raise TimeoutError(f"nothing said within {deadline_s:g} s")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise EOFError("the process has ended")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def no_more(self) -> None:
        """Ends its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, deadline_s: float) -> int:
        return self.process.wait(deadline_s)

    def kill(self) -> None:
        """Ends the process, if it lives, and the pipes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
