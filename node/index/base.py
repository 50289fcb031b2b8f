"""The vector store port.

A store holds, for one collection, what is needed to find chunks: a vector, weighted terms and a few
fields, under the chunk's global id. It is derived: everything in it can be written again from the
node's durable store (node/index/durable.py), which is also where texts are. So a store may lose what
was not flushed, but it must never return what a filter excludes.

memory.py is the oracle; qdrant_edge.py (the default), qdrant_cluster.py and milvus.py are held to the
same contract suite, tests/contract/test_vector_store.py. Scores are the store's own float32; whoever
ranks computes them anew in float64 (node/index/ranking.py), so stores of different kinds rank alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.core.retrieval import FILTER_FIELDS, ID_BYTES

__all__ = ["FILTER_FIELDS", "ID_BYTES", "Entry", "Scored", "VectorStore", "Where"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store keeps of one chunk.

    `id` has 16 bytes; `vector` is of unit length; `terms` maps term numbers (0 to 2**32 - 1) to weights
    above 0; `group` is the release group (who may see it); `fields` has values for some of
    FILTER_FIELDS, one or several each.
    """

    id: bytes
    vector: Sequence[float]
    terms: Mapping[int, float]
    group: int
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Where:
    """What may be found: chunks of one of `groups` that have, for every field named, one of the values.

    No groups: nothing. It is applied inside the search, so that what is excluded takes nobody's place.
    """

    groups: frozenset[int]
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def admits(self, entry: Entry) -> bool:
        """The same in plain words; the oracle for every store."""
        return entry.group in self.groups and all(
            values.intersection(entry.fields.get(name, ())) for name, values in self.fields.items()
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """A chunk and the store's score for it: cosine, or the dot product of term weights."""

    id: bytes
    score: float


class VectorStore(Protocol):
    """One collection's index. Methods block: call them from a thread. Safe from several threads.

    Errors are MeshError: INDEX_UNAVAILABLE (cannot be reached or read; rebuild or try again),
    REQUEST_INVALID (a vector of the wrong length or not finite, a negative or unknown anything).
    """

    def apply(self, upserts: Sequence[Entry], deletes: Sequence[bytes]) -> None:
        """Writes and removes; doing it twice is doing it once. Visible to the next search."""
        ...

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, *, exact: bool = False
    ) -> list[Scored]:
        """The `depth` chunks nearest by cosine, best first. `exact` looks at every chunk, whatever the
        index."""
        ...

    def by_terms(self, weights: Mapping[int, float], depth: int, where: Where) -> list[Scored]:
        """The `depth` chunks with the highest sum of weight x weight, best first; only those above 0.
        Always exact."""
        ...

    def flush(self) -> None:
        """Returns once everything applied so far survives kill -9."""
        ...

    def count(self) -> int:
        """How many chunks it holds."""
        ...

    def optimize(self) -> None:
        """Does what is due to keep searching fast; may take minutes, searches go on meanwhile or wait."""
        ...

    def clear(self) -> None:
        """Removes everything."""
        ...

    def close(self) -> None:
        """Flushes and lets go of files and connections."""
        ...
