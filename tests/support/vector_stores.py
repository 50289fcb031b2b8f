"""Vector stores of every kind for tests, opened again on what they left, and entries to put into them."""

from __future__ import annotations

import importlib.util
import random
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from node.index.base import Entry, Scored, VectorStore, Where
from node.index.memory import MemoryStore

KINDS = ("memory", "qdrant_edge", "qdrant", "milvus")
_PACKAGES = {
    "qdrant_edge": ["qdrant_edge"],
    "qdrant": ["qdrant_client"],
    "milvus": ["pymilvus", "milvus_lite"],
}


def need(kind: str) -> None:
    """Skips the test if a package of this kind of store is not installed."""
    missing = [name for name in _PACKAGES.get(kind, []) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


class _InTurns:
    """qdrant-client's local mode breaks when two threads use it at once; the client of a server does not."""

    def __init__(self, client: object) -> None:
        self._client, self._lock = client, threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # local mode has no indexes, and says so
                return getattr(self._client, name)(*positional, **named)

        return call


class StoreFolder:
    """Where stores of one kind live during a test; closes what it opened."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self._opened: list[VectorStore] = []

    def open(self, dimensions: int = 4, exact_below: int = 20_000) -> VectorStore:
        """A store on what is there."""
        if self.kind == "memory":
            store: VectorStore = MemoryStore(dimensions)
        elif self.kind == "qdrant_edge":
            from node.index.qdrant_edge import QdrantEdgeStore

            store = QdrantEdgeStore.open(self.folder / "edge", dimensions, exact_below)
        elif self.kind == "qdrant":
            from qdrant_client import QdrantClient

            from node.index.qdrant_cluster import QdrantClusterStore

            client = QdrantClient(":memory:", force_disable_check_same_thread=True)
            store = QdrantClusterStore(cast(QdrantClient, _InTurns(client)), "papers", dimensions)
        else:
            from pymilvus import MilvusClient

            from node.index.milvus import MilvusStore

            self.folder.mkdir(parents=True, exist_ok=True)
            store = MilvusStore(MilvusClient(str(self.folder / "lite.db")), "papers-2024", dimensions)
        self._opened.append(store)
        return store

    def close(self) -> None:
        """Closes every store and removes the files."""
        for store in self._opened:
            store.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def number(index: int) -> bytes:
    """The id of the index-th entry of a test."""
    return index.to_bytes(16, "big")


def entry(index: int, vector: Iterable[float] = (1, 0, 0, 0), **changed: Any) -> Entry:
    """An entry with an id of its own."""
    values: dict[str, Any] = {"terms": {1: 1.0}, "group": 0, "fields": {}, **changed}
    return Entry(id=number(index), vector=tuple(vector), **values)


def entries(count: int, dimensions: int, seed: int = 0, groups: int = 3) -> list[Entry]:
    """Random entries: `groups` groups in turn, languages in turn, 2 to 6 of 40 terms."""
    draw = random.Random(seed)
    made = []
    for index in range(count):
        terms = {draw.randrange(40): draw.uniform(0.1, 3) for _ in range(draw.randint(2, 6))}
        made.append(
            entry(
                index,
                [draw.gauss(0, 1) for _ in range(dimensions)],
                terms=terms,
                group=index % groups,
                fields={
                    "language": (("de", "en", "fr", "is")[index % 4],),
                    "class": ("public", f"c{index % 7}"),
                },
            )
        )
    return made


def everyone(fields: Mapping[str, frozenset[str]] | None = None) -> Where:
    """Admits all groups that tests use."""
    return Where(frozenset(range(64)), fields or {})


def ids(found: Iterable[Scored]) -> list[bytes]:
    """Only the ids, in order."""
    return [each.id for each in found]


def assert_like(found: list[Scored], expected: Callable[[int], list[Scored]], depth: int) -> None:
    """The same as the oracle gives, but for the order of scores that float32 cannot tell apart."""
    close = 2e-5
    known = {each.id: each.score for each in expected(16_384)}
    best = expected(depth)
    assert len(found) == len(best)
    assert len(set(ids(found))) == len(found)
    for got, should in zip(found, best, strict=True):
        assert got.id in known, "excluded, or not there at all"
        assert got.score == pytest.approx(known[got.id], abs=close, rel=close)
        assert got.score == pytest.approx(should.score, abs=close, rel=close)
