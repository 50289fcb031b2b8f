"""The default vector store: Qdrant's own engine, embedded in this process, on files of its own.

What was found by trying (qdrant-edge-py 0.9.0), and what follows from it here:

- Every call keeps Python's interpreter lock until it returns: a search for a few milliseconds, optimizing
  for minutes, in which nothing else in the process would run. So writes go in small pieces, calls take
  turns at one lock (which costs nothing, they could not overlap anyway), and `optimize` works in a
  process of its own, on a copy, while searches and writes go on. What was written meanwhile is carried
  over before the copy takes the original's place.
- On damaged files it raises or panics; a panic arrives as a BaseException, and both become
  INDEX_UNAVAILABLE. Of some files (truncated ones, mostly) it drops points without a word: opening notices
  lost vectors, but whoever knows how many chunks there should be has to compare `count`.
- It accepts NaN, so everything is checked before it gets there (checks.py).
- Its log is written before it answers, so what was applied survives kill -9 even before `flush`, which
  adds that it survives a power cut.

No weight is changed on the store's side (no IDF): whoever asks brings it. Fields are indexed before the
first point, so that a filter is part of the search itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import qdrant_edge as edge

from mesh.core.errors import MeshError, Reason
from node.index import ties
from node.index.base import FILTER_FIELDS, Entry, Scored, Where
from node.index.checks import (
    admits_nothing,
    check_batch,
    check_depth,
    check_question,
    check_weights,
    check_where,
)
from node.index.shard_folder import ShardFolder, copy_version
from node.index.shard_process import ShardProcess

_DENSE, _TERMS, _GROUP = "dense", "terms", "group"
_AT_ONCE = 64  # points in one write: some milliseconds in which nothing else runs
# Edges per point, and candidates when building and when searching. On 100,000 vectors of 384 numbers, made
# from real ones, the top 10 overlapped with exact search by 0.997, by 0.99 or more with filters that admit
# 20 to 60 % of them; stricter ones are answered exactly.
_M, _EF_CONSTRUCT, _EF = 16, 128, 128
# One per segment that is searched; more than there are cores only wake each other.
_SEARCH_THREADS = min(4, os.cpu_count() or 1)
# Where a filter admits less than this share, a graph without the rest would fall apart: neighbours of
# neighbours are looked at too. Above it that costs three times as much and finds hardly more.
_SPARSE_BELOW = 0.1
_T = TypeVar("_T")

_OPTIMIZE = """
import qdrant_edge as edge
os.nice(10)
shard = edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""


