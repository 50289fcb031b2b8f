"""Ports for servers that tests and the demo start: nobody else gets them in between."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mesh import ports


def test_they_are_free_and_none_is_drawn_twice() -> None:
    drawn = ports.free_ports(100)
    assert len(set(drawn)) == 100
    for port in drawn[:10]:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_they_are_not_the_kernels_own() -> None:
    """Else an outgoing connection takes one while its server restarts."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < 11_240:
        pytest.skip("the kernel leaves no range of their own")
    assert max(ports.free_ports(50)) < lowest


def test_another_process_does_not_get_them() -> None:
    (port,) = ports.free_ports(1)
    code = f"from mesh import ports; print(ports._reserve({port}) is None)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True"


def test_what_somebody_listens_on_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, other = ports.free_ports(2)
    for reservation in list(ports._reserved):
        reservation.close()
    ports._reserved.clear()
    draws = iter([taken, other])
    monkeypatch.setattr(ports._draw, "randrange", lambda *_: next(draws))
    with socket.socket() as server:
        server.bind(("127.0.0.1", taken))
        server.listen()
        assert ports.free_ports(1) == [other]


def test_reservations_do_not_pile_up() -> None:
    for _ in range(5):
        ports.free_ports(100)
    assert len(ports._reserved) == ports._KEPT
