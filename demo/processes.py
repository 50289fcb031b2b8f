"""Starting and surely ending the processes of a demo mesh.

Every process is started in a session of its own and written to a ledger (pid and start time) before
anything else happens, so that whatever goes wrong, `end_all` finds exactly what was started and
nothing else. Unless the mesh is to be kept, the kernel also ends a process whose parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Started:
    """A process that we started, recognisable although pids are used again."""

    name: str
    pid: int
    born: float

    def find(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            process = psutil.Process(self.pid)
            alive = process.create_time() == self.born and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


def _started(entry: dict[str, object]) -> Started:
    return Started(str(entry["name"]), int(str(entry["pid"])), float(str(entry["born"])))


class Ledger:
    """What was started, on disk: survives the demo, so that a kept mesh can be ended later."""

    def __init__(self, path: Path, keep: bool = False) -> None:
        self.path = path
        self._keep = keep
        self._started: list[Started] = []
        self._handles: dict[str, subprocess.Popen[bytes]] = {}
        self._signalled: set[str] = set()
        self._descendants: dict[int, Started] = {}
        self._lock = threading.RLock()
        if path.exists():
            for entry in map(_started, json.loads(path.read_text())):
                if entry.name:
                    self._started.append(entry)
                else:
                    self._descendants[entry.pid] = entry

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entries = [*self._started, *self._descendants.values()]
        with self._lock:  # the memory gauge looks from a thread of its own
            scratch = self.path.with_suffix(".new")
            scratch.write_text(json.dumps([asdict(entry) for entry in entries]))
            scratch.replace(self.path)

    def spawn(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> Started:
        """Starts a process with its output in a file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._signalled.discard(name)

        def die_with_parent() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with log.open("ab") as output:
            handle = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=None if self._keep else die_with_parent,
            )
        self._handles[name] = handle
        return self.adopt(name, handle.pid)

    def adopt(self, name: str, pid: int) -> Started:
        """Takes a process that somebody else started into the ledger."""
        started = Started(name, pid, psutil.Process(pid).create_time())
        self._started = [s for s in self._started if s.name != name or s.find()] + [started]
        self._save()
        return started

    def dead(self) -> list[str]:
        """Names of processes that ended although nobody told them to."""
        return [
            name for name, handle in self._handles.items() if handle.poll() and name not in self._signalled
        ]

    def signal(self, name: str, number: int) -> None:
        """Signals the living process of this name, and only it."""
        self._signalled.add(name)
        for started in self._started:
            if started.name == name and (process := started.find()):
                process.send_signal(number)

    def wait_gone(self, name: str, timeout: float) -> bool:
        """Reaps; whether the process of this name is gone."""
        try:
            self._handles[name].wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def family(self) -> list[psutil.Process]:
        """Everything that was started and lives, with its children, also those that lost their parent."""
        family: dict[int, psutil.Process] = {}
        known = [*self._started, *self._descendants.values()]
        for started in known:
            if process := started.find():
                try:
                    for member in [process, *process.children(recursive=True)]:
                        family[member.pid] = member
                except psutil.NoSuchProcess:
                    continue
        named = {started.pid for started in self._started}
        seen = {}
        for pid, member in family.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                if pid not in named:
                    seen[pid] = Started("", pid, member.create_time())
        if seen != self._descendants:
            self._descendants = seen
            self._save()
        return list(family.values())

    def end_all(self, grace_s: float = 20.0) -> int:
        """Ends everything: politely, then surely. Returns how many had to be killed."""
        family = self.family()
        for started in reversed(self._started):
            if process := started.find():
                process.terminate()
        _, stubborn = psutil.wait_procs(family, timeout=grace_s)
        for process in stubborn:
            process.kill()
        psutil.wait_procs(stubborn, timeout=5)
        for handle in self._handles.values():
            handle.poll()
        self._started = []
        self._descendants = {}
        self.path.unlink(missing_ok=True)
        return len(stubborn)


class MemoryGauge:
    """Watches how much memory a family of processes uses, from the side.

    Proportional set size where the kernel tells it (shared pages count once), else resident size.
    """

    def __init__(self, family: Callable[[], list[psutil.Process]], every_s: float = 2.0) -> None:
        self._family = family
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-gauge", daemon=True)
        self.peak_bytes = 0

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, self.now())

    def now(self) -> int:
        """Bytes in use at this moment."""
        total = 0
        for process in self._family():
            try:
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total

    def __enter__(self) -> MemoryGauge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
