"""The control plane of one authority, put together: CA, records, heads, Admin, Enrolment, Placement.

It makes its own TLS identity (/control/<name>) and renews it; its key never leaves this process. It
serves administrators and machines, and places requests from the same code as nodes do. It handles no
payload (I6). Where things are and how they are called is for whoever makes a `ControlPlane` to say:
control/daemon.py from a file, tests by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.actions import ActionLog
from control.api import admin, enrolment
from control.ca.issuance import MAX_TTL_S
from control.ca.tokens import JoinTokens
from control.heads import HeadsKeeper
from control.pending import PendingFacts
from control.records import AuthorityRecords
from control.telemetry import of_heads
from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import PERMIT_TTL_S
from mesh.core.placement import Placer
from mesh.core.snapshot import Snapshot, TrustBundle
from mesh.core.types import SpiffeId
from mesh.evidence import DecisionLog, EvidenceLog
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import make_key_and_csr
from mesh.identity.source import SvidSource
from mesh.identity.svid import Svid
from mesh.identity.tls import enrolment_server_credentials, server_credentials
from mesh.rpc import placement_service
from mesh.rpc.server import MeshServer, ServerLimits
from mesh.store.base import RecordStore
from mesh.telemetry.base import SILENT
from mesh.telemetry.parts import ControlTelemetry
from mesh.telemetry.version import software_version
from sovereign.mesh.v1 import admin_pb2_grpc, placement_pb2_grpc

# A token and a CSR; strangers get room for no more.
ENROLMENT_LIMITS = ServerLimits(
    max_request_bytes=16 * 1024,
    max_connections=256,
    max_streams_per_connection=4,
    idle_connection_s=30.0,
    max_connection_age_s=60.0,
    max_connection_age_grace_s=30.0,
)
# How long the board may take to say that no policy is in force before the first one is published.
BOARD_TIMEOUT_S = 30.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a control plane is made of. Times in seconds, `clock` in Unix seconds.

    `listen` and `enrolment_listen` are host:port (port 0: any). `decisions` and `actions` are separate
    durable logs. `first_policy` is published if none is in force.
    """

    ca: CertificateAuthority
    store: RecordStore
    decisions: EvidenceLog
    actions: DecisionLog
    state_directory: Path
    clock: Callable[[], float]
    random: Callable[[], float]
    new_id: Callable[[], str]
    name: str = "main"
    listen: tuple[str, ...] = ("127.0.0.1:0",)
    enrolment_listen: tuple[str, ...] = ("127.0.0.1:0",)
    enrolments_per_minute: int = 60
    heads_interval_s: float = 5.0
    heads_max_age_s: float = 60.0
    certificate_ttl_s: float = MAX_TTL_S
    permit_ttl_s: float = PERMIT_TTL_S
    first_policy: str = ""
    telemetry: ControlTelemetry | None = None


