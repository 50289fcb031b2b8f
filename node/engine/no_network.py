"""Puts the calling process, and all it will start, into a network where there is only itself.

Ray listens on every interface and vLLM, its plugins and whatever a model's own code does could call
out. Neither needs a network on one machine: the gateway speaks to replicas over Unix sockets, which
are files. So an engine gets a network namespace with nothing but a loopback of its own: nobody can
reach Ray, and no byte of a prompt can leave (I1), whatever any library tries.

Linux; needs either root or unprivileged user namespaces. Where the system permits neither (some
container sandboxes), `isolate` says so and the caller goes on without.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40


def isolate() -> bool:
    """Moves this process into a network of its own; False if the system does not permit it.

    Call it before any thread is started: the kernel moves only the calling thread. A child tries
    first, because some systems permit the first step and refuse the next, with no way back.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _isolate()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        return False
    _isolate()
    return True


def _isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        _unshare_as_user(libc)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def _unshare_as_user(libc: ctypes.CDLL) -> None:
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    # The same user inside as outside, so that files and signals go on as before.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
