"""What a node asks other nodes' Evidence service, over channels that trust only that node's own authority."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from mesh.codec import evidence as codec
from mesh.core.errors import MeshError, Reason
from mesh.core.receipt import End
from mesh.core.snapshot import Candidate
from mesh.identity.names import dns_name_of
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.telemetry import spans
from node.evidence.service import Elsewhere
from node.evidence.witnessing import Ask
from sovereign.mesh.v1 import evidence_pb2, evidence_pb2_grpc

TIMEOUT_S = 3.0
_NOT_THERE = (Reason.UNREACHABLE, Reason.NODE_LOST)

_T = TypeVar("_T")


def cosigning(pool: ChannelPool) -> Ask:
    """Shows a checkpoint to a witness."""

    async def ask(
        witness: Candidate, checkpoint: bytes, old_size: int, proof: tuple[bytes, ...]
    ) -> tuple[str, int]:
        request = evidence_pb2.CosignRequest(checkpoint=checkpoint.decode(), old_size=old_size, proof=proof)
        answer = await _ask(pool, witness, lambda stub: stub.Cosign(request, timeout=TIMEOUT_S))
        return codec.cosigned_from_pb(answer)

    return ask


def proving(pool: ChannelPool) -> Elsewhere:
    """Asks for the entries about a request."""

    async def ask(candidate: Candidate, asked: codec.Asked) -> End:
        request = evidence_pb2.ProveRequest(
            id=asked.id, wait_ms=round(asked.wait_s * 1000), requester=str(asked.requester or "")
        )
        timeout = TIMEOUT_S + asked.wait_s
        metadata = spans.outgoing()
        answer = await _ask(
            pool, candidate, lambda stub: stub.Prove(request, timeout=timeout, metadata=metadata)
        )
        return codec.end_from_pb(answer, candidate.id)

    return ask


async def _ask(pool: ChannelPool, candidate: Candidate, call: Callable[[Any], Awaitable[_T]]) -> _T:
    """At the first of its endpoints that answers."""
    failure = MeshError(Reason.UNREACHABLE, "it has no endpoint")
    for endpoint in candidate.record.endpoints:
        channel = pool.channel(
            endpoint, dns_name=dns_name_of(candidate.id), trust_domain=candidate.id.trust_domain
        )
        try:
            return await call(evidence_pb2_grpc.EvidenceStub(channel))
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            if failure.reason not in _NOT_THERE:
                break
            pool.drop(endpoint)
    raise failure
