"""Makes the calling process one that can do little harm: a worker does it before it sees any file.

It gets no network of this machine's, bounded memory and open files, no way to write to any file or to
start a program with more rights, and it dies with the process that started it. Time is bounded per
document. It may still read what its user may read: nothing but its pipe takes what it says, and the pool
checks that. Linux.
"""

from __future__ import annotations

import ctypes
import os
import resource
import time

from node.engine.no_network import isolate
from node.engine.process_family import die_with_parent
from node.index.parsing.limits import ParseLimits

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def enter(limits: ParseLimits, parent: int) -> bool:
    """Gives up what no parser needs; returns whether it has no network (not every system permits that).

    Call it before any thread is started. Raises OSError.
    """
    isolated = isolate()
    die_with_parent()  # after isolating, which makes the kernel forget it
    if os.getppid() != parent:  # it is gone already
        os._exit(1)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # nobody reads a document out of its memory
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    return isolated


def arm_clock(cpu_s: int) -> None:
    """Gives the process so many more seconds of CPU from now on; then the kernel kills it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(time.process_time()) + cpu_s + 1
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
