"""A whole mesh in one process: authorities, nodes and callers, real but for the engine and etcd.

    async with mesh_of(tmp_path, "DE", "FR", "US") as mesh:
        node = await mesh["DE"].node("fra-1")
        caller = mesh["DE"].caller("clinic")
        placed = await caller.place(["special-category"])
        texts = await caller.chat(placed, "hello")

Certificates, mutual TLS over loopback, signed records, policies, permits, decision logs and servicers
are those of production. The board is a memory store that can be disconnected; engines are scripted and
count what reaches them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh import codec
from mesh.board import Board
from mesh.core.cosigned import origin_of
from mesh.core.records import COVERED_BY_HEADS, RecordKey, RecordType
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Heads, Revocations, Snapshot, TrustBundle
from mesh.core.types import NodeFacts, SpiffeId
from mesh.evidence import MemoryDecisionLog
from mesh.evidence.base import EvidenceLog
from mesh.identity.log_keys import LogKey
from mesh.ids import id_maker
from mesh.store.base import RecordStore
from mesh.store.memory import MemoryBoard, MemoryStore
from mesh.telemetry.parts import NodeTelemetry
from node.config import EvidenceSettings, ServingSettings, StatusSettings
from node.engine.scripted import Script, ScriptedEngine
from node.evidence.parts import EvidenceParts
from node.retrieval.parts import RetrievalParts
from node.runtime import NodeParts, NodeRuntime
from tests.support.caller import Caller, Stream, context
from tests.support.identities import AuthorityForTests
from tests.support.waiting import DEADLINE_S

__all__ = ["DEADLINE_S", "POLICIES", "Authority", "Caller", "Mesh", "Node", "Stream", "context", "mesh_of"]

POLICIES = Path(__file__).parents[2] / "examples" / "policies"
_RECORD_TTL_S = 3600.0
# Tests should not wait a second for a status.
_STATUS = StatusSettings(heartbeat_s=0.5, coalesce_s=0.01, lease_s=5.0)


@dataclass
class Node:
    """A running node and what a test wants to look at."""

    runtime: NodeRuntime
    engine: ScriptedEngine
    log: EvidenceLog

    @property
    def id(self) -> SpiffeId:
        return self.runtime.id

    @property
    def endpoint(self) -> str:
        return self.runtime.endpoints[0]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What its decision log says; for a MemoryDecisionLog."""
        assert isinstance(self.log, MemoryDecisionLog)
        return self.log.entries

    @property
    def metrics_port(self) -> int:
        """Where it shows its metrics, if it does."""
        assert self.runtime.parts.telemetry is not None
        return self.runtime.parts.telemetry.port

    async def idle(self) -> None:
        """Waits until it serves nobody."""
        async with asyncio.timeout(DEADLINE_S):
            await self.runtime.admission.wait_idle()


class Authority:
    """One authority with its nodes and callers; what it publishes is signed and on the board."""

    def __init__(self, mesh: Mesh, country: str, directory: Path) -> None:
        self.mesh = mesh
        self.country = country
        self.identity = AuthorityForTests(directory, f"{country.lower()}.mesh.example")
        self.trust_domain = self.identity.trust_domain
        self.board = Board(mesh.new_store(), self.trust_domain, self.identity.bundle, mesh.clock)
        self.nodes: dict[str, Node] = {}
        self.max_age_s = 60.0
        self._revoked = Revocations()

    def id(self, path: str) -> SpiffeId:
        return self.identity.id(path)

    async def publish(self, type: RecordType, payload: bytes, name: str = "") -> None:
        """Signs and publishes a record, and the heads that name it."""
        await self._put(RecordKey(self.trust_domain, type, name), payload)
        await self.sign_heads()

    async def _put(self, key: RecordKey, payload: bytes) -> None:
        signer = self.identity.ca.signer(self.mesh.clock())
        await self.board.publish(signer, key, payload, _RECORD_TTL_S)

    async def sign_heads(self) -> None:
        """Says which records are current; fresh for `max_age_s` from now."""
        heads = Heads(self.mesh.clock(), self.max_age_s, self.current())
        await self._put(RecordKey(self.trust_domain, RecordType.HEADS), codec.heads_to_payload(heads))

    def current(self) -> dict[str, int]:
        """The generation of each of its records."""
        return {
            str(key): self.board.generation(key) for key in self.board.own() if key.type in COVERED_BY_HEADS
        }

    async def apply_policy(self, cedar: str) -> None:
        await self.publish(RecordType.POLICY, codec.policy_to_payload(cedar))

    async def publish_collection(self, spec: CollectionSpec) -> None:
        """Defines how documents of a collection are indexed in this jurisdiction."""
        await self.publish(RecordType.COLLECTION, codec.collection_to_payload(spec), spec.name)

    async def federate(self, bundles: Iterable[TrustBundle]) -> None:
        await self.publish(RecordType.FEDERATION, codec.federation_to_payload(bundles))

    async def state_facts(self, name: str, **facts: Any) -> None:
        """What the authority states about a node; at home in its country unless said otherwise."""
        home: dict[str, Any] = {
            "location": self.country,
            "operator_domicile": self.country,
            "controller": self.country,
            "admin_access": frozenset({self.country}),
            "dns_name": f"{name}.node.{self.trust_domain}",
        }
        await self.publish(RecordType.FACTS, codec.facts_to_payload(NodeFacts(**{**home, **facts})), name)

    async def revoke(self, *ids: SpiffeId, serials: Iterable[str] = ()) -> None:
        self._revoked = Revocations(self._revoked.ids | set(ids), self._revoked.serials | set(serials))
        await self.publish(RecordType.REVOCATIONS, codec.revocations_to_payload(self._revoked))

    def caller(self, path: str, *, ttl_s: float = 3600) -> Caller:
        """A client: "clinic" or "clinic/desk-1"; or any identity, given a path that begins with "/"."""
        full = path if path.startswith("/") else f"/client/{path}"
        svid = self.identity.svid(full, ttl_s, self.mesh.clock())
        return Caller(self.mesh, self.identity.source(full, self.mesh.bundles, svid=svid))

    async def node(
        self,
        name: str,
        *,
        facts: Mapping[str, Any] | None = None,
        script: Script | None = None,
        capacity: int = 16,
        serving: ServingSettings | None = None,
        log: EvidenceLog | None = None,
        cache: Path | None = None,
        retrieval: RetrievalParts | None = None,
        evidence: Path | None = None,
        witnesses: int = 2,
        telemetry: bool = False,
        wait: bool = True,
    ) -> Node:
        """Starts a node and, unless told otherwise, waits until every node and authority knows it.

        With a folder `evidence` it witnesses others, has its log witnessed, and shows it. With `telemetry` it
        shows metrics on a port of its own, as they are at that moment.
        """
        shown = NodeTelemetry(self.id(f"/node/{name}"), "127.0.0.1:0", fresh_s=0.0) if telemetry else None
        engine = ScriptedEngine(capacity=capacity, script=script)
        parts = None
        if evidence is not None:
            parts = EvidenceParts(evidence, LogKey.generate(), EvidenceSettings(witnesses=witnesses))
            log = log or MemoryDecisionLog(origin_of(self.id(f"/node/{name}")), LogKey.generate())
        kept = log or MemoryDecisionLog()
        runtime = NodeRuntime(
            NodeParts(
                source=self.identity.source(f"/node/{name}", self.mesh.bundles),
                store=self.mesh.new_store(),
                engine=engine,
                log=kept,
                listen=("127.0.0.1:0",),
                board_cache=cache,
                serving=serving or ServingSettings(),
                status=_STATUS,
                retrieval=retrieval,
                evidence=parts,
                telemetry=shown,
                clock=self.mesh.clock,
            )
        )
        node = Node(runtime, engine, kept)
        self.nodes[name] = node
        self.mesh.on_close(runtime.stop)
        await runtime.start()
        await self.state_facts(name, **(facts or {}))
        if wait:
            await self.mesh.knows(node)
        return node


