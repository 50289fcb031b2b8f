"""All of retrieval in one node, put together: the library of indexes, the holder that answers other nodes,
and the asker that asks them. Wiring only; what any of it does is said where it is done.

A node without it serves inference alone, and holds no collection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mesh.board import Board
from mesh.core.placement import Placer
from mesh.core.policy import PolicyEngine
from mesh.core.release import ReleasePolicy
from mesh.core.types import HeldCollection
from mesh.identity.source import SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.rpc.permit_writer import PermitWriter
from mesh.rpc.server import MeshServer
from mesh.telemetry.base import CallObserver
from node.admission import Admission
from node.api import index as index_api
from node.api.index import IndexService
from node.config import RetrievalSettings
from node.engine.base import Engine
from node.gate import Gate
from node.index.embedding import TextEmbedder
from node.index.inbox import Inbox
from node.index.ingest import Ingester
from node.index.library import Library
from node.index.parsing.pool import ParserPool
from node.index.tokens import TokenCounter
from node.retrieval import search_service, shard_service
from node.retrieval.answering import Answering
from node.retrieval.asker import Asker
from node.retrieval.budgets import BudgetLimits, Budgets
from node.retrieval.holder import Holder
from node.retrieval.local import LocalShard
from node.retrieval.panel import Panels
from node.retrieval.redaction import Redactor, excerpt
from node.retrieval.responder import Responder
from node.retrieval.search_service import RetrievalService
from node.retrieval.shard_service import ShardService
from node.retrieval.shards import MeshShards, pooled
from node.retrieval.sight import Cutter, Sights
from sovereign.mesh.v1 import index_pb2_grpc, retrieval_pb2_grpc

SERVICE_NAMES = (search_service.SERVICE_NAME, shard_service.SERVICE_NAME, index_api.SERVICE_NAME)

# Questions under way, at this node as the asker; index work of others' and its own questions; answers that
# are being generated. Beyond each, some wait, shared fairly among askers, and the rest is told to come back.
_QUESTIONS, _INDEX_WORK, _ANSWERS = 32, 16, 4
_QUEUE, _QUEUE_TIMEOUT_S = 128, 5.0


@dataclass(frozen=True, slots=True)
class RetrievalParts:
    """What differs between a real node's retrieval and a test's. `folder` keeps everything durable."""

    folder: Path
    embedder: TextEmbedder
    settings: RetrievalSettings = field(default_factory=RetrievalSettings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the node retrieval works with."""

    source: SvidSource
    board: Board
    placer: Placer
    policies: PolicyEngine
    gate: Gate
    engine: Engine
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    changed: Callable[[], None]
    calls: CallObserver | None = None


class Retrieval:
    """Made inside the node's event loop. `start`, then `aclose`."""

    def __init__(self, parts: RetrievalParts, node: Surroundings) -> None:
        settings, self._embedder = parts.settings, parts.embedder
        parts.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        home = node.source.id.trust_domain
        loop = asyncio.get_running_loop()

        def changed() -> None:  # the library calls from its threads, also while the node is ending
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(node.changed)

        self.library = Library(
            parts.folder / "indexes",
            lambda: node.board.snapshot.collections.get(home, {}),
            parts.embedder,
            settings.store,
            node.clock,
            on_change=changed,
        )
        self._budgets = Budgets(
            parts.folder / "budgets.sqlite",
            BudgetLimits(**settings.budgets.model_dump()),
            home,
            node.clock,
        )
        cutter = Cutter(Redactor().redact, excerpt)
        self.holder = Holder(
            self.library,
            sights=Sights(
                ReleasePolicy(node.policies), node.board, node.source.id, node.clock, node.monotonic
            ),
            budgets=self._budgets,
            cutter=cutter,
            responder=Responder(
                node.source.id,
                embedder=parts.embedder,
                engine=node.engine if settings.answers == "read" else None,
                budgets=self._budgets,
                cutter=cutter,
                observer=node.gate.observer,
                monotonic=node.monotonic,
            ),
            threads=settings.threads,
            threshold=settings.statistics_threshold,
        )
        self._parsers = ParserPool()
        self._pool = ChannelPool(node.source, observer=node.calls)
        self._indexing = IndexService(
            node.gate,
            self.library,
            Ingester(
                parts.embedder, self._parsers, TokenCounter(), Inbox.open(parts.folder / "inbox"), node.clock
            ),
            monotonic=node.monotonic,
        )
        self._holding = ShardService(
            node.gate, self.holder, _admission(_INDEX_WORK, node), _admission(_ANSWERS, node)
        )
        shards = MeshShards(node.source.id, lambda: LocalShard(node.gate, self.holder), pooled(self._pool))
        panels = Panels(node.board, node.placer, PermitWriter(node.source, node.new_id), shards, node.clock)
        self._asking = RetrievalService(
            node.gate,
            Asker(
                node=node.source.id,
                view=node.board,
                placer=node.placer,
                panels=panels,
                embedder=parts.embedder,
                clock=node.clock,
            ),
            Answering(panels),
            _admission(_QUESTIONS, node),
            monotonic=node.monotonic,
        )

    def add_to(self, server: MeshServer) -> None:
        """Adds the three services."""
        server.add(
            retrieval_pb2_grpc.add_RetrievalServicer_to_server, self._asking, search_service.SERVICE_NAME
        )
        server.add(retrieval_pb2_grpc.add_ShardServicer_to_server, self._holding, shard_service.SERVICE_NAME)
        server.add(index_pb2_grpc.add_IndexServicer_to_server, self._indexing, index_api.SERVICE_NAME)

    def held(self) -> tuple[HeldCollection, ...]:
        """What other nodes may ask this one for."""
        return self.library.held()

    def start(self) -> None:
        """Begins to open the indexes; returns at once."""
        self.library.start()

    async def aclose(self) -> None:
        """Ends everything; what was acknowledged is on disk already."""
        await self._pool.aclose()
        await self._parsers.aclose()
        await asyncio.to_thread(self.library.close)
        await asyncio.to_thread(self.holder.close)
        self._budgets.close()
        await self._embedder.aclose()


def _admission(slots: int, node: Surroundings) -> Admission:
    return Admission(
        slots=slots,
        queue=_QUEUE,
        queue_timeout_s=_QUEUE_TIMEOUT_S,
        clock=node.monotonic,
        changed=lambda: None,
    )
