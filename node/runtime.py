"""A running node: its parts put together, started and stopped in order. Wiring only.

The daemon builds one from its configuration file with etcd and the real engine, tests build one with a
memory store and the scripted engine; the rest is the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.policy import PolicyEngine
from mesh.core.records import RecordKey, RecordType
from mesh.core.snapshot import Snapshot
from mesh.core.types import NodeRecord, NodeStatus
from mesh.evidence.base import EvidenceLog
from mesh.identity.source import Renew, SvidSource
from mesh.identity.tls import server_credentials
from mesh.ids import id_maker
from mesh.rpc import placement_service
from mesh.rpc.placement_service import PlacementService
from mesh.rpc.server import MeshServer, ServerLimits
from mesh.settings import PlacementSettings
from mesh.store.base import RecordStore
from mesh.telemetry.base import SILENT, NodeObserver
from mesh.telemetry.last_minute import LastMinuteKeeper, counters_of
from mesh.telemetry.parts import NodeTelemetry
from mesh.telemetry.tracing import NO_TRACING, Tracing
from mesh.version import software_version
from node.admission import Admission
from node.api import inference, node_admin
from node.api.inference import InferenceService
from node.api.node_admin import NodeAdminService
from node.config import ServingSettings, StatusSettings
from node.engine.base import Engine, EngineState
from node.evidence import service as evidence_service
from node.evidence.parts import EvidenceParts, NodeEvidence
from node.gate import Gate
from node.live_calls import LiveCalls
from node.oversight import Oversight
from node.permit_check import PermitCheck
from node.reception import Reception
from node.retrieval.parts import SERVICE_NAMES, Retrieval, RetrievalParts, Surroundings
from node.status import StatusPublisher
from node.telemetry import of_engine, of_indexes, of_witnessing
from sovereign.mesh.v1 import inference_pb2_grpc, node_admin_pb2_grpc, placement_pb2_grpc

# How long the board may take to be listed before the node serves without it (I4), in seconds.
LISTING_S = 2.0
# How long calls that were cut off may take to end, and what was served may take to be sent, in seconds.
CUT_S = 2.0
FLUSH_S = 2.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node is made of that differs between a real one and a test's."""

    source: SvidSource
    store: RecordStore
    engine: Engine
    log: EvidenceLog
    listen: tuple[str, ...]
    advertise: tuple[str, ...] = ()
    board_cache: Path | None = None
    renew: Renew | None = None
    serving: ServingSettings = field(default_factory=ServingSettings)
    status: StatusSettings = field(default_factory=StatusSettings)
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    retrieval: RetrievalParts | None = None
    evidence: EvidenceParts | None = None
    telemetry: NodeTelemetry | None = None
    tracing: Tracing = NO_TRACING
    clock: Callable[[], float] = time.time


