"""The lab of many hosts itself: faults are what they say, captures miss nothing, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts.lab import ROOT, Lab, LabFailed, lab_of
from tests.support.hosts.packets import between, holding
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hosts_permitted")]

WORD = "Zwickelfaltenbeutel"
SERVER = """
import socket, sys
listening = socket.create_server((sys.argv[1], 80))
print('{"listening": true}', flush=True)
while True:
    call, _ = listening.accept()
    with call:
        call.sendall(call.recv(1000))
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), float(sys.argv[3])) as call:
    call.sendall(sys.argv[2].encode())
    assert call.recv(1000).decode() == sys.argv[2]
"""


@pytest.fixture(params=[pytest.param(None, id="as it is"), pytest.param(False, id="in a user namespace")])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with lab_of(tmp_path / "lab", "one", "two", "three", as_root=request.param) as lab:
        server = [sys.executable, "-S", "-c", SERVER, lab.addresses["two"]]
        lab.talk("two", server, tmp_path / "server.log").read(20)
        yield lab


def answered(lab: Lab, patience_s: float = 10.0, word: str = WORD) -> bool:
    """Whether "two" gives "one" its word back."""
    command = [sys.executable, "-S", "-c", CLIENT, lab.addresses["two"], word, str(patience_s)]
    return lab.start("one", command, lab.folder / "client.log").wait(30) == 0


def test_faults_take_one_direction_or_both_and_heal(lab: Lab):
    assert answered(lab)
    for source, destination in (("one", "two"), ("two", "one")):
        with lab.faults():
            lab.lose(source, destination)
            assert not answered(lab, 0.3)
            assert lab.lost() > 0
        assert answered(lab)
    with lab.faults():
        lab.lose("one", "three")
        lab.partition(["three"], ["two"])
        assert answered(lab)
        assert lab.lost() == 0
    with lab.faults():
        # TCP sends again what is lost: all of it comes through in the end.
        lab.lose("one", "two", one_in=4)
        assert any(answered(lab, 25.0) and lab.lost() for _ in range(50))
        assert answered(lab, 25.0)


def test_what_is_lost_on_the_way_is_in_the_capture(lab: Lab):
    with lab.capture("wire") as capture, lab.faults():
        lab.lose("two", "one")
        assert not answered(lab, 0.3)
        lab.heal()
        assert answered(lab)
    one, two, three = (lab.addresses[name] for name in ("one", "two", "three"))
    opened = [p for p in between(capture.packets, [one], [two]) if p.flags == "S"]
    # Sent, and silently lost: both tried to connect, and nobody was told off.
    assert len({p.source_port for p in opened}) == 2
    assert not [p for p in capture.packets if "R" in p.flags and p.source == two]
    assert {(flow[0], flow[2]) for flow in holding(capture.packets, WORD)} == {(one, two), (two, one)}
    assert not between(capture.packets, [three], [one, two])


def test_delay_or_the_reason_why_not(lab: Lab):
    with lab.faults():
        try:
            lab.delay(["one"], 200)
        except LabFailed as error:
            pytest.skip(str(error))
        assert not answered(lab, 0.1)
        assert answered(lab)
    assert answered(lab, 0.1)


LEFT_ALONE = """
import sys, time
from pathlib import Path
from tests.support.hosts.lab import lab_of
with lab_of(Path(sys.argv[1]), "one", "two") as lab:
    sleeper = lab.start("one", ["sleep", "1000"], Path(sys.argv[1]) / "sleep.log")
    with lab.capture("wire") as capture:
        print(lab._pid, sleeper.pid, capture._dialogue.process.pid, flush=True)
        time.sleep(1000)
"""


def test_kill_9_of_the_test_leaves_nothing(tmp_path: Path):
    command = [sys.executable, "-c", LEFT_ALONE, str(tmp_path / "lab")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as test:
        assert test.stdout is not None
        pids = [int(word) for word in test.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        test.send_signal(signal.SIGKILL)
        test.wait(10)
    asyncio.run(until(lambda: not [pid for pid in pids if alive(pid)]))


def alive(pid: int) -> bool:
    """Whether such a process runs, and is not only still in the table."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_lab_changes_nothing_of_the_machine(tmp_path: Path):
    def interfaces() -> set[str]:
        return set(os.listdir("/sys/class/net"))

    before = interfaces()
    with lab_of(tmp_path / "a", "one", "two") as first, lab_of(tmp_path / "b", "one", "two") as second:
        assert first.addresses == second.addresses
        assert interfaces() == before
        for lab in (first, second):
            command = [sys.executable, "-S", "-c", SERVER, lab.addresses["two"]]
            lab.talk("two", command, tmp_path / "server.log").read(20)
            assert answered(lab)
