"""A short script in a Python of its own, for work that would stop or could crash this process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from mesh.core.errors import MeshError, Reason

# Prepended to every script: it ends with its parent, also when that is killed. sys.argv has the path
# that the script works on and the parent's process id, then the script's own arguments.
_PROLOGUE = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[2]):
    sys.exit(1)
"""


class ShardProcess:
    """Starts `script` on `path`. The thread that starts it has to wait for it: it ends with that thread."""

    def __init__(self, script: str, path: Path, *arguments: str) -> None:
        self._cancelled = threading.Event()
        command = [sys.executable, "-I", "-c", _PROLOGUE + script, str(path), str(os.getpid()), *arguments]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a constant script, and paths of our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a panic's message may repeat what is stored (I1)
                close_fds=True,
            )
        except OSError as error:
            raise _failed() from error

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for its end: True if it did its work, False if it was cancelled; else INDEX_UNAVAILABLE."""
        try:
            code = self._process.wait(timeout_s)
        except BaseException as error:
            self._process.kill()
            self._process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _failed() from None
            raise
        if self._cancelled.is_set():
            return False
        if code != 0:
            raise _failed()
        return True

    def cancel(self) -> None:
        """Ends it; from any thread."""
        self._cancelled.set()
        self._process.kill()


def _failed() -> MeshError:
    return MeshError(Reason.INDEX_UNAVAILABLE, "store: expected files that can be read; rebuild the index")
