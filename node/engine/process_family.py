"""All processes of one engine: finding them, and ending them surely.

An engine is a dozen processes, several of which start others, change their process group, rename
themselves and lose their parents when something is killed. What none of them changes is the Unix
session they were born into: its number is the process id of the engine's host, which began it. The
kernel does not give that number to a new process while any process of the session lives, so "every
process of the session" is exact, without a race. It is written down with the host's start time, so
that a number that was reused later is never taken for ours.

Linux only: reads /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Family:
    """The session that process `leader`, started `born` clock ticks after boot, began."""

    leader: int
    born: int

    @classmethod
    def of(cls, leader: int) -> Family | None:
        """The family of a process that leads its session; None if there is no such process."""
        stat = _stat(leader)
        return None if stat is None or stat.session != leader else cls(leader, stat.born)

    def leads(self) -> bool:
        """Whether the leader itself lives."""
        stat = _stat(self.leader)
        return stat is not None and stat.born == self.born and not stat.dead

    def members(self) -> list[int]:
        """Process ids of all that live, the leader among them. Zombies do not count."""
        leader = _stat(self.leader)
        if leader is not None and leader.born != self.born:
            return []  # somebody else's session by now
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                stat = _stat(int(name))
                if stat is not None and stat.session == self.leader and not stat.dead:
                    found.append(int(name))
        return found

    def end(
        self,
        *,
        spare: Collection[int] = (),
        deadline_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> list[int]:
        """Kills all members but those to `spare`; returns those that would not die in time (usually none).

        Repeats until a look finds none: one that was being born during the last look has the session
        of its parent and is found by the next.
        """
        end = clock() + deadline_s
        while True:
            living = [pid for pid in self.members() if pid not in spare]
            if not living or clock() > end:
                return living
            for pid in living:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            pause(0.01)


def start_guard(family: Family, leftovers: Path) -> int:
    """Forks a process that ends the family when the caller, its leader, is gone; returns its id.

    It then removes the folder `leftovers`.

    It hangs on a pipe whose other end only the caller holds. Call it before threads are started.
    """
    held, end = os.pipe()
    guard = os.fork()
    if guard != 0:
        os.close(held)
        return guard
    try:
        os.close(end)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(held, 1)
        family.end(spare=(os.getpid(),))
        shutil.rmtree(leftovers, ignore_errors=True)
    finally:
        os._exit(0)


@dataclass(frozen=True, slots=True)
class _Stat:
    session: int
    born: int
    dead: bool


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            text = file.read()
    except OSError:
        return None
    # The name, in parentheses, may hold anything: what counts begins after the last one.
    values = text[text.rindex(")") + 2 :].split()
    return _Stat(session=int(values[3]), born=int(values[19]), dead=values[0] in "ZX")


def children_of(pid: int) -> list[int]:
    """Process ids of the direct children that live."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
            found += [int(child) for child in file.read().split()]
    return [child for child in found if (stat := _stat(child)) is not None and not stat.dead]


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants that lose theirs, instead of init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
