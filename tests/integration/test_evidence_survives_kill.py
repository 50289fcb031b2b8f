"""kill -9 at every step of the log's way to the disk: what was acknowledged is there, in order, and what was
signed for holds (I7).

What was under way when the process died is wholly there or not at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.core.merkle import verify_consistency
from mesh.evidence.disk import STEPS
from mesh.identity.log_keys import LogKey
from tests.support.evidence import all_entries, journal_files, open_log, served
from tests.support.evidence_victim import entry

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TIMES = (1, 2, 5, 11)


class Victims:
    """Sends orders to evidence_victim.py."""

    def __init__(self, folder: Path) -> None:
        self.key = folder / "log.key"
        self.signer = LogKey.load_or_make(self.key)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.evidence_victim"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "", "PYTHONPATH": str(ROOT)},
        )

    def send(self, folder: Path, seed: int = 1, step: str = "", nth: int = 1) -> tuple[list[str], int]:
        """What the victim said, and its exit code (negative: the signal that killed it)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"folder": str(folder), "key": str(self.key), "seed": seed, "step": step, "nth": nth}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        said = []
        for line in self.process.stdout:
            if line.startswith("dead "):
                return said, int(line.split()[1])
            said.append(line.strip())
        raise AssertionError("the parent of the victims died")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    made = Victims(tmp_path_factory.mktemp("key"))
    yield made
    made.close()


async def check_after_death(folder: Path, said: list[str], signer: LogKey) -> None:
    acknowledged = max([int(line) for line in said if not line.startswith("signed")], default=0)
    signed = [line.split()[1:] for line in said if line.startswith("signed")]
    log: Any = open_log(folder, signer)
    try:
        held = await all_entries(log)
        assert len(held) >= acknowledged
        assert held == [entry(index) for index in range(len(held))]
        now = (await log.checkpoint()).checkpoint
        for size, root in signed:
            proof = await log.consistency(int(size), now.size)
            verify_consistency(int(size), now.size, bytes.fromhex(root), now.root, proof)
        # Life goes on, and ends in order this time.
        for index in range(len(held), len(held) + 3):
            assert await log.record(entry(index)) == index
    finally:
        await log.aclose()
    checkpoint, entries = served(folder, log.key)
    assert [json.loads(each) for each in entries] == [entry(index) for index in range(checkpoint.size)]
    assert checkpoint.size == len(held) + 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", [*(step for step in STEPS if not step.startswith("cut")), "half"])
async def test_killed_at(step: str, victims: Victims, tmp_path: Path) -> None:
    died = 0
    for nth in TIMES:
        folder = tmp_path / f"log-{nth}"
        said, code = victims.send(folder, nth, step, nth)
        died += code == -9
        assert code in (-9, 0)
        await check_after_death(folder, said, victims.signer)
    assert died, "no victim ever passed this step"


@pytest.mark.parametrize("step", [step for step in STEPS if step.startswith("cut")])
async def test_killed_while_a_torn_batch_is_cut_off(step: str, victims: Victims, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    said, code = victims.send(folder, 3, "half", 5)
    assert code == -9
    last = journal_files(folder)[-1]
    last.write_bytes(last.read_bytes() + b"\xff\xf5f\x01 torn")
    more, code = victims.send(folder, 3, step)
    assert (more, code) == ([], -9)
    await check_after_death(folder, said, victims.signer)


async def test_killed_again_and_again(victims: Victims, tmp_path: Path) -> None:
    folder, said = tmp_path / "log", []
    for life, step in enumerate(
        ("append:done", "seal:rename", "half", "checkpoint:rename", "drop:unlink"), 2
    ):
        more, code = victims.send(folder, life, step, life)
        assert code in (-9, 0)
        said += more
    await check_after_death(folder, said, victims.signer)
