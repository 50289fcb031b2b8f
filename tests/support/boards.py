"""Boards on a store, with real authorities signing under a clock that the test moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.board import Board
from mesh.codec import records as codec
from mesh.core.records import RecordKey, RecordType
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Heads, Revocations, TrustBundle
from mesh.core.types import Model, NodeFacts, NodeRecord, NodeStatus, SpiffeId, Task
from mesh.identity.signing import Signer
from mesh.store.base import RecordStore
from tests.support.identities import AuthorityForTests

DAY_S = 86_400.0
DE, FR, US = "de.mesh.example", "fr.mesh.example", "us.mesh.example"
PERMIT_ALL = '@id("all") permit(principal, action, resource);'
DEADLINE_S = 20.0


class Clock:
    """Unix seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


def facts(country: str = "DE", **changes: object) -> NodeFacts:
    values: dict[str, object] = {
        "location": country,
        "operator_domicile": country,
        "controller": country,
        "admin_access": frozenset({country}),
        "dns_name": "a.node.example",
    }
    return NodeFacts(**{**values, **changes})  # type: ignore[arg-type]


def node_record(port: int = 1) -> NodeRecord:
    return NodeRecord((f"127.0.0.1:{port}",), (Model("tiny", "sha256:00", 2048, frozenset({Task.GENERATE})),))


def status(in_flight: int = 0, ready: bool = True) -> NodeStatus:
    return NodeStatus(ready, in_flight, 0, 8)


class Writer:
    """Signs an authority's records and its nodes', as control plane and nodes would."""

    def __init__(self, authority: AuthorityForTests, clock: Clock) -> None:
        self.authority = authority
        self.clock = clock
        self._nodes: dict[str, Signer] = {}

    @property
    def trust_domain(self) -> str:
        return self.authority.trust_domain

    @property
    def signer(self) -> Signer:
        return self.authority.ca.signer(self.clock())

    def node_signer(self, name: str) -> Signer:
        if name not in self._nodes:
            self._nodes[name] = self.authority.svid(f"/node/{name}", DAY_S, self.clock()).signer
        return self._nodes[name]

    def key(self, kind: RecordType, name: str = "") -> RecordKey:
        return RecordKey(self.trust_domain, kind, name)

    def node(self, name: str) -> SpiffeId:
        return self.authority.id(f"/node/{name}")

    def seal(
        self,
        key: RecordKey,
        payload: bytes,
        generation: int = 1,
        *,
        signer: Signer | None = None,
        life_s: float = DAY_S,
        not_before: float | None = None,
        sealed_for: str = "",
    ) -> bytes:
        """An envelope, by the right signer unless another is given."""
        signs = signer or (self.node_signer(key.name) if key.signer.kind == "node" else self.signer)
        start = self.clock() if not_before is None else not_before
        return signs.sign(key.type, sealed_for or str(key), generation, start, start + life_s, payload)

    def policy(self, text: str = PERMIT_ALL) -> tuple[RecordKey, bytes]:
        return self.key(RecordType.POLICY), codec.policy_to_payload(text)

    def facts(self, name: str, **changes: object) -> tuple[RecordKey, bytes]:
        country = self.trust_domain[:2].upper()
        return self.key(RecordType.FACTS, name), codec.facts_to_payload(facts(country, **changes))

    def record(self, name: str, port: int = 1) -> tuple[RecordKey, bytes]:
        return self.key(RecordType.NODE, name), codec.node_record_to_payload(node_record(port))

    def status(self, name: str, in_flight: int = 0) -> tuple[RecordKey, bytes]:
        return self.key(RecordType.STATUS, name), codec.status_to_payload(status(in_flight))

    def collection(self, name: str) -> tuple[RecordKey, bytes]:
        spec = CollectionSpec(name, "all-MiniLM-L6-v2", "sha256:" + "0" * 64, 384)
        return self.key(RecordType.COLLECTION, name), codec.collection_to_payload(spec)

    def federation(self, *others: TrustBundle) -> tuple[RecordKey, bytes]:
        return self.key(RecordType.FEDERATION), codec.federation_to_payload(others)

    def revocations(self, *ids: SpiffeId, serials: tuple[str, ...] = ()) -> tuple[RecordKey, bytes]:
        revoked = Revocations(frozenset(ids), frozenset(serials))
        return self.key(RecordType.REVOCATIONS), codec.revocations_to_payload(revoked)

    def heads(self, generations: dict[str, int], max_age_s: float = 60.0) -> tuple[RecordKey, bytes]:
        payload = codec.heads_to_payload(Heads(self.clock(), max_age_s, generations))
        return self.key(RecordType.HEADS), payload


@asynccontextmanager
async def running_board(
    store: RecordStore,
    bundle: TrustBundle,
    clock: Callable[[], float],
    cache_dir: Path | None = None,
    *,
    connected: bool = True,
) -> AsyncIterator[Board]:
    """A board that follows its store, connected before it is handed out."""
    board = Board(store, bundle.trust_domain, bundle, clock, cache_dir)
    running = asyncio.create_task(board.run())
    try:
        if connected:
            await board.wait_for(lambda _: board.connected, DEADLINE_S)
        yield board
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
