"""Finding all processes of a session, and ending them, however they hide."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from node.engine.process_family import Family, children_of

pytestmark = pytest.mark.slow

# A leader whose child is in another process group, ignores SIGTERM, has a child of its own, and is left
# behind by a parent that ends.
TREE = """
import os, signal, sys, time
if os.fork() == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        if os.fork() == 0:
            print("grown", flush=True)
            time.sleep(3600)
        os._exit(0)
    time.sleep(3600)
time.sleep(3600)
"""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"grown\n"
    yield process
    family = Family.of(process.pid)
    if family is not None:
        family.end()
    process.kill()
    process.wait()
    process.stdout.close()


def family_of(leader: subprocess.Popen[bytes]) -> Family:
    family = Family.of(leader.pid)
    assert family is not None
    return family


def test_finds_and_ends_everybody(leader: subprocess.Popen[bytes]) -> None:
    family = family_of(leader)
    assert len(family.members()) == 3
    assert leader.pid in family.members()
    assert family.leads()
    assert family.end() == []
    assert family.members() == []
    leader.wait()
    assert not family.leads()


def test_ends_them_after_their_leader(leader: subprocess.Popen[bytes]) -> None:
    family = family_of(leader)
    leader.kill()
    leader.wait()
    assert len(family.members()) == 2
    assert family.end() == []
    assert family.members() == []


def test_spares_whom_it_is_told_to(leader: subprocess.Popen[bytes]) -> None:
    family = family_of(leader)
    assert family.end(spare=(leader.pid,)) == []
    assert family.members() == [leader.pid]


def test_a_number_that_was_reused_is_not_ours(leader: subprocess.Popen[bytes]) -> None:
    stranger = Family(leader.pid, family_of(leader).born - 1)
    assert not stranger.leads()
    assert stranger.members() == []
    assert stranger.end() == []
    assert leader.poll() is None


def test_a_process_that_leads_no_session_has_no_family(leader: subprocess.Popen[bytes]) -> None:
    (child,) = children_of(leader.pid)
    assert Family.of(child) is None
    assert Family.of(2**22 + 1) is None


def test_gives_up_on_the_undying(leader: subprocess.Popen[bytes]) -> None:
    """A process that is stuck in the kernel cannot be killed: said, not waited for."""
    family, now = family_of(leader), [0.0]

    def pause(seconds: float) -> None:
        now[0] += 60

    family.end(deadline_s=30, clock=lambda: now[0], pause=pause)
    deadline = time.monotonic() + 5
    while family.members() and time.monotonic() < deadline:
        pass
    assert family.members() == []
