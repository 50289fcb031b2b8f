"""Linux network namespaces of one thread: making them, holding them by descriptor, going in and out.

The standard library has setns and unshare from Python 3.12 on; until then the two calls of libc. A namespace
lives as long as a process in it or a descriptor of it, so nothing has to be named or removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def current() -> int:
    """A descriptor of the network namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(descriptor: int) -> None:
    """Moves this thread there. Sockets that it has stay where they were made."""
    _checked(_libc.setns(descriptor, CLONE_NEWNET))


@contextlib.contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """In another namespace for the length of a block."""
    home = current()
    try:
        enter(descriptor)
        yield
    finally:
        enter(home)
        os.close(home)


def new_network() -> int:
    """A descriptor of a new, empty network namespace; this thread stays where it was."""
    home = current()
    try:
        _checked(_libc.unshare(CLONE_NEWNET))
        return current()
    finally:
        enter(home)
        os.close(home)


def without_ipv6() -> None:
    """No IPv6 in this thread's namespace: its router solicitations would stand in every capture."""
    settings = Path("/proc/sys/net/ipv6/conf")
    for name in ("all", "default"):
        if (settings / name).exists():  # a kernel may have none
            (settings / name / "disable_ipv6").write_text("1")


def die_with_parent(signal: int) -> None:
    """Asks the kernel to send this process the signal when its parent ends, however it ends."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, signal))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
