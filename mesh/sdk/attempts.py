"""What carrying out any delivery needs, whatever is delivered: placing it, one try at one node, and the error
at its end.

mesh/core/failover.py decides the steps; delivery.py (inference) and retrieval.py (questions) follow them with
what is here. Payloads are sent to `Permitted` targets only (I1, I2), over a channel that trusts only the root
of the node's own authority.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

import grpc

from mesh.core.errors import MeshError, Reason
from mesh.core.failover import AskPlacement, Delivery, Fail, Placed, Route
from mesh.core.placement import Decision, Permitted
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.rpc.channels import ChannelPool
from mesh.rpc.reach import CONNECT_TIMEOUT_S, channel_to, reach
from mesh.rpc.status import from_rpc_error
from mesh.sdk.events import PlacementRefused
from mesh.sdk.placers import Placers, refusal_message, refusal_of
from mesh.telemetry import span_attributes as names
from mesh.telemetry import spans
from mesh.telemetry.spans import NO_SPAN, Metadata, Span

_PLACING_S = 10.0
_LEAST_S = 0.1

_T = TypeVar("_T")


class Course:
    """One delivery's placements and what went wrong: the latest decision, where it lets one send, the last
    node's error. `subject` is a model or a collection; `clock` is Unix seconds; `span` is the delivery's."""

    def __init__(
        self,
        placers: Placers,
        clock: Callable[[], float],
        context: RequestContext,
        action: Action,
        subject: str,
        span: Span = NO_SPAN,
    ) -> None:
        self._placers = placers
        self._clock = clock
        self._context = context
        self._action = action
        self._subject = subject
        self._span = span
        self.decision: Decision | None = None
        self.targets: dict[SpiffeId, Permitted] = {}
        self.last_error: MeshError | None = None

    async def place(self, step: AskPlacement, state: Delivery) -> tuple[Placed, Decision | None]:
        """What came of placing it, and the decision if there is a new one.

        Raises what the placers say of the request; once some node was tried, that is the delivery's to weigh.
        """
        left = max(_LEAST_S, state.deadline - self._clock())
        try:
            decision, permitted = await self._placers.place(
                self._context,
                action=self._action,
                model=self._subject,
                excluded=step.excluded,
                timeout_s=min(left, _PLACING_S),
                span=self._span,
            )
            if decision.permitted and not permitted:
                raise MeshError(
                    Reason.IDENTITY_NOT_ALLOWED, "this identity may ask where requests may go, not send them"
                )
        except MeshError as error:
            if not state.tried:
                raise
            return Placed((), error.reason), None
        self.decision = decision
        self.targets = {target.node: target for target in permitted}
        if not permitted:
            return Placed((), refusal_of(decision)), decision
        routes = tuple(Route(t.node, t.model_digest, decision.expires_at) for t in permitted)
        return Placed(routes), decision

    def failure(self, fail: Fail, state: Delivery) -> MeshError:
        """The error that the caller gets."""
        last, decision = self.last_error, self.decision
        if last is not None and fail.passed_on:
            return last
        if not state.tried and decision is not None and not decision.permitted:
            message = refusal_message(decision)
            return PlacementRefused(fail.reason, message, {"decision": decision.id}, None, decision)
        if last is None:
            return MeshError(fail.reason, fail.message)
        same = last.reason is fail.reason
        return MeshError(
            fail.reason,
            f"{last.message} ({fail.message})" if same else fail.message,
            last.metadata if same else {},
            last.retry_after_s,
            request_id=last.request_id,
        )


async def try_node(
    pool: ChannelPool,
    target: Permitted,
    ask: Callable[[grpc.aio.Channel, Metadata | None], AsyncGenerator[_T, None]],
    *,
    left_s: float,
    silent: str = "silent",
    method: str = "",
    span: Span = NO_SPAN,
) -> AsyncGenerator[_T, None]:
    """What one node says, by the first of its endpoints that can be connected to. Close it to end the call.

    Its gRPC errors become MeshErrors; a TimeoutError of `ask` becomes NODE_LOST with `silent` as message. The
    call of `method` is a step of `span`, and `ask` sends its metadata along.
    """
    facts = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: method, names.NODE: str(target.node)}
    with spans.ending(span.child(method, spans.Kind.CLIENT, facts)) as step:
        endpoint = await reach(pool, target, min(left_s, CONNECT_TIMEOUT_S))
        # Meanwhile another call may have dropped the channel, or a renewal retired it: nothing is awaited
        # between here and the call.
        channel = channel_to(pool, target, endpoint)
        began = False
        try:
            async with aclosing(ask(channel, step.metadata())) as answers:
                async for answer in answers:
                    began = True
                    yield answer
        except grpc.RpcError as error:
            failure = from_rpc_error(error, began=began)
            if failure.reason in (Reason.UNREACHABLE, Reason.NODE_LOST):
                pool.drop(endpoint)
            if failure.reason is Reason.CANCELLED:
                # Not by this side, which would have closed the iterator: the node is going down.
                failure = MeshError(Reason.NODE_LOST, "the node cancelled the call")
            raise failure from None
        except TimeoutError:
            pool.drop(endpoint)
            raise MeshError(Reason.NODE_LOST, silent) from None
