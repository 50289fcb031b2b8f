"""A node's documents and the holder in front of them, real but for the embedder, the clock and the policies.

    with shelf(tmp_path) as here:
        here.put("d1", "The pump in ward 3 was replaced.", owner="clinic")
        here.rules.set(ReleaseLevel.SNIPPET)
        shard = await here.holder.open(here.question("pump"))

The index is a DocumentIndex with the store in memory. `Rules` stands in for the release policies: a test
says which level a release group has, and changes it while a search is under way. tests/integration uses
the real policies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec, Filters, ReleaseGroup, ReleaseLevel
from mesh.core.shards import ShardAnswerQuestion, ShardQuestion
from mesh.core.snapshot import Snapshot
from mesh.core.types import DataClass, RequestContext, SpiffeId
from mesh.telemetry.base import SILENT, EngineObserver
from node.engine.base import Engine
from node.index.analysis import Analyzer
from node.index.documents import DocumentMeta
from node.index.embedding import ScriptedEmbedder
from node.index.index import DocumentIndex
from node.index.stored import NewChunk
from node.index.stores import StoreSettings
from node.retrieval.budgets import BudgetLimits, Budgets
from node.retrieval.holder import Holder
from node.retrieval.redaction import Redactor, excerpt
from node.retrieval.responder import Responder
from node.retrieval.sight import Cutter, Sights

SECRET = bytes(range(32))
HOLDER = SpiffeId("de.mesh.example", "/node/fra-1")
REQUESTER = SpiffeId("fr.mesh.example", "/client/firm")
CONTEXT = RequestContext.of(["internal"], "care/triage")
DIMENSIONS = 32
NOON = 20_000 * 86_400 + 43_200.0


SPEC = CollectionSpec(
    "notes",
    "scripted",
    "sha256:" + hashlib.sha256(f"scripted/{DIMENSIONS}".encode()).hexdigest(),  # ScriptedEmbedder's
    DIMENSIONS,
)


@dataclass
class Rules:
    """The level of each group: `chosen` by owner, else `level`. Counts how often it was asked."""

    level: ReleaseLevel = ReleaseLevel.PASSAGE
    chosen: dict[str, ReleaseLevel] = field(default_factory=dict)
    asked: int = 0
    at_question: Callable[[int], None] = lambda _: None

    def set(self, level: ReleaseLevel, **by_owner: ReleaseLevel) -> None:
        self.level, self.chosen = level, dict(by_owner)

    def levels(
        self,
        snapshot: Snapshot,
        node: SpiffeId,
        principal: Any,
        context: RequestContext,
        collection: str,
        groups: Mapping[int, ReleaseGroup],
        now: float,
    ) -> dict[int, ReleaseLevel]:
        self.asked += 1
        self.at_question(self.asked)
        return {number: self.chosen.get(group.owner, self.level) for number, group in groups.items()}


class NoView:
    """A view for rules that do not look at records."""

    snapshot = Snapshot(0, HOLDER.trust_domain)


@dataclass
class Shelf:
    """One node's index with its holder; `budgets` and `rules` as the test wants them."""

    index: DocumentIndex
    holder: Holder
    budgets: Budgets
    rules: Rules
    embedder: ScriptedEmbedder
    clock: Clock

    def put(self, id: str, *texts: str, classes: Iterable[str] = ("internal",), **meta: Any) -> None:
        """A document with one chunk for each text."""
        document = DocumentMeta(id=id, classes=frozenset(DataClass(c) for c in classes), **meta)
        chunks = [NewChunk(text, vector_of(text)) for text in texts]
        digest = "sha256:" + hashlib.sha256("\n".join(texts).encode()).hexdigest()
        self.index.put(document, digest, chunks)

    def question(self, text: str, **changes: Any) -> ShardQuestion:
        """A hybrid question, on behalf of REQUESTER unless told otherwise."""
        terms = tuple(Analyzer("english-1").query_terms(text))
        question = ShardQuestion(
            REQUESTER, CONTEXT, SPEC.name, SPEC.digest, vector_of(text), terms, Filters(), 100
        )
        return replace(question, **changes)

    def to_answer(self, text: str, **changes: Any) -> ShardAnswerQuestion:
        question = ShardAnswerQuestion(REQUESTER, CONTEXT, SPEC.name, SPEC.digest, text, Filters())
        return replace(question, **changes)


@dataclass
class Clock:
    """Unix seconds; a test moves it."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


class OneIndex:
    """The library of a node with one collection."""

    def __init__(self, index: DocumentIndex) -> None:
        self._index = index

    def get(self, name: str) -> DocumentIndex:
        if name != self._index.spec.name:
            raise MeshError(Reason.COLLECTION_UNKNOWN, "this node holds no such collection")
        return self._index


def vector_of(text: str) -> tuple[float, ...]:
    """As ScriptedEmbedder gives it."""
    return tuple(ScriptedEmbedder(DIMENSIONS)._vector(text))


def make_holder(
    index: DocumentIndex,
    sights: Sights,
    budgets: Budgets,
    *,
    node: SpiffeId = HOLDER,
    engine: Engine | None = None,
    threshold: int = 0,
    observer: EngineObserver = SILENT,
) -> Holder:
    """A holder of one collection, with the real redaction."""
    cutter = Cutter(Redactor().redact, excerpt)
    embedder = ScriptedEmbedder(DIMENSIONS)
    responder = Responder(
        node, embedder=embedder, engine=engine, budgets=budgets, cutter=cutter, observer=observer
    )
    return Holder(
        OneIndex(index),
        sights=sights,
        budgets=budgets,
        cutter=cutter,
        responder=responder,
        threshold=threshold,
    )


@contextmanager
def shelf(
    directory: Path,
    *,
    limits: BudgetLimits | None = None,
    engine: Engine | None = None,
    threshold: int = 0,
    spec: CollectionSpec = SPEC,
    observer: EngineObserver = SILENT,
) -> Iterator[Shelf]:
    """An empty index and its holder at HOLDER."""
    clock, rules = Clock(), Rules()
    index = DocumentIndex.create(directory / "index", spec, SECRET, StoreSettings(kind="memory"), clock)
    budgets = Budgets(directory / "budgets.db", limits or BudgetLimits(), HOLDER.trust_domain, clock)
    sights = Sights(rules, NoView(), HOLDER, clock, clock)  # type: ignore[arg-type]
    holder = make_holder(index, sights, budgets, engine=engine, threshold=threshold, observer=observer)
    try:
        yield Shelf(index, holder, budgets, rules, ScriptedEmbedder(DIMENSIONS), clock)
    finally:
        holder.close()
        budgets.close()
        index.close()