class Mesh:
    """Authorities by country ("DE") or trust domain. Use `mesh_of`."""

    def __init__(
        self,
        directory: Path,
        countries: Iterable[str],
        clock: Callable[[], float],
        new_store: Callable[[], RecordStore] | None = None,
    ) -> None:
        self.clock = clock
        self.new_id = id_maker(clock)
        self.board = MemoryBoard()
        self.new_store = new_store or (lambda: MemoryStore(self.board))
        self._closing: list[Callable[[], Any]] = []
        self.authorities = {country: Authority(self, country, directory) for country in countries}

    def __getitem__(self, name: str) -> Authority:
        return self.authorities[name.split(".")[0].upper()]

    @property
    def bundles(self) -> list[TrustBundle]:
        return [authority.identity.bundle for authority in self.authorities.values()]

    @property
    def nodes(self) -> list[Node]:
        return [node for authority in self.authorities.values() for node in authority.nodes.values()]

    def on_close(self, close: Callable[[], Any]) -> None:
        """Calls back, in reverse order, when the mesh ends."""
        self._closing.append(close)

    async def start(self, policies: Mapping[str, str]) -> None:
        for country, authority in self.authorities.items():
            running = asyncio.create_task(authority.board.run(), name=f"{country}-authority")
            self.on_close(lambda task=running: _end(task))
            await authority.federate(b for b in self.bundles if b.trust_domain != authority.trust_domain)
            cedar = policies.get(country) or (POLICIES / f"{country.lower()}.cedar").read_text()
            await authority.apply_policy(cedar)

    async def settled(self, *nodes: Node) -> None:
        """Waits until these nodes (all) hold every record that the authorities have published."""

        def holds(snapshot: Snapshot) -> bool:
            for authority in self.authorities.values():
                heads = snapshot.heads.get(authority.trust_domain)
                if heads is None or dict(heads.generations) != authority.current():
                    return False
                if any(snapshot.generations.get(k, (0, ""))[0] < g for k, g in heads.generations.items()):
                    return False
            return True

        for node in nodes or self.nodes:
            await node.runtime.board.wait_for(holds, DEADLINE_S)

    async def knows(self, node: Node) -> None:
        """Waits until every node has this one as a ready candidate."""
        for other in self.nodes:
            board = other.runtime.board
            await board.wait_for(
                lambda snapshot, board=board: (
                    node.id in snapshot.candidates
                    and node.id in board.statuses
                    and board.statuses[node.id].ready
                ),
                DEADLINE_S,
            )

    async def aclose(self) -> None:
        for close in reversed(self._closing):
            await close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def mesh_of(
    directory: Path,
    *countries: str,
    policies: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
    new_store: Callable[[], RecordStore] | None = None,
) -> AsyncIterator[Mesh]:
    """A running mesh of these authorities, with the example policies unless others are given.

    `new_store` makes a record store for each participant; a shared memory board by default.
    """
    mesh = Mesh(directory, countries, clock, new_store)
    try:
        await mesh.start(policies or {})
        yield mesh
    finally:
        await mesh.aclose()
