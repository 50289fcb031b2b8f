"""Receipts: what the logs of both ends hold about one request, fetched through nodes of the own authority.

A client asks its own authority's nodes alone; they pass the question on to the others' (who asks about what
is worth guarding, too). What comes back is verified before it is kept: an end that does not hold is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from mesh.attested import attested_by
from mesh.codec import evidence as codec
from mesh.core.cosigned import Opener
from mesh.core.errors import MeshError, Reason
from mesh.core.receipt import MAX_BYTES, End, Receipt, VerifiedEnd, verify_receipt
from mesh.core.receipt_story import story_of
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.log_keys import verify_ed25519
from mesh.identity.names import dns_name_of
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.sdk.placers import Server
from sovereign.mesh.v1 import evidence_pb2, evidence_pb2_grpc

_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A receipt, and the ends that it lacks with the reason."""

    receipt: Receipt
    missing: Mapping[SpiffeId, MeshError]


class Receipts:
    """Fetches. `servers` are daemons of the own trust domain; its nodes are asked in this order. `bundles`
    say whose records can be verified."""

    def __init__(
        self, servers: Sequence[Server], pool: ChannelPool, bundles: Callable[[], Mapping[str, TrustBundle]]
    ) -> None:
        self._nodes = [server for server in servers if server.id.kind == "node"]
        self._pool = pool
        self._bundles = bundles

    async def fetch(self, decision: str, ends: Iterable[SpiffeId], wait_s: float) -> Fetched:
        """The ends of the request that was decided under this id; the first is who decided.

        `wait_s` is how long each node waits for witnesses. CONFIG_INVALID without a home node; what the first
        end's node says if nothing can be had from it.
        """
        if not self._nodes:
            raise MeshError(
                Reason.CONFIG_INVALID, "profile.yaml: nodes: name a home node to ask for receipts"
            )
        wanted = list(dict.fromkeys(ends))
        answers = await asyncio.gather(
            *(self._end(decision, node, wait_s) for node in wanted), return_exceptions=True
        )
        opener = attested_by(self._bundles())
        found: list[End] = []
        first: VerifiedEnd | None = None
        missing: dict[SpiffeId, MeshError] = {}
        for node, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, End):
                try:
                    verified = _verified(answer, found, first, opener)
                except MeshError as error:
                    missing[node] = error
                else:
                    found.append(answer)
                    first = first or verified
            elif isinstance(answer, MeshError):
                missing[node] = answer
            else:
                raise answer
        if wanted[0] in missing:
            raise missing[wanted[0]]
        return Fetched(Receipt(tuple(found)), missing)

    async def _end(self, decision: str, node: SpiffeId, wait_s: float) -> End:
        if node.kind != "node":
            raise MeshError(Reason.NOT_FOUND, f"{node} decided, and only nodes show their logs")
        failure = MeshError(Reason.UNREACHABLE, "no home node answers")
        for server in sorted(self._nodes, key=lambda each: each.id != node):
            channel = self._pool.channel(
                server.endpoint, dns_name=dns_name_of(server.id), trust_domain=server.id.trust_domain
            )
            request = evidence_pb2.ProveRequest(
                id=decision, wait_ms=min(codec.MAX_WAIT_MS, round(wait_s * 1000)), node=str(node)
            )
            try:
                answer = await evidence_pb2_grpc.EvidenceStub(channel).Prove(
                    request, timeout=wait_s + _GRACE_S
                )
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                if failure.reason not in (Reason.UNREACHABLE, Reason.NODE_LOST):
                    raise failure from None
                self._pool.drop(server.endpoint)
                continue
            return codec.end_from_pb(answer, node)
        raise failure


def _verified(end: End, others: Sequence[End], first: VerifiedEnd | None, opener: Opener) -> VerifiedEnd:
    """One end that does not hold, or is not of the same request as `first`, must not spoil the others."""
    (verified,) = verify_receipt(Receipt((end,)), opener, verify_ed25519, 0)
    story_of((verified,) if first is None else (first, verified))
    if len(Receipt((*others, end)).to_json()) > MAX_BYTES:
        raise MeshError(Reason.RECEIPT_INVALID, f"a receipt has at most {MAX_BYTES} bytes")
    return verified
