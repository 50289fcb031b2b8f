"""A collection in plain words, to hold document indexes against: everything is counted and ranked anew."""

from __future__ import annotations

import datetime
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mesh.core.retrieval import CollectionSpec, ReleaseGroup, ScoredId
from mesh.core.types import DataClass
from node.index.analysis import Analyzer
from node.index.base import Where
from node.index.documents import DocumentMeta
from node.index.durable import chunk_id
from node.index.index import DocumentIndex, NewChunk, NewDocument
from node.index.stores import StoreSettings

SECRET = bytes(range(32))
DIMENSIONS = 8
SPEC = CollectionSpec("papers", "scripted", "sha256:" + "0" * 64, DIMENSIONS, average_length=4.0)
TODAY = datetime.date(2026, 3, 1)
WORDS = ("ward", "bank", "loan", "nurse", "fever", "tax", "harbour", "court")
_ANALYZER = Analyzer(SPEC.analyzer)


@dataclass
class Day:
    """A clock that says it is noon of `date`."""

    date: datetime.date = TODAY

    def __call__(self) -> float:
        noon = datetime.time(12, tzinfo=datetime.UTC)
        return datetime.datetime.combine(self.date, noon).timestamp()


@dataclass
class Oracle:
    """The documents that are held, and what an index should say of them on a day."""

    documents: dict[str, NewDocument] = field(default_factory=dict)

    def put(self, *documents: NewDocument) -> None:
        for document in documents:
            self.documents[document.meta.id] = document

    def delete(self, *ids: str) -> int:
        return sum(self.documents.pop(each, None) is not None for each in ids)

    def purge(self, today: datetime.date) -> int:
        return self.delete(*[d.meta.id for d in self.documents.values() if not _kept(d.meta, today)])

    def chunks(self, today: datetime.date) -> dict[bytes, tuple[DocumentMeta, NewChunk]]:
        return {
            chunk_id(SECRET, SPEC.name, document.meta.id, ordinal): (document.meta, chunk)
            for document in self.documents.values()
            if _kept(document.meta, today)
            for ordinal, chunk in enumerate(document.chunks)
        }

    def admitted(
        self, today: datetime.date, groups: set[ReleaseGroup], where: Where
    ) -> dict[bytes, NewChunk]:
        return {
            each: chunk
            for each, (meta, chunk) in self.chunks(today).items()
            if group_of(meta) in groups
            and all(_said(meta, name) & set(v) for name, v in where.fields.items())
        }

    def statistics(
        self, today: datetime.date, terms: Sequence[str], groups: set[ReleaseGroup]
    ) -> tuple[int, tuple[int, ...]]:
        found = self.admitted(today, groups, Where(frozenset()))
        texts = [set(_ANALYZER.terms(chunk.text)) for chunk in found.values()]
        return len(texts), tuple(sum(term in text for text in texts) for term in terms)


def by_vector(chunks: dict[bytes, NewChunk], vector: Sequence[float], depth: int) -> tuple[ScoredId, ...]:
    """One chunk after the other."""
    question = unit(vector).astype(np.float64)
    scored = [
        ScoredId(each, float((unit(chunk.vector).astype(np.float64) * question).sum()))
        for each, chunk in chunks.items()
    ]
    return tuple(sorted(scored, key=lambda s: (-s.score, s.id))[:depth])


def by_terms(
    chunks: dict[bytes, NewChunk], terms: Sequence[str], weights: Sequence[float], depth: int
) -> tuple[ScoredId, ...]:
    """One chunk after the other, one term after the other."""
    scored = []
    for each, chunk in chunks.items():
        counts = Counter(_ANALYZER.terms(chunk.text))
        norm = SPEC.k1 * (1 - SPEC.b + SPEC.b * float(counts.total()) / SPEC.average_length)
        score = 0.0
        for term, weight in zip(terms, weights, strict=True):
            if counts[term]:
                score += weight * (counts[term] / (counts[term] + norm))
        if score > 0:
            scored.append(ScoredId(each, score))
    return tuple(sorted(scored, key=lambda s: (-s.score, s.id))[:depth])


def unit(vector: Sequence[float]) -> np.ndarray:
    wide = np.array(vector, np.float64)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def group_of(meta: DocumentMeta) -> ReleaseGroup:
    return ReleaseGroup(meta.tenant, meta.owner, meta.classes)


