"""One index in this process, searched without anything around it: what bench_retrieval.py compares with."""

from __future__ import annotations

import shutil
import time
from array import array
from pathlib import Path
from types import TracebackType

from bench.retrieval_data import EMBEDDER
from mesh.core.merging import Statistics, fuse, merge, weights_of
from mesh.core.retrieval import DEPTH
from mesh.core.types import SpiffeId
from node.engine.embedder import Embedder
from node.index.analysis import Analyzer
from node.index.base import Where
from node.index.index import DocumentIndex
from node.index.stores import StoreSettings

_HERE = SpiffeId("central.example", "/node/central")
_K = 10


class Central:
    """A copy of an index; a context manager. Safe from several threads."""

    def __init__(self, kept: Path, folder: Path, collection: str) -> None:
        shutil.copytree(kept, folder)
        secret = (folder / "indexes" / "secret").read_bytes()
        self._index = DocumentIndex.open(folder / "indexes" / collection, secret, StoreSettings(), time.time)
        self._analyzer = Analyzer(self._index.spec.analyzer)
        self._embedder = Embedder(EMBEDDER, 1)
        self._groups = frozenset(self._index.groups())

    def __enter__(self) -> Central:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.close()

    def search(self, query: str) -> list[bytes]:
        """Hybrid: the ids of the best 10."""
        index, where = self._index, Where(self._groups)
        (vector,) = self._embedder.embed([query])
        counts = self._analyzer.query_terms(query)
        terms = tuple(counts)
        weights = weights_of(terms, counts, [Statistics(*index.statistics(terms, self._groups))])
        by_vector = merge({_HERE: index.by_vector(array("f", vector), DEPTH, where)}, DEPTH)
        by_terms = merge({_HERE: index.by_terms(terms, weights, DEPTH, where)}, DEPTH)
        return [each.id for each in fuse(by_vector, by_terms)[:_K]]

    def timed(self, query: str) -> float:
        """Seconds for one search."""
        began = time.perf_counter()
        if len(self.search(query)) != _K:
            raise RuntimeError("expected 10 hits")
        return time.perf_counter() - began
