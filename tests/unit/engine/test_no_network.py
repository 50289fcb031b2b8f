"""A process that isolated itself reaches itself and nobody else, as root and as anybody."""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 (loaded by a connection, when nobody may no longer read it)
import os
import socket

import pytest

from node.engine.no_network import isolate

pytestmark = pytest.mark.slow
_PR_SET_DUMPABLE = 4


@pytest.mark.parametrize("user", [0, 65534], ids=["root", "nobody"])
def test_nothing_but_loopback(user: int) -> None:
    if os.getuid() != user and os.getuid() != 0:
        pytest.skip("needs to be that user, or root")
    with socket.create_server(("127.0.0.1", 0)) as outside:
        child = os.fork()
        if child == 0:
            os._exit(_inside(user, outside.getsockname()[1]))
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 3:
        pytest.skip("this system permits no network namespaces")
    assert code == 0


def _inside(user: int, outside: int) -> int:
    try:
        if os.getuid() != user:
            os.setgid(user)
            os.setuid(user)
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)  # as a process that was that user from birth
        if not isolate():
            return 3
        with socket.create_server(("127.0.0.1", 0)) as own:
            socket.create_connection(own.getsockname(), 2).close()
        names = [name for _, name in socket.if_nameindex()]
        if names != ["lo"] or os.getuid() != user:
            return 4
        try:
            socket.create_connection(("127.0.0.1", outside), 2).close()
        except OSError:
            return 0
        return 5
    except BaseException:
        return 6
