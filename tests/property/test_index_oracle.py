"""Whatever is done to an index, it says what a count and a ranking of everything would say."""

from __future__ import annotations

import datetime
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.index.index import DocumentIndex
from tests.support.document_index import Day, Oracle, a_document, check, made, reopened, until

SEEDS = st.integers(0, 2**32)


class IndexMachine(RuleBasedStateMachine):
    """Puts, replacements, deletions, days that pass, rebuilding and reopening, in any order."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="index-"))
        self.day, self.oracle, self.rng = Day(), Oracle(), random.Random(0)
        self.index: DocumentIndex = made(self.folder / "papers", self.kind, self.day)

    @rule(seed=SEEDS)
    def put(self, seed: int) -> None:
        document = a_document(random.Random(seed))
        self.index.put(document.meta, document.digest, document.chunks, file=document.file)
        self.oracle.put(document)

    @rule(seed=SEEDS)
    def put_many(self, seed: int) -> None:
        rng = random.Random(seed)
        documents = [a_document(rng) for _ in range(rng.randrange(8))]
        self.index.put_many(documents)
        self.oracle.put(*documents)

    @rule(seed=SEEDS)
    def delete(self, seed: int) -> None:
        rng = random.Random(seed)
        ids = {f"doc-{rng.randrange(12)}" for _ in range(rng.randrange(1, 5))}
        assert self.index.delete(ids) == self.oracle.delete(*ids)

    @rule(days=st.integers(1, 2))
    def time_passes(self, days: int) -> None:
        self.day.date += datetime.timedelta(days=days)

    @rule()
    def purge(self) -> None:
        assert self.index.purge() == self.oracle.purge(self.day.date)

    @rule()
    def rebuild(self) -> None:
        self.index.rebuild()

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = reopened(self.folder / "papers", self.kind, self.day)
        if self.kind != "memory":
            assert self.index.status().state == "ready"

    @rule()
    def wait(self) -> None:
        until(lambda: self.index.status().state == "ready")

    @invariant()
    def agrees(self) -> None:
        check(self.index, self.oracle, self.day.date, self.rng)

    def teardown(self) -> None:
        try:
            self.index.close()
        finally:
            shutil.rmtree(self.folder)


class EdgeMachine(IndexMachine):
    """The same on the store that is used by default."""

    kind = "qdrant_edge"


_CHECKS = list(HealthCheck)
TestMemory = pytest.mark.slow(IndexMachine.TestCase)
TestMemory.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=_CHECKS, derandomize=True
)
TestEdge = pytest.mark.slow(EdgeMachine.TestCase)
TestEdge.settings = settings(
    max_examples=4, stateful_step_count=12, deadline=None, suppress_health_check=_CHECKS, derandomize=True
)