class QdrantEdgeStore:
    """A VectorStore in a folder, which one store at a time can have open. Made by `open`."""

    def __init__(
        self, folder: ShardFolder, path: Path, shard: Any, dimensions: int, exact_below: int
    ) -> None:
        self._folder, self._path, self._shard = folder, path, shard
        self._dimensions, self._exact_below = dimensions, exact_below
        # Taken in this order: one optimization, one batch, one call to the shard.
        self._optimizing, self._writing, self._lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._count: int | None = None
        self._due = True  # something may have been written since it was last optimized
        self._changed: set[bytes] | None = None  # ids written while a copy is being optimized
        self._child: ShardProcess | None = None
        self._interrupted = False

    @classmethod
    def open(cls, folder: Path, dimensions: int, exact_below: int = 20_000) -> QdrantEdgeStore:
        """Opens what is in `folder`, or makes it.

        With fewer chunks than `exact_below` every search is exact. Raises INDEX_UNAVAILABLE if somebody
        else has it open, it cannot be read, or it holds vectors of another length.
        """
        owned = ShardFolder(folder)
        try:
            config = _config(dimensions, exact_below)
            path = owned.current()
            if path is None:
                path = owned.following(None)
                shard = _create(owned, path, config)
            else:
                shard = _load(path, config)
                _try(shard, dimensions)
            return cls(owned, path, shard, dimensions, exact_below)
        except BaseException:
            owned.release()
            raise

    @staticmethod
    def discard(folder: Path) -> None:
        """Removes all files, readable or not; INDEX_UNAVAILABLE if somebody has them open."""
        owned = ShardFolder(folder)
        try:
            owned.discard()
        finally:
            owned.release()

    def apply(self, upserts: Sequence[Entry], deletes: Sequence[bytes]) -> None:
        """Writes and removes. A batch that fails half-way with INDEX_UNAVAILABLE can be done again."""
        batch = check_batch(upserts, deletes, self._dimensions)
        with self._writing:
            self._note([*batch.deletes, *(entry.id for entry in batch.entries)])
            for start in range(0, len(batch.deletes), _AT_ONCE):
                gone: list[Any] = [UUID(bytes=each) for each in batch.deletes[start : start + _AT_ONCE]]
                self._write(edge.UpdateOperation.delete_points(gone))
            for start in range(0, len(batch.entries), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                pairs = zip(batch.entries[part], batch.vectors[part], strict=True)
                self._write(edge.UpdateOperation.upsert_points([_point(entry, row) for entry, row in pairs]))

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, *, exact: bool = False
    ) -> list[Scored]:
        """The nearest by cosine."""
        question: Any = check_question(vector, depth, where, self._dimensions)
        exact = exact or self.count() < self._exact_below
        return self._search(edge.Query.Nearest(question, using=_DENSE), depth, where, exact)

    def by_terms(self, weights: Mapping[int, float], depth: int, where: Where) -> list[Scored]:
        """The highest sums of weight x weight."""
        check_weights(weights)
        check_depth(depth)
        check_where(where)
        if not weights:
            return []
        query = edge.Query.Nearest(_sparse(weights), using=_TERMS)
        return [each for each in self._search(query, depth, where, True) if each.score > 0]

    def flush(self) -> None:
        """Returns once everything is on the disk."""
        self._call(lambda shard: shard.flush())

    def count(self) -> int:
        """How many chunks it holds."""
        known = self._count
        if known is not None:
            return known

        def ask(shard: Any) -> int:
            self._count = shard.count(edge.CountRequest(exact=True))
            return self._count or 0

        return self._call(ask)

    def optimize(self) -> None:
        """Builds what is due on a copy, in a process of its own at low priority, then takes it over.

        Needs as much disk again as the store has; a crash or failure leaves the store as it was. Returns
        early if the store is closed or cleared meanwhile.
        """
        with self._optimizing:
            with self._writing:
                if self._interrupted or not self._due:
                    return
                self.flush()
                source, target = self._path, self._folder.following(self._path)
                copy_version(source, target)
                self._changed, self._due = set(), False
                child = self._child = ShardProcess(_OPTIMIZE, target)
                if self._interrupted:
                    child.cancel()
            try:
                if child.wait():
                    with self._writing:
                        self._take_over(target)
            except BaseException:
                self._due = True
                raise
            finally:
                self._child = self._changed = None
                if self._path != target:
                    self._folder.remove(target)

    def clear(self) -> None:
        """Removes everything, files included."""
        self._interrupt()
        with self._optimizing, self._writing:
            self._call(lambda _: None)  # only of a store that is open
            following = self._folder.following(self._path)
            self._replace(
                _create(self._folder, following, _config(self._dimensions, self._exact_below)), following
            )
            self._interrupted = False

    def close(self) -> None:
        """Flushes and lets go of the files. Closing twice is closing once."""
        self._interrupt()
        with self._optimizing, self._writing:
            with self._lock:
                shard, self._shard = self._shard, None
            try:
                if shard is not None:
                    _guard(lambda: (shard.flush(), shard.close()))
            finally:
                self._folder.release()

    def _search(self, query: Any, depth: int, where: Where, exact: bool) -> list[Scored]:
        if depth == 0 or admits_nothing(where):
            return []
        condition = _filter(where)

        def look(limit: int, exact: bool) -> list[Scored]:
            params = edge.SearchParams(
                exact=exact,
                hnsw_ef=None if exact else max(_EF, 2 * limit),
                acorn=None if exact else edge.AcornSearchParams(enable=True, max_selectivity=_SPARSE_BELOW),
            )
            request = edge.QueryRequest(
                limit, query=query, filter=condition, params=params, with_payload=False, with_vector=False
            )
            return [Scored(each.id.bytes, each.score) for each in self._call(lambda s: s.query(request))]

        def ask(limit: int) -> list[Scored]:
            found = look(limit, exact)
            # A strict filter can leave a graph in pieces, with some out of reach; so can asking for all.
            return found if exact or len(found) == limit else look(limit, True)

        return ties.best(ask, depth)

    def _write(self, operation: Any) -> None:
        def write(shard: Any) -> None:
            self._count = None
            shard.update(operation)

        self._call(write)
        time.sleep(0)  # whoever waits to search has the interpreter and the lock first

    def _note(self, ids: list[bytes]) -> None:
        self._due = self._due or bool(ids)
        if self._changed is not None:
            self._changed.update(ids)

    def _take_over(self, path: Path) -> None:
        """Carries over what was written meanwhile, and puts the optimized version in place."""
        shard = _load(path, _config(self._dimensions, self._exact_below))
        try:
            changed = [UUID(bytes=each) for each in self._changed or ()]
            for start in range(0, len(changed), _AT_ONCE):
                part = changed[start : start + _AT_ONCE]
                records = self._call(partial(_read, part))
                points = [edge.Point(each.id, each.vector, each.payload) for each in records]
                gone: list[Any] = list({*part} - {each.id for each in records})
                _guard(partial(shard.update, edge.UpdateOperation.delete_points(gone)))
                _guard(partial(shard.update, edge.UpdateOperation.upsert_points(points)))
            _guard(shard.flush)
            self._folder.publish(path)
        except BaseException:
            _guard(shard.close)
            raise
        self._replace(shard, path)

    def _replace(self, shard: Any, path: Path) -> None:
        with self._lock:
            old, self._shard, self._count = self._shard, shard, None
            old_path, self._path = self._path, path
        with contextlib.suppress(MeshError):  # of no matter any more
            _guard(old.close)
        self._folder.remove(old_path)

    def _interrupt(self) -> None:
        """Ends an optimization that runs, and keeps others from starting."""
        self._interrupted = True
        if (child := self._child) is not None:
            child.cancel()

    def _call(self, call: Callable[[Any], _T]) -> _T:
        with self._lock:
            shard = self._shard
            if shard is None:
                raise MeshError(Reason.INDEX_UNAVAILABLE, "store: expected one that is open")
            return _guard(lambda: call(shard))