class NodeRuntime:
    """One node. `start`, then `drain` and `stop`; `stop` alone ends it at once."""

    def __init__(self, parts: NodeParts) -> None:
        source, clock = parts.source, parts.clock
        if source.id.kind != "node":
            raise MeshError(Reason.CONFIG_INVALID, "identity.directory: expected the identity of a /node/...")
        self.parts = parts
        self.id = source.id
        self.engine = parts.engine
        self.new_id = id_maker(clock)
        self.policies = PolicyEngine()
        self.placer = Placer(self.policies, permit_ttl_s=parts.placement.permit_ttl_s)
        self.live = LiveCalls()
        telemetry = parts.telemetry
        self._observer: NodeObserver = telemetry.meter if telemetry is not None else SILENT
        self._calls = telemetry.calls if telemetry is not None else None
        self.board = Board(
            parts.store,
            source.id.trust_domain,
            source.bundles[source.id.trust_domain],
            clock,
            parts.board_cache,
        )
        self.admission = Admission(
            slots=parts.engine.capacity,
            queue=parts.serving.queue,
            queue_timeout_s=parts.serving.queue_timeout_s,
            clock=time.monotonic,
            changed=self._changed,
        )
        self.gate = Gate(
            view=self.board,
            source=source,
            placer=self.placer,
            permits=PermitCheck(source.id),
            live=self.live,
            log=parts.log,
            clock=clock,
            monotonic=time.monotonic,
            new_id=self.new_id,
            observer=self._observer,
        )
        self.reception = Reception(self.gate, parts.engine, self.admission)
        self.oversight = Oversight(
            self.live,
            self.board,
            self.placer,
            source.id,
            clock=clock,
            monotonic=time.monotonic,
            write_timeout_s=parts.serving.write_timeout_s,
        )
        self.publisher = StatusPublisher(
            self.board,
            parts.store,
            source,
            record=self._record,
            status=self._status,
            heartbeat_s=parts.status.heartbeat_s,
            coalesce_s=parts.status.coalesce_s,
            lease_s=parts.status.lease_s,
        )
        self.retrieval = self._make_retrieval(parts.retrieval) if parts.retrieval is not None else None
        self.evidence: NodeEvidence | None = None
        if parts.evidence is not None:
            self.evidence = NodeEvidence(
                parts.evidence, parts.log, self.gate, self.board, source, clock, self._calls
            )
        self.last_minute: LastMinuteKeeper | None = None
        if telemetry is not None:
            self.last_minute = LastMinuteKeeper(counters_of(telemetry.instruments.registry), time.monotonic)
        self.server = self._make_server()
        self.endpoints: tuple[str, ...] = parts.advertise
        self._version = software_version()
        self.failed = asyncio.Event()
        """Set when a part ended that should not: the node no longer does what it promises."""
        self._tasks: list[asyncio.Task[None]] = []
        self._listening = False

    def _make_retrieval(self, parts: RetrievalParts) -> Retrieval:
        surroundings = Surroundings(
            source=self.parts.source,
            board=self.board,
            placer=self.placer,
            policies=self.policies,
            gate=self.gate,
            engine=self.engine,
            clock=self.parts.clock,
            monotonic=time.monotonic,
            new_id=self.new_id,
            changed=self._changed,
            calls=self._calls,
        )
        return Retrieval(parts, surroundings)

    def _make_server(self) -> MeshServer:
        parts, source = self.parts, self.parts.source
        limits = ServerLimits(
            max_connections=parts.serving.max_connections,
            max_streams_per_connection=parts.serving.max_streams_per_connection,
        )
        server = MeshServer(
            server_credentials(source),
            new_id=self.new_id,
            limits=limits,
            observer=self._calls,
            tracing=parts.tracing,
            home=source.id.trust_domain,
        )
        server.add(
            inference_pb2_grpc.add_InferenceServicer_to_server,
            InferenceService(
                self.reception,
                parts.engine,
                self.board,
                source,
                clock=parts.clock,
                monotonic=time.monotonic,
                observer=self._observer,
            ),
            inference.SERVICE_NAME,
        )
        server.add(
            placement_pb2_grpc.add_PlacementServicer_to_server,
            PlacementService(
                self.board,
                source,
                self.placer,
                parts.log,
                clock=parts.clock,
                monotonic=time.monotonic,
                new_id=self.new_id,
                observer=self._observer,
            ),
            placement_service.SERVICE_NAME,
        )
        server.add(
            node_admin_pb2_grpc.add_NodeAdminServicer_to_server,
            NodeAdminService(self.last_minute, source, lambda: self.board.snapshot, parts.clock),
            node_admin.SERVICE_NAME,
        )
        if self.retrieval is not None:
            self.retrieval.add_to(server)
        if self.evidence is not None:
            self.evidence.add_to(server)
        return server

    @property
    def ready(self) -> bool:
        """Whether it takes new requests."""
        return self.engine.state is EngineState.READY and not self.gate.draining

    def not_ready(self) -> tuple[str, ...]:
        """Why it takes no calls now, in words for anybody; nothing while it does. From any thread."""
        whys = (
            (not self._listening, "it does not listen"),
            (self.parts.clock() >= self.parts.source.svid.not_after, "its certificate has ended"),
            (self.engine.state is not EngineState.READY, f"the engine is {self.engine.state}"),
            (self.gate.draining, "it is draining"),
        )
        return tuple(words for holds, words in whys if holds)

    async def start(self) -> None:
        """Listens and serves; the engine may become ready later. The board is waited for, not for long."""
        if self.parts.telemetry is not None:
            self._show(self.parts.telemetry)
        ports = self.server.listen(self.parts.listen)
        if not self.endpoints:
            hosts = (address.rpartition(":")[0] for address in self.parts.listen)
            self.endpoints = tuple(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
        self._adopt(self.board.snapshot)
        self.board.subscribe(self._adopt)
        self.parts.source.subscribe(self._changed)
        self._run("board", self.board.run())
        if not await self.board.listed(LISTING_S):
            _LOG.warning("the board does not answer: starting from what is on disk")
        await self.server.start()
        self._listening = True
        await self.server.set_serving(True, [placement_service.SERVICE_NAME, node_admin.SERVICE_NAME])
        if self.retrieval is not None:
            self.retrieval.start()
            await self.server.set_serving(True, SERVICE_NAMES)
        if self.evidence is not None:
            await self.server.set_serving(True, [evidence_service.SERVICE_NAME])
            self._run("witnessing", self.evidence.run())
        await self.engine.start()
        if self.last_minute is not None:
            self._run("last-minute", self.last_minute.run())
        self._run("oversight", self.oversight.run())
        self._run("status", self.publisher.run())
        self._run("engine", self._follow_engine())
        if self.parts.renew is not None:
            self._run("renewal", self.parts.source.run(self.parts.renew))
        _LOG.info("%s serves on %s", self.id, ", ".join(self.endpoints))

    async def drain(self, grace_s: float) -> None:
        """Refuses what is new, lets what runs finish, for `grace_s` at most.

        What does not finish is cut off with DRAINING, which is on record, and which callers take for what it
        is: they go on elsewhere.
        """
        self.gate.draining = True
        self._changed()
        await self.server.set_serving(False)
        _LOG.info("draining: %d requests in hand", len(self.live))
        try:
            async with asyncio.timeout(grace_s):
                await self.live.wait_none()
        except TimeoutError:
            left = self.live.review(
                lambda _: MeshError(
                    Reason.DRAINING, f"the node ends, and this took longer than {grace_s:g} s"
                )
            )
            _LOG.warning("cut %d requests that did not finish in %g s", left, grace_s)
            try:
                async with asyncio.timeout(CUT_S):
                    await self.live.wait_none()
            except TimeoutError:
                _LOG.warning("%d requests do not end", len(self.live))

    async def stop(self, flush_s: float = 0.0) -> None:
        """Ends everything that was started; what still runs after `flush_s` is cancelled.

        A call that has been served is under way for gRPC until its last bytes are gone: after draining, give
        them that time.
        """
        self._listening = False
        await self.server.stop(flush_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.publisher.aclose()
        if self.retrieval is not None:
            await self.retrieval.aclose()
        if self.evidence is not None:
            await self.evidence.aclose()
        await self.engine.aclose()
        await self.parts.log.aclose()
        if self.parts.telemetry is not None:
            await self.parts.telemetry.aclose()

    def _show(self, telemetry: NodeTelemetry) -> None:
        """Begins to show metrics, and whether it is alive and ready."""
        telemetry.read(of_engine(self.engine, self.admission, self.gate, self.live))
        if self.retrieval is not None:
            telemetry.read(of_indexes(self.retrieval.library))
        if self.evidence is not None:
            telemetry.read(of_witnessing(self.parts.log, self.evidence.witnessing))
        telemetry.start(
            version=self._version,
            not_ready=self.not_ready,
            board=self.board,
            source=self.parts.source,
            log=self.parts.log,
            clock=self.parts.clock,
        )

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.id.name}-{name}")
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _LOG.critical("%s ended by itself", task.get_name(), exc_info=task.exception())
            self.failed.set()

    def _adopt(self, snapshot: Snapshot) -> None:
        """A new snapshot: whom to trust from now on, and who may go on."""
        source, own = self.parts.source, self.id.trust_domain
        # The own roots are those that came with the certificate; others', what the authority federates.
        others = (bundle for bundle in snapshot.bundles.values() if bundle.trust_domain != own)
        source.set_bundles([source.bundles[own], *others])
        self.oversight.review(snapshot)

    def _changed(self) -> None:
        self.publisher.changed()

    def _record(self) -> NodeRecord | None:
        """None until the engine has told what it serves: an empty record would take the node's name off
        every list."""
        models = self.engine.models
        held = self.retrieval.held() if self.retrieval is not None else ()
        if not models:
            return None
        keys = (self.evidence.log_key, self.evidence.witness.key.public) if self.evidence else (b"", b"")
        return NodeRecord(self.endpoints, models, held, self._version, *keys)

    def _status(self) -> NodeStatus:
        if self.admission.slots != self.engine.capacity:
            self.admission.resize(self.engine.capacity)  # a replica came or went
        facts = RecordKey(self.id.trust_domain, RecordType.FACTS, self.id.name)
        return NodeStatus(
            ready=self.engine.state is EngineState.READY,
            in_flight=self.admission.in_flight,
            queued=self.admission.queued,
            capacity=self.engine.capacity,
            draining=self.gate.draining,
            reported_at=self.parts.clock(),
            # From one moment: what the gate let in by older facts is among `running` (gate.py).
            running=len(self.live),
            facts_generation=self.board.snapshot.generations.get(str(facts), (0, ""))[0],
        )

    async def _follow_engine(self) -> None:
        """Health and status say what the engine's state is."""
        state = self.engine.state
        while True:
            self.admission.resize(self.engine.capacity)
            await self.server.set_serving(self.ready, ["", inference.SERVICE_NAME])
            self._changed()
            others = [other for other in EngineState if other is not state]
            state = await self.engine.wait_state(*others)
            _LOG.info("the engine is %s", state)
