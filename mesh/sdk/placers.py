"""Asking where a request may go: nodes of the own authority first, then its control plane.

Who asks for what is worth guarding too (DESIGN: Placement), so only the caller's own trust domain is
ever asked. Any of them gives the same kind of answer, so one that does not answer is passed over and
asked last for a while. An answer is believed as far as mesh/core/placement.py lets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.failover import RECOVERY
from mesh.core.placement import Decision, Permitted, permitted_targets
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.identity.names import dns_name_of
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.telemetry import span_attributes as names
from mesh.telemetry.spans import NO_SPAN, Kind, Span
from sovereign.mesh.v1 import placement_pb2, placement_pb2_grpc

# A placement is metadata and takes milliseconds: whoever takes longer than this does not answer.
PLACE_TIMEOUT_S = 4.0
_METHOD = "sovereign.mesh.v1.Placement/Place"
# How long somebody who did not answer is asked last.
DEMOTED_S = 10.0

_ASK_ANOTHER = frozenset(RECOVERY) | {Reason.DEADLINE_EXCEEDED, Reason.CANCELLED, Reason.INTERNAL}


@dataclass(frozen=True, slots=True)
class Server:
    """A daemon of the own trust domain: where it listens and who it must prove to be."""

    id: SpiffeId
    endpoint: str


class Placers:
    """Places requests through whoever answers. `clock`: Unix seconds."""

    def __init__(self, servers: Sequence[Server], pool: ChannelPool, clock: Callable[[], float]) -> None:
        if not servers:
            raise MeshError(Reason.CONFIG_INVALID, "expected a control plane or a node to ask for placements")
        self._servers = tuple(servers)
        self._pool = pool
        self._clock = clock
        self._failed_at: dict[Server, float] = {}

    async def place(
        self,
        context: RequestContext,
        *,
        action: Action,
        model: str,
        excluded: Iterable[SpiffeId] = (),
        explain: bool = False,
        timeout_s: float = 2 * PLACE_TIMEOUT_S,
        span: Span = NO_SPAN,
    ) -> tuple[Decision, tuple[Permitted, ...]]:
        """The decision, and where it lets one send, best first; nowhere if it refuses.

        Raises what the servers say of the request, or UNREACHABLE if none answers in time. Each that is asked
        is a step of `span`.
        """
        request = placement_pb2.PlaceRequest(
            context=codec.context_to_pb(context),
            action=codec.action_to_pb(action),
            model=model,
            excluded_nodes=[str(node) for node in excluded],
            explain=explain,
        )
        deadline = self._clock() + timeout_s
        failures: list[str] = []
        for server in self._in_order():
            left = deadline - self._clock()
            if left <= 0:
                break
            try:
                answer = await self._ask(server, request, min(left, PLACE_TIMEOUT_S), span)
            except MeshError as error:
                if error.reason not in _ASK_ANOTHER:
                    raise
                self._failed_at[server] = self._clock()
                failures.append(f"{server.id} ({error.reason.code})")
                continue
            self._failed_at.pop(server, None)
            return read_answer(answer, context)
        raise MeshError(
            Reason.UNREACHABLE, "nobody places requests: asked " + ", ".join(failures or ["no one"])
        )

    def _in_order(self) -> list[Server]:
        now = self._clock()
        return sorted(self._servers, key=lambda s: now - self._failed_at.get(s, -DEMOTED_S) < DEMOTED_S)

    async def _ask(
        self, server: Server, request: placement_pb2.PlaceRequest, timeout_s: float, span: Span
    ) -> placement_pb2.PlaceResponse:
        facts = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: _METHOD, names.NODE: str(server.id)}
        with span.child(_METHOD, Kind.CLIENT, facts) as step:
            return await self._ask_within(server, request, timeout_s, step)

    async def _ask_within(
        self, server: Server, request: placement_pb2.PlaceRequest, timeout_s: float, span: Span
    ) -> placement_pb2.PlaceResponse:
        channel = self._pool.channel(
            server.endpoint, dns_name=dns_name_of(server.id), trust_domain=server.id.trust_domain
        )
        try:
            async with asyncio.timeout(timeout_s):
                stub = placement_pb2_grpc.PlacementStub(channel)
                return await stub.Place(request, metadata=span.metadata())
        except TimeoutError:
            self._pool.drop(server.endpoint)
            raise MeshError(Reason.UNREACHABLE, f"no answer within {timeout_s:.0f} s") from None
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            if failure.reason is Reason.UNREACHABLE:
                self._pool.drop(server.endpoint)  # dial anew next time instead of waiting out a back-off
            raise failure from None


def read_answer(
    answer: placement_pb2.PlaceResponse, context: RequestContext
) -> tuple[Decision, tuple[Permitted, ...]]:
    """What the answer says, as far as it is to be believed; raises REQUEST_INVALID."""
    decision = codec.decision_from_pb(answer.decision)
    targets = permitted_targets(decision, codec.offers_from_pb(answer.targets))
    allowed = context.narrowing.allowed_jurisdictions
    if allowed and any(ranked.location not in allowed for ranked in decision.ranked):
        raise MeshError(Reason.REQUEST_INVALID, "expected a decision that keeps to the caller's narrowing")
    # TLS proves the DNS name alone: only if it belongs to the node is it the node that was permitted.
    if any(target.dns_name != dns_name_of(target.node) for target in targets):
        raise MeshError(Reason.REQUEST_INVALID, "expected the DNS name that belongs to each node")
    return decision, targets


def refusal_of(decision: Decision) -> Reason:
    """What a refused decision comes down to.

    NO_NODE_AVAILABLE if some node was refused only for a passing reason, MODEL_UNKNOWN if nothing but
    the model was missing, else NOT_PERMITTED.
    """
    reasons = {refused.reason for refused in decision.refused}
    passing = {Reason.NODE_NOT_READY, Reason.NODE_CORDONED, Reason.NODE_EXCLUDED}
    if not reasons or reasons & passing:
        return Reason.NO_NODE_AVAILABLE
    if reasons == {Reason.MODEL_NOT_SERVED}:
        return Reason.MODEL_UNKNOWN
    return Reason.NOT_PERMITTED


def refusal_message(decision: Decision, limit: int = 4) -> str:
    """One line for people: the first few nodes with their reasons."""
    said = [f"{r.node.name}: {r.reason.code}" for r in decision.refused[:limit]]
    if decision.refused_total > len(said):
        said.append(f"and {decision.refused_total - len(said)} more")
    return "; ".join(said) or "no node is known"
