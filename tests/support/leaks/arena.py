"""The mesh that the leak test is about: three authorities, a node of each with documents, and clients.

    async with arena(tmp_path, seed) as it:
        await it.ask(...)
        assert not it.findings()

All of it is real but for the engine (parrot.py), the embedder and the board. It runs in one process; for
separate ones see processes.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.client import MeshClient
from mesh.core.errors import MeshError
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import DataClass, RequestContext
from mesh.sdk.placers import Server
from mesh.telemetry import logs
from node.config import BudgetSettings, RetrievalSettings
from node.index.documents import DocumentMeta
from node.index.durable import chunk_id
from node.index.embedding import ScriptedEmbedder
from node.index.index import DocumentIndex
from node.index.stored import NewChunk
from node.index.stores import StoreSettings
from node.retrieval.parts import RetrievalParts
from tests.support.leaks.judge import Finding, Judge
from tests.support.leaks.parrot import parrot
from tests.support.leaks.rules import COUNTRIES, PURPOSE, Asked, Rules, starting_rules
from tests.support.leaks.tap import Clockwork, Flow, tapped
from tests.support.leaks.world import COLLECTION, DIMENSIONS, TENANTS, Coiner, Document, make_documents
from tests.support.mesh import DEADLINE_S, Mesh, Node, mesh_of
from tests.support.scraping import page_of

NAMES = {"DE": "fra-1", "FR": "par-1", "US": "iad-1"}
EMBEDDER = ScriptedEmbedder(DIMENSIONS)
# Budgets are another test's subject.
_ROOMY = BudgetSettings(searches_per_minute=1_000_000, passages_per_day=1_000_000_000)


async def collection_spec() -> CollectionSpec:
    return CollectionSpec(COLLECTION, EMBEDDER.name, await EMBEDDER.digest(), DIMENSIONS)


async def fill(index: DocumentIndex, documents: list[Document]) -> None:
    """Puts a holder's documents into its index."""
    for document in documents:
        meta = DocumentMeta(
            id=document.id,
            title=document.title,
            source=document.source,
            owner=document.owner,
            tenant=document.tenant,
            classes=frozenset(DataClass(kind) for kind in document.classes),
        )
        vectors = await EMBEDDER.embed(document.texts)
        digest = "sha256:" + hashlib.sha256(document.id.encode()).hexdigest()
        chunks = [NewChunk(text, vector) for text, vector in zip(document.texts, vectors, strict=True)]
        index.put(meta, digest, chunks)


async def tell(judge: Judge, documents: list[Document], secret: bytes) -> None:
    """Tells the judge what a holder with this secret made of its documents."""
    for document in documents:
        for ordinal, vector in enumerate(await EMBEDDER.embed(document.texts)):
            judge.chunk(document, ordinal, chunk_id(secret, COLLECTION, document.id, ordinal), vector)


@dataclass
class Arena:
    """The running mesh, what was recorded, and who asks."""

    mesh: Mesh
    folder: Path
    documents: list[Document]
    judge: Judge
    epochs: list[dict[str, tuple[Rules, ...]]]
    log: io.StringIO
    random: random.Random
    coiner: Coiner
    flows: list[Flow] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    clients: dict[tuple[str, str], MeshClient] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    references: list[str] = field(default_factory=list)

    def of(self, country: str) -> list[Document]:
        return [document for document in self.documents if document.holder == country]

    @contextlib.asynccontextmanager
    async def changing(self, country: str, rules: Rules) -> AsyncIterator[None]:
        """Puts other rules in force for one authority; what goes over the wire meanwhile may rest on both."""
        before = dict(self.epochs[-1])
        self._enter({**before, country: (*before[country], rules)})
        await self.mesh[country].apply_policy(rules.cedar())
        await self.mesh.settled()
        self._enter({**before, country: (rules,)})
        yield

    def _enter(self, epoch: dict[str, tuple[Rules, ...]]) -> None:
        self.epochs.append(epoch)
        Clockwork.epoch = len(self.epochs) - 1

    async def question(self, country: str, tenant: str, classes: tuple[str, ...], purpose: str) -> str:
        """A question with a word that only it has; the judge knows whose it is."""
        word = self.coiner.word("mp")
        about = self.random.choice(self.documents).texts[0].split()
        start = self.random.randrange(max(1, len(about) - 8))
        # Fewer in a row than would count as taken from a document, and no canary.
        words = [each.strip(".,").lower() for each in about[start : start + 7]]
        known = {piece for doc in self.documents for c in doc.canaries for piece in (c.text,)}
        plain = [each for each in words if each.isalpha() and each not in known and not each.endswith("rk")]
        text = " ".join([*plain[:5], word])
        (vector,) = await EMBEDDER.embed([text], question=True)
        self.judge.question(word, Asked(country, tenant, purpose, classes), vector)
        return text

    async def attempt(self, what: str, act: Any) -> Any:
        """Does it; a refusal is an outcome like any other, but its text is looked at."""
        try:
            result = await act
        except MeshError as error:
            self.outcomes[f"{what} {error.reason.code}"] += 1
            self.errors.append(f"{error} {error.metadata}")
            return None
        self.outcomes[f"{what} ok"] += 1
        return result

    errors: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """Everything that should not have been there."""
        found = self.judge.flows(self.flows)
        found += self.judge.text("log", self.log.getvalue().encode())
        for node in self.mesh.nodes:
            found += self.judge.text("evidence", json.dumps(node.entries, default=str).encode())
        for node in self.mesh.nodes:
            found += self.judge.text("metrics", _shown_by(node))
        for text in self.errors:
            found += self.judge.text("error", text.encode())
        for path in files_outside_the_store(self.folder):
            found += self.judge.text(f"file {path.name}", path.read_bytes() + path.name.encode())
        return found