class ControlPlane:
    """One authority's control plane. `start` it, `stop` it; `failed` tells when it must be stopped."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        ca, clock = parts.ca, parts.clock
        trust_domain = ca.trust_domain
        self.id = SpiffeId(trust_domain, f"/control/{parts.name}")
        self.source = self._own_identity()
        self.board = Board(parts.store, trust_domain, ca.bundle, clock, parts.state_directory / "board")
        self._keeper = HeadsKeeper(
            self.board,
            trust_domain,
            lambda: ca.signer(clock()),
            clock,
            interval_s=parts.heads_interval_s,
            max_age_s=parts.heads_max_age_s,
        )
        self.records = AuthorityRecords(self.board, trust_domain, self._keeper)
        self.tokens = JoinTokens(parts.state_directory / "tokens.sqlite", clock)
        self._pending = PendingFacts(parts.state_directory / "pending")
        self._actions = ActionLog(parts.actions, clock, parts.new_id)
        calls = parts.telemetry.calls if parts.telemetry is not None else None
        self._server = MeshServer(server_credentials(self.source), new_id=parts.new_id, observer=calls)
        self._door = MeshServer(
            enrolment_server_credentials(self.source),
            new_id=parts.new_id,
            limits=ENROLMENT_LIMITS,
            observer=calls,
        )
        self._serving = False
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] = lambda: None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def endpoint(self) -> str:
        """host:port of Admin, Placement and renewal, once started."""
        return _endpoint(self._parts.listen[0], self._server.ports[0])

    @property
    def enrolment_endpoint(self) -> str:
        """host:port of enrolment, once started."""
        return _endpoint(self._parts.enrolment_listen[0], self._door.ports[0])

    async def start(self) -> None:
        """Begins to serve; the board may still be away. CONFIG_INVALID if an address is taken."""
        if self._parts.telemetry is not None:
            self._show(self._parts.telemetry)
        self._register()
        self._server.listen(self._parts.listen)
        self._door.listen(self._parts.enrolment_listen)
        self._adopt_bundles(self.board.snapshot)
        self._unsubscribe = self.board.subscribe(self._adopt_bundles)
        for name, work in (
            ("board", self.board.run()),
            ("heads", self._keeper.run()),
            ("identity", self.source.run(self._renew)),
            ("first policy", self._publish_first_policy()),
        ):
            self._spawn(name, work)
        for server in (self._server, self._door):
            await server.start()
            await server.set_serving(True)
        self._serving = True
        _LOG.info("%s serves on %s, enrolment on %s", self.id, self.endpoint, self.enrolment_endpoint)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuses new calls, lets the others end, and closes everything that it was given."""
        self._serving = False
        for server in (self._server, self._door):
            with contextlib.suppress(Exception):
                await server.set_serving(False)
        await asyncio.gather(self._server.stop(grace_s), self._door.stop(grace_s))
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._parts.store.aclose()
        await self._parts.decisions.aclose()
        await self._parts.actions.aclose()
        if self._parts.telemetry is not None:
            await self._parts.telemetry.aclose()
        if not self.failed.done():
            self.failed.cancel()

    def _show(self, telemetry: ControlTelemetry) -> None:
        """Begins to show metrics, and whether it is alive and ready."""
        parts = self._parts
        telemetry.read(of_heads(self.board, parts.clock))
        telemetry.start(
            version=software_version(),
            not_ready=lambda: () if self._serving else ("it does not serve",),
            board=self.board,
            source=self.source,
            log=parts.decisions,
            clock=parts.clock,
        )

    def _register(self) -> None:
        parts = self._parts
        telemetry = parts.telemetry
        enroller = enrolment.EnrolmentService(
            ca=parts.ca,
            board=self.board,
            records=self.records,
            tokens=self.tokens,
            pending=self._pending,
            actions=self._actions,
            source=self.source,
            clock=parts.clock,
            longest_s=parts.certificate_ttl_s,
            per_minute=parts.enrolments_per_minute,
            told=telemetry.enrolments if telemetry is not None else lambda outcome: None,
        )
        administering = admin.AdminService(
            ca=parts.ca,
            board=self.board,
            store=parts.store,
            records=self.records,
            tokens=self.tokens,
            pending=self._pending,
            actions=self._actions,
            source=self.source,
            clock=parts.clock,
            longest_s=parts.certificate_ttl_s,
        )
        placing = placement_service.PlacementService(
            self.board,
            self.source,
            Placer(permit_ttl_s=parts.permit_ttl_s),
            parts.decisions,
            clock=parts.clock,
            monotonic=time.monotonic,
            new_id=parts.new_id,
            observer=telemetry.placements if telemetry is not None else SILENT,
        )
        for server in (self._server, self._door):
            server.add(admin_pb2_grpc.add_EnrolmentServicer_to_server, enroller, enrolment.SERVICE_NAME)
        self._server.add(admin_pb2_grpc.add_AdminServicer_to_server, administering, admin.SERVICE_NAME)
        self._server.add(
            placement_pb2_grpc.add_PlacementServicer_to_server, placing, placement_service.SERVICE_NAME
        )

    def _own_identity(self) -> SvidSource:
        key, csr = make_key_and_csr()
        return SvidSource(
            Svid(self._issue_own(csr), key),
            [self._parts.ca.bundle],
            clock=self._parts.clock,
            random=self._parts.random,
        )

    def _issue_own(self, csr: bytes) -> tuple[bytes, ...]:
        return self._parts.ca.issue(csr, self.id, self._parts.certificate_ttl_s, self._parts.clock())

    async def _renew(self, csr: bytes) -> tuple[tuple[bytes, ...], tuple[TrustBundle, ...]]:
        return self._issue_own(csr), ()

    def _adopt_bundles(self, snapshot: Snapshot) -> None:
        self.source.set_bundles(snapshot.bundles.values())

    async def _publish_first_policy(self) -> None:
        if not self._parts.first_policy:
            return
        while not self.board.connected:
            with contextlib.suppress(TimeoutError):
                await self.board.wait_for(lambda _: self.board.connected, BOARD_TIMEOUT_S)
        if self._parts.ca.trust_domain in self.board.snapshot.policies:
            return
        try:
            change = await self.records.apply_policy(self._parts.first_policy)
        except MeshError as error:
            if error.reason is not Reason.STORE_UNAVAILABLE:
                raise
            _LOG.warning("the first policy is not published: %s", error)
        else:
            _LOG.info("published the first policy %s, record %d", change.digest, change.generation)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None or self.failed.done():
            return
        # What keeps records alive must not die unseen: whoever runs this is told, and restarts it.
        _LOG.error("%s ended", task.get_name(), exc_info=task.exception())
        self.failed.set_exception(MeshError(Reason.INTERNAL, f"{task.get_name()} ended unexpectedly"))


def _endpoint(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
