"""Free ports on loopback, for processes that are told their port before they start (demo and tests).

A port that the kernel picks is one that it soon gives to any outgoing connection, also while a server that
has it is restarting. So ports are drawn from below the kernel's range, and each is reserved: by an abstract
Unix socket (Linux), whose name every process of this machine sees and which is gone with whoever holds it.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections import deque
from pathlib import Path

from mesh.core.errors import MeshError, Reason

_LOWEST = 10_240
_TRIES = 10_000
# The latest that this process drew: enough for all servers that one test or demo has at a time.
_KEPT = 128
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_draw = random.SystemRandom()
_reserved: deque[socket.socket] = deque()


def free_ports(count: int) -> list[int]:
    """So many, which nothing listens on and which no other call gets while this process lives and does not
    draw 128 more. INTERNAL if there are none."""
    ports: list[int] = []
    for _ in range(_TRIES):
        if len(ports) == count:
            break
        port = _draw.randrange(_LOWEST, _highest())
        if (reservation := _reserve(port)) is None:
            continue
        _reserved.append(reservation)
        if _is_free(port):
            ports.append(port)
        while len(_reserved) > _KEPT:
            _reserved.popleft().close()
    else:
        raise MeshError(Reason.INTERNAL, "no port is free on loopback")
    return ports


def _highest() -> int:
    """Where the kernel's own begin, if that leaves room."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lowest = int(_RANGE.read_text().split()[0])
        if lowest >= _LOWEST + 1_000:
            return lowest
    return 65_536


def _reserve(port: int) -> socket.socket | None:
    """None if somebody else has reserved it."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0sovereign-mesh-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection that has ended is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