def _shown_by(node: Node) -> bytes:
    """What a scrape of the node would get."""
    telemetry = node.runtime.parts.telemetry
    assert telemetry is not None
    return page_of(telemetry.instruments.registry).text.encode()


def files_outside_the_store(folder: Path) -> Iterator[Path]:
    """Everything that is written but for the durable stores, which hold the documents by design."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "indexes" not in path.relative_to(folder).parts:
            yield path


def context(classes: tuple[str, ...], purpose: str = PURPOSE) -> RequestContext:
    return RequestContext.of(classes, purpose)


@contextlib.contextmanager
def _logged() -> Iterator[io.StringIO]:
    """What a daemon would write at its most talkative."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    handler = logs.configure("debug", "json", stream)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        for old in before:
            root.addHandler(old)
        root.setLevel(level)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """Temporary files where they are looked at afterwards."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.asynccontextmanager
async def arena(directory: Path, seed: int, hostile: tuple[str, ...] = ()) -> AsyncIterator[Arena]:
    """Ready to be asked."""
    Clockwork.epoch = 0
    rules = starting_rules()
    documents, folder = make_documents(seed), directory / "nodes"
    folder.mkdir()
    epochs: list[dict[str, tuple[Rules, ...]]] = [{country: (each,) for country, each in rules.items()}]
    flows: list[Flow] = []
    async with contextlib.AsyncExitStack() as stack:
        log = stack.enter_context(_logged())
        stack.enter_context(_temporary(folder / "tmp"))
        stack.enter_context(tapped(flows.append))
        policies = {country: each.cedar() for country, each in rules.items()}
        mesh = await stack.enter_async_context(mesh_of(directory, *COUNTRIES, policies=policies))
        judge = Judge(documents, epochs, DIMENSIONS, hostile)
        coiner = Coiner(seed + 1_000_000)
        it = Arena(mesh, folder, documents, judge, epochs, log, random.Random(seed), coiner, flows)
        spec = await collection_spec()
        for country, name in NAMES.items():
            await mesh[country].publish_collection(spec)
            settings = RetrievalSettings(
                store=StoreSettings(kind="memory"),
                answers="extract" if country == "FR" else "read",
                budgets=_ROOMY,
            )
            parts = RetrievalParts(folder / country, ScriptedEmbedder(DIMENSIONS), settings)
            node = it.nodes[country] = await mesh[country].node(name, retrieval=parts, telemetry=True)
            parrot(node.engine, seed)
        await mesh.settled()
        for country, node in it.nodes.items():
            assert node.runtime.retrieval is not None
            index = await node.runtime.retrieval.library.create(COLLECTION)
            await fill(index, it.of(country))
            await tell(judge, it.of(country), (folder / country / "indexes" / "secret").read_bytes())
        await _advertised(it)
        for country, node in it.nodes.items():
            for tenant in (*TENANTS, "cedar"):
                source = mesh[country].caller(f"{tenant}/desk").source
                client = MeshClient(source, [Server(node.id, node.endpoint)])
                it.clients[country, tenant] = await stack.enter_async_context(client)
        yield it


async def _advertised(it: Arena) -> None:
    """Waits until every node knows that the others hold the collection."""
    for node in it.nodes.values():
        await node.runtime.board.wait_for(
            lambda snapshot: all(
                other.id in snapshot.candidates and snapshot.candidates[other.id].record.collections
                for other in it.nodes.values()
            ),
            DEADLINE_S,
        )
