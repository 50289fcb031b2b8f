"""A mesh whose nodes hold documents: three authorities, real TLS, real policies, scripted embeddings.

async with federation_of(tmp_path, {"DE": {"a": "text"}, "FR": {...}}, policies) as there:
    result = await collect_search(there.client.search("pump", "notes", context=INTERNAL))
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh import codec
from mesh.client import MeshClient
from mesh.core.records import RecordType
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import DataClass, RequestContext, SpiffeId
from mesh.sdk.placers import Server
from mesh.telemetry.tracing import NO_TRACING, Tracing
from node.config import RetrievalSettings
from node.index.documents import DocumentMeta
from node.index.embedding import ScriptedEmbedder
from node.index.stored import NewChunk
from node.index.stores import StoreSettings
from node.retrieval.parts import RetrievalParts
from tests.support.mesh import DEADLINE_S, Mesh, Node, mesh_of
from tests.support.snapshots import PERMIT_ALL

COLLECTION = "notes"
DIMENSIONS = 32
INTERNAL = RequestContext.of(["internal"], "care/triage")
NAMES = {"DE": "fra-1", "FR": "par-1", "US": "iad-1"}

Documents = Mapping[str, str]


@dataclass
class Federation:
    """The mesh, its nodes by country, and a client of DE."""

    mesh: Mesh
    nodes: dict[str, Node]
    client: MeshClient
    spec: CollectionSpec

    async def put(self, country: str, documents: Documents, **meta: Any) -> None:
        """Documents of one chunk each, on the node of this country."""
        retrieval = self.nodes[country].runtime.retrieval
        assert retrieval is not None
        index = retrieval.library.get(COLLECTION)
        vectors = await ScriptedEmbedder(DIMENSIONS).embed(list(documents.values()))
        for (name, text), vector in zip(documents.items(), vectors, strict=True):
            document = DocumentMeta(
                id=name, title=f"About {name}", classes=frozenset({DataClass.INTERNAL}), **meta
            )
            digest = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
            await asyncio.to_thread(index.put, document, digest, [NewChunk(text, vector)])


async def spec_of() -> CollectionSpec:
    """The collection, embedded by ScriptedEmbedder."""
    embedder = ScriptedEmbedder(DIMENSIONS)
    return CollectionSpec(COLLECTION, embedder.name, await embedder.digest(), DIMENSIONS)


def retrieval_parts(folder: Path, **settings: Any) -> RetrievalParts:
    """Retrieval of a test's node: memory store, scripted embeddings, answers that are extracted."""
    return RetrievalParts(
        folder,
        ScriptedEmbedder(DIMENSIONS),
        RetrievalSettings(store=StoreSettings(kind="memory"), answers="extract", **settings),
    )


@contextlib.asynccontextmanager
async def federation_of(
    directory: Path,
    documents: Mapping[str, Documents],
    policies: Mapping[str, str] | None = None,
    client: str = "firm/desk",
    *,
    evidence: bool = False,
    tracing: Callable[[SpiffeId], Tracing] = lambda identity: NO_TRACING,
) -> AsyncIterator[Federation]:
    """Authorities of these countries, each with a node that holds these documents. Everything is permitted
    unless policies say otherwise. With `evidence` the nodes witness each other's logs; `tracing` says where
    the spans of each of them go."""
    cedar = {country: (policies or {}).get(country, PERMIT_ALL) for country in documents}
    spec = await spec_of()
    async with mesh_of(directory, *documents, policies=cedar) as mesh:
        for country in documents:
            await mesh[country].publish(RecordType.COLLECTION, codec.collection_to_payload(spec), COLLECTION)
        nodes = {
            country: await mesh[country].node(
                NAMES[country],
                retrieval=retrieval_parts(directory / f"{country}-retrieval"),
                evidence=directory / f"{country}-witness" if evidence else None,
                tracing=tracing(mesh[country].id(f"/node/{NAMES[country]}")),
            )
            for country in documents
        }
        await mesh.settled()
        for node in nodes.values():
            assert node.runtime.retrieval is not None
            await node.runtime.retrieval.library.create(COLLECTION)
        home = mesh["DE"]
        source = home.identity.source(f"/client/{client}", mesh.bundles)
        servers = [Server(node.id, node.endpoint) for node in home.nodes.values()]
        async with MeshClient(source, servers, tracing=tracing(source.id)) as opened:
            there = Federation(mesh, nodes, opened, spec)
            for country, texts in documents.items():
                await there.put(country, texts)
            await all_know(there)
            yield there


async def all_know(there: Federation) -> None:
    """Waits until every node's records say that all of them hold the collection."""
    for node in there.nodes.values():
        await node.runtime.board.wait_for(
            lambda snapshot: all(
                (found := snapshot.candidates.get(other.id)) is not None
                and found.record.holds(COLLECTION) is not None
                for other in there.nodes.values()
            ),
            DEADLINE_S,
        )