def a_document(rng: random.Random, each: str | None = None, most_chunks: int = 4) -> NewDocument:
    """Few words and few directions, so that scores tie."""
    meta = DocumentMeta(
        id=each or f"doc-{rng.randrange(12)}",
        title=rng.choice(("", "A title")),
        source=rng.choice(("", "a.txt", "b.txt")),
        classes=frozenset(rng.sample(list(DataClass), rng.choice((1, 1, 2)))),
        owner=rng.choice(("", "ward-1")),
        language=rng.choice(("", "de")),
        retain_until=rng.choice((None, None, TODAY + datetime.timedelta(days=rng.randrange(1, 6)))),
        tenant=rng.choice(("", "", "clinic")),
    )
    chunks = [
        NewChunk(
            " ".join(rng.choices(WORDS, k=rng.randrange(7))),
            [1.0, *(float(rng.randrange(2)) for _ in range(DIMENSIONS - 1))],
        )
        for _ in range(rng.randrange(most_chunks + 1))
    ]
    return NewDocument(meta, f"sha256:{rng.randrange(16**8):064x}", chunks, rng.choice(("", "a.txt")))


def check(index: DocumentIndex, oracle: Oracle, today: datetime.date, rng: random.Random) -> None:
    """Everything that the index says, against the oracle."""
    known = index.groups()
    held = oracle.chunks(today)
    assert set(known.values()) == {group_of(meta) for meta, _ in held.values()}
    listed = {d.meta.id: (d.meta, d.digest, d.chunks) for d in index.documents("", 1000)}
    assert list(listed) == sorted(listed)
    assert listed == {
        each: (d.meta, d.digest, len(d.chunks))
        for each, d in oracle.documents.items()
        if _kept(d.meta, today)
    }
    status = index.status()
    assert (status.documents, status.chunks) == (len(listed), len(held))
    every = frozenset(known)
    some = frozenset(rng.sample(sorted(every), rng.randrange(len(every) + 1)))
    stored = index.chunks([*held, bytes(16)], every)
    assert {each: (c.document, c.text) for each, c in stored.items()} == {
        each: (meta, chunk.text) for each, (meta, chunk) in held.items()
    }
    terms = sorted({_ANALYZER.terms(word)[0] for word in (*rng.sample(WORDS, 3), "nowhere")})
    weights = [rng.choice((0.5, 1.0, 2.0)) for _ in terms]
    vector = [float(rng.randrange(1, 3)) for _ in range(DIMENSIONS)]
    for groups in (every, some):
        named = {known[g] for g in groups}
        assert index.statistics(terms, groups) == oracle.statistics(today, terms, named)
        for fields in ({}, _some_filter(rng)):
            where = Where(groups, fields)
            chunks = oracle.admitted(today, named, where)
            for depth in (1, 3, 100):
                assert index.by_vector(vector, depth, where, exact=True) == by_vector(chunks, vector, depth)
                assert index.by_terms(terms, weights, depth, where) == by_terms(chunks, terms, weights, depth)


def _some_filter(rng: random.Random) -> dict[str, frozenset[str]]:
    choices: dict[str, tuple[str, ...]] = {
        "document": ("doc-1", "doc-2", "doc-3"),
        "source": ("a.txt", "none"),
        "language": ("de",),
        "owner": ("ward-1",),
        "class": ("personal", "public"),
    }
    return {name: frozenset(choices[name]) for name in rng.sample(sorted(choices), rng.choice((1, 2)))}


def _said(meta: DocumentMeta, name: str) -> set[str]:
    if name == "class":
        return {str(each) for each in meta.classes}
    said = {"document": meta.id, "source": meta.source, "language": meta.language, "owner": meta.owner}[name]
    return {said} - {""}


def _kept(meta: DocumentMeta, today: datetime.date) -> bool:
    return meta.retain_until is None or today < meta.retain_until


def made(folder: Path, kind: str = "memory", clock: Callable[[], float] | None = None) -> DocumentIndex:
    return DocumentIndex.create(folder, SPEC, SECRET, settings(kind), clock or Day())


def reopened(folder: Path, kind: str = "memory", clock: Callable[[], float] | None = None) -> DocumentIndex:
    return DocumentIndex.open(folder, SECRET, settings(kind), clock or Day())


def settings(kind: str) -> StoreSettings:
    return StoreSettings.model_validate({"kind": kind})


def until(says: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits for something that a thread of the index brings about."""
    deadline = time.monotonic() + seconds
    while not says():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
