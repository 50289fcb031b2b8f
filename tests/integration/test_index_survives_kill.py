"""kill -9 at every step of every change: nothing acknowledged is lost, and the two stores agree.

A piece of work that was under way when the process died is either wholly there or not at all.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.index.index import STEPS, DocumentIndex
from tests.support.document_index import TODAY, Oracle, check, reopened, until
from tests.support.index_victim import PIECES, work

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


class Victims:
    """Sends orders to index_victim.py."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.index_victim"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"OPENBLAS_NUM_THREADS": "1", "PATH": "", "PYTHONPATH": str(ROOT)},
        )

    def send(self, folder: Path, **order: object) -> tuple[list[str], int]:
        """What the victim said, and its exit code (negative: the signal that killed it)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"kind": "qdrant_edge", "step": "", "nth": 1, "file_limit": 0, **order}
        print(json.dumps({"folder": str(folder), **order}), file=self.process.stdin, flush=True)
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
def victims() -> Iterator[Victims]:
    made = Victims()
    yield made
    made.close()


def oracle_after(seed: int, pieces: int) -> Oracle:
    oracle = Oracle()
    for piece in work(seed)[:pieces]:
        piece(oracle)
    return oracle


def digests(index: DocumentIndex) -> dict[str, str]:
    return {document.meta.id: document.digest for document in index.documents("", 1000)}


def check_after_death(folder: Path, seed: int, acknowledged: int, kind: str = "qdrant_edge") -> None:
    """The reopened index is the oracle after what was acknowledged, or one piece more."""
    index = reopened(folder, kind)
    try:
        before, after = oracle_after(seed, acknowledged), oracle_after(seed, acknowledged + 1)
        held = digests(index)
        choices = [o for o in (before, after) if held == {d.meta.id: d.digest for d in o.documents.values()}]
        assert choices, "what was acknowledged is not what is there"
        if kind == "qdrant_edge":
            assert index.status().state == "ready"
        for seed_of_check in range(3):
            check(index, choices[0], TODAY, random.Random(seed_of_check))
        # Life goes on, and ends in order this time.
        for piece in work(seed)[acknowledged:]:
            piece(index)
        check(index, oracle_after(seed, PIECES), TODAY, random.Random(9))
        until(lambda: index.status().state == "ready")
        check(index, oracle_after(seed, PIECES), TODAY, random.Random(9))
    finally:
        index.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", STEPS)
def test_killed_at(step: str, victims: Victims, tmp_path: Path) -> None:
    died = 0
    # Making the index passes the steps of rebuilding for the first time.
    for seed, kind, nth in ((1, "memory", 1), (2, "memory", 2), (3, "memory", 3), (3, "qdrant_edge", 2)):
        folder = tmp_path / f"papers-{seed}-{kind}"
        said, code = victims.send(folder, seed=seed, kind=kind, step=step, nth=nth)
        if DocumentIndex.unfinished(folder):
            assert not said  # nobody was told that there is an index
            continue
        died += code == -9
        assert code in (-9, 0)
        check_after_death(folder, seed, int(said[-1]) if said else 0, kind)
    assert died, "no victim ever passed this step"


def test_killed_without_a_vector_store_that_lasts(victims: Victims, tmp_path: Path) -> None:
    """The memory store is empty after a restart: searches are right at once, from the durable store."""
    said, code = victims.send(tmp_path / "papers", seed=4, kind="memory", step="put:committed", nth=5)
    assert code == -9
    check_after_death(tmp_path / "papers", 4, int(said[-1]), "memory")


@pytest.mark.parametrize("damage", ["gone", "empty", "truncated", "garbage", "older"])
def test_a_damaged_vector_store_is_made_anew(damage: str, victims: Victims, tmp_path: Path) -> None:
    folder, seed = tmp_path / "papers", 5
    said, code = victims.send(folder, seed=seed)
    assert code == 0
    assert int(said[-1]) == PIECES
    (store,) = folder.glob("store-*")
    rng = random.Random(damage)
    for file in sorted(store.rglob("*")):
        if damage == "gone" and file.is_file():
            file.unlink()
        elif file.is_file() and file.stat().st_size and damage != "older":
            size = file.stat().st_size
            if damage == "empty":
                file.write_bytes(b"")
            elif damage == "truncated":
                file.write_bytes(file.read_bytes()[: size // 2])
            else:
                file.write_bytes(rng.randbytes(size))
    if damage == "older":  # as if another machine's backup had been put there
        other = tmp_path / "other"
        victims.send(other, seed=6)
        (theirs,) = other.glob("store-*")
        for file in sorted(store.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        store.rmdir()
        theirs.rename(store)
    index = reopened(folder, "qdrant_edge")
    try:
        oracle = oracle_after(seed, PIECES)
        check(index, oracle, TODAY, random.Random(1))  # right from the first answer on
        until(lambda: index.status().state == "ready")
        check(index, oracle, TODAY, random.Random(2))
    finally:
        index.close()


@pytest.mark.parametrize("limit", [300_000, 150_000, 60_000])
def test_a_full_disk_loses_nothing_acknowledged(limit: int, victims: Victims, tmp_path: Path) -> None:
    """Writing fails with INDEX_UNAVAILABLE; when there is room again, what was acknowledged is there."""
    folder, seed = tmp_path / "papers", 7
    said, code = victims.send(folder, seed=seed, file_limit=limit)
    assert code == 0
    failed = {-int(line.split()[0]) for line in said if line.startswith("-")}
    assert {line.split()[1] for line in said if line.startswith("-")} <= {"INDEX_UNAVAILABLE"}
    oracle = Oracle()
    for number, piece in enumerate(work(seed), 1):
        if number not in failed:
            piece(oracle)
    index = reopened(folder, "qdrant_edge")
    try:
        check(index, oracle, TODAY, random.Random(1))
        until(lambda: index.status().state == "ready")
        check(index, oracle, TODAY, random.Random(2))
    finally:
        index.close()
