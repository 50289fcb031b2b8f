"""A node's evidence put together: witness for others, witnessed by others, and the service. Wiring only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mesh.board import Board
from mesh.core.records import RecordKey, RecordType
from mesh.core.types import SpiffeId
from mesh.evidence.base import EvidenceLog, Signer
from mesh.evidence.witness import Witness
from mesh.identity.source import SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.rpc.server import MeshServer
from mesh.telemetry.base import CallObserver
from node.config import EvidenceSettings
from node.evidence import service
from node.evidence.dialling import cosigning, proving
from node.evidence.service import EvidenceService
from node.evidence.witnessing import Witnessing
from node.gate import Gate
from sovereign.mesh.v1 import evidence_pb2_grpc


@dataclass(frozen=True, slots=True)
class EvidenceParts:
    """What differs between a real node's and a test's. `folder` keeps what it has seen of others' logs."""

    folder: Path
    witness_key: Signer
    settings: EvidenceSettings = field(default_factory=EvidenceSettings)


class NodeEvidence:
    """Made inside the node's event loop. `run` beside the server, `aclose` at the end."""

    def __init__(
        self,
        parts: EvidenceParts,
        log: EvidenceLog,
        gate: Gate,
        board: Board,
        source: SvidSource,
        clock: Callable[[], float],
        calls: CallObserver | None = None,
    ) -> None:
        self.log_key = log.key.public if log.key is not None else b""
        self.witness = Witness(parts.folder, source.id, parts.witness_key, clock)
        self._pool = ChannelPool(source, observer=calls)

        def record_of(node: SpiffeId) -> bytes | None:
            held = board.held(RecordKey(node.trust_domain, RecordType.NODE, node.name))
            return held.envelope if held is not None else None

        self.witnessing = Witnessing(
            log, source.id, board, cosigning(self._pool), record_of, clock, enough=parts.settings.witnesses
        )
        self._service = EvidenceService(gate, board, log, self.witness, self.witnessing, proving(self._pool))

    def add_to(self, server: MeshServer) -> None:
        """Adds the service."""
        server.add(evidence_pb2_grpc.add_EvidenceServicer_to_server, self._service, service.SERVICE_NAME)

    async def run(self) -> None:
        """Has the log witnessed until cancelled."""
        await self.witnessing.run()

    async def aclose(self) -> None:
        """Ends every call."""
        await self._pool.aclose()