def _guard(call: Callable[[], _T]) -> _T:
    """What the engine answers; its errors and panics as INDEX_UNAVAILABLE, without their words (I1)."""
    try:
        return call()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
    raise _unusable()


def _unusable() -> MeshError:
    return MeshError(Reason.INDEX_UNAVAILABLE, "store: expected files that work; rebuild the index")


def _read(ids: list[Any], shard: Any) -> list[Any]:
    found: list[Any] = shard.retrieve(ids, with_payload=True, with_vector=True)
    return found


def _create(folder: ShardFolder, path: Path, config: Any) -> Any:
    shard = _guard(lambda: edge.EdgeShard.create(str(path), config))
    kinds = {name: edge.PayloadSchemaType.Keyword for name in sorted(FILTER_FIELDS)}
    for name, kind in {_GROUP: edge.PayloadSchemaType.Integer, **kinds}.items():
        operation = edge.UpdateOperation.create_field_index(name, kind)
        _guard(partial(shard.update, operation))
    _guard(shard.flush)
    folder.publish(path)
    return shard


def _load(path: Path, config: Any) -> Any:
    return _guard(lambda: edge.EdgeShard.load(str(path), config))


def _try(shard: Any, dimensions: int) -> None:
    """Touches what a search touches, so that damage shows when it is opened."""
    anything = edge.Filter(must_not=[edge.FieldCondition(_GROUP, match=edge.MatchAny([-1]))])
    params = edge.SearchParams(hnsw_ef=_EF)
    for query in (
        edge.Query.Nearest([1.0] * dimensions, using=_DENSE),
        edge.Query.Nearest(edge.SparseVector([0], [1.0]), using=_TERMS),
    ):
        request = edge.QueryRequest(limit=1, query=query, filter=anything, params=params)
        _guard(partial(shard.query, request))
    whole = edge.Filter(must=[edge.HasVectorCondition(_DENSE)])
    if _guard(lambda: shard.count(edge.CountRequest(filter=whole)) != shard.count(edge.CountRequest())):
        raise _unusable()


def _config(dimensions: int, exact_below: int) -> Any:
    """A segment gets a graph from half of `exact_below` on, since several are searched. A filter that
    admits fewer than `exact_below` chunks is answered by looking at those, like a store of that size."""
    kib = max(2, exact_below * dimensions * 4 // 1024)
    return edge.EdgeConfig(
        vectors={_DENSE: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors={_TERMS: edge.EdgeSparseVectorParams()},
        hnsw_config=edge.HnswIndexConfig(m=_M, ef_construct=_EF_CONSTRUCT, full_scan_threshold=kib),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=kib // 2, default_segment_number=1),
        max_search_threads=_SEARCH_THREADS,
    )


def _point(entry: Entry, vector: Any) -> Any:
    vectors = {_DENSE: vector}
    if entry.terms:
        vectors[_TERMS] = _sparse(entry.terms)
    payload = {_GROUP: entry.group, **{name: list(values) for name, values in entry.fields.items()}}
    return edge.Point(UUID(bytes=entry.id), vectors, payload)


def _sparse(weights: Mapping[int, float]) -> Any:
    return edge.SparseVector(list(weights), list(weights.values()))


def _filter(where: Where) -> Any:
    groups = edge.FieldCondition(_GROUP, match=edge.MatchAny(sorted(where.groups)))
    fields = [
        edge.FieldCondition(name, match=edge.MatchAny(sorted(values)))
        for name, values in where.fields.items()
    ]
    return edge.Filter(must=[groups, *fields])
