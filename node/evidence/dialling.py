"""Showing a checkpoint to a witness, over a channel that trusts only the witness's own authority."""

from __future__ import annotations

import grpc

from mesh.codec import evidence as codec
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import Candidate
from mesh.identity.names import dns_name_of
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from node.evidence.witnessing import Ask
from sovereign.mesh.v1 import evidence_pb2, evidence_pb2_grpc

TIMEOUT_S = 3.0


def cosigning(pool: ChannelPool) -> Ask:
    """Asks a witness at the first of its endpoints that answers."""

    async def ask(
        witness: Candidate, checkpoint: bytes, old_size: int, proof: tuple[bytes, ...]
    ) -> tuple[str, int]:
        request = evidence_pb2.CosignRequest(checkpoint=checkpoint.decode(), old_size=old_size, proof=proof)
        failure = MeshError(Reason.UNREACHABLE, "the witness has no endpoint")
        for endpoint in witness.record.endpoints:
            channel = pool.channel(
                endpoint, dns_name=dns_name_of(witness.id), trust_domain=witness.id.trust_domain
            )
            try:
                answer = await evidence_pb2_grpc.EvidenceStub(channel).Cosign(request, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                if failure.reason not in (Reason.UNREACHABLE, Reason.NODE_LOST):
                    break
                pool.drop(endpoint)
                continue
            return codec.cosigned_from_pb(answer)
        raise failure

    return ask
