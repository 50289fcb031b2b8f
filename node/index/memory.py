"""The vector store that looks at everything: the oracle for the others, and the one for tests.

Vectors are float32 as in every store, the maths is float64, and ties go by id. Nothing outlives the
process, so there is nothing to flush. Fine up to some ten thousand chunks; beyond that it is slow.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from node.index.base import Entry, Scored, Where
from node.index.checks import check_batch, check_depth, check_question, check_weights, check_where

_ROWS_AT_ONCE = 8192  # bounds the memory that a search takes, not what it finds


class MemoryStore:
    """A VectorStore in plain words. `dimensions` is the length of every vector."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._lock = threading.Lock()
        self._entries: dict[bytes, Entry] = {}
        self._vectors: dict[bytes, NDArray[np.float32]] = {}

    def apply(self, upserts: Sequence[Entry], deletes: Sequence[bytes]) -> None:
        """Writes and removes; REQUEST_INVALID changes nothing."""
        batch = check_batch(upserts, deletes, self._dimensions)
        with self._lock:
            for each in batch.deletes:
                self._entries.pop(each, None)
                self._vectors.pop(each, None)
            for entry, vector in zip(batch.entries, batch.vectors, strict=True):
                self._entries[entry.id] = entry
                self._vectors[entry.id] = vector

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, *, exact: bool = False
    ) -> list[Scored]:
        """The nearest by cosine; always exact."""
        question = check_question(vector, depth, where, self._dimensions).astype(np.float64)
        question /= np.linalg.norm(question)
        with self._lock:
            admitted = [each for each, entry in self._entries.items() if where.admits(entry)]
            found = [(each, self._vectors[each]) for each in admitted]
        scored: list[Scored] = []
        for start in range(0, len(found), _ROWS_AT_ONCE):
            part = found[start : start + _ROWS_AT_ONCE]
            rows = np.array([row for _, row in part], np.float64)
            # Not a matrix product: BLAS may sum equal rows in different orders, and a tie would be none.
            cosines = (rows * question).sum(axis=1) / np.sqrt((rows * rows).sum(axis=1))
            scored += [Scored(each, float(cosine)) for (each, _), cosine in zip(part, cosines, strict=True)]
        return _best(scored, depth)

    def by_terms(self, weights: Mapping[int, float], depth: int, where: Where) -> list[Scored]:
        """The highest sums of weight x weight, each sum rounded once."""
        check_weights(weights)
        check_depth(depth)
        check_where(where)
        with self._lock:
            entries = [entry for entry in self._entries.values() if where.admits(entry)]
        scored: list[Scored] = []
        for entry in entries:
            if shared := weights.keys() & entry.terms.keys():
                score = math.fsum(weights[term] * entry.terms[term] for term in shared)
                scored.append(Scored(entry.id, score))
        return _best(scored, depth)

    def flush(self) -> None:
        """Nothing survives kill -9 here."""

    def count(self) -> int:
        """How many chunks it holds."""
        return len(self._entries)

    def optimize(self) -> None:
        """Nothing to do."""

    def clear(self) -> None:
        """Removes everything."""
        with self._lock:
            self._entries.clear()
            self._vectors.clear()

    def close(self) -> None:
        """Nothing to let go of."""


def _best(scored: list[Scored], depth: int) -> list[Scored]:
    return sorted(scored, key=lambda each: (-each.score, each.id))[:depth]
