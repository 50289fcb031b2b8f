"""Everything that stands between a caller and the engine, in this order:

1. identity: who is on the connection, not expired, not revoked, a client;
2. form: the limits of inference.proto, a well-formed context;
3. the permit, and then the node's own decision from its own records (I2, I3, I4). Both are always
   looked at and recorded; if both refuse, the permit's reason is given;
4. room: an engine that answers, a slot, a bounded wait;
5. evidence: the decision is on disk (I7).

Only then does the payload go anywhere. Refusals are recorded as well. While a call waits or runs it is
registered, so that it can be cut off (node/oversight.py); the cut becomes its error here.

Nothing here logs, keeps or quotes a payload (I1).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from mesh import codec
from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.types import TASK_OF, Action, Model, Principal, RequestContext, SpiffeId
from mesh.evidence import DecisionLog, context_entry, decision_entry
from mesh.identity.peer import Peer, peer_of
from mesh.identity.source import SvidSource
from mesh.rpc.callers import CLIENT, refuse_revoked
from mesh.rpc.pace import asker_of
from mesh.rpc.placement_service import View
from node.admission import Admission
from node.api.requests import AnyRequest, action_of, check_size
from node.engine.base import Engine, EngineState
from node.live_calls import LiveCall, LiveCalls
from node.permit_check import PermitCheck, Presented

_R = TypeVar("_R", bound=AnyRequest)
_P = TypeVar("_P")
_T = TypeVar("_T")

_ENGINE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may reach the engine. Only Reception makes one."""

    decision_id: str
    model: Model
    call: LiveCall


@dataclass(slots=True)
class _Asked:
    """A request on its way through, and what the decision log will say of it."""

    peer: Peer
    action: Action
    context: RequestContext
    presented: Presented
    decision: Decision
    model: Model


class Reception:
    """Receives inference requests for one node. `clock` is Unix seconds."""

    def __init__(
        self,
        *,
        view: View,
        source: SvidSource,
        placer: Placer,
        permits: PermitCheck,
        engine: Engine,
        admission: Admission,
        live: LiveCalls,
        log: DecisionLog,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._view = view
        self._source = source
        self._placer = placer
        self._permits = permits
        self._engine = engine
        self._admission = admission
        self._live = live
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self.draining = False

    @property
    def node(self) -> SpiffeId:
        """This node."""
        return self._source.id

    async def receive(
        self,
        request: _R,
        context: grpc.aio.ServicerContext[Any, Any],
        read: Callable[[_R], _P],
        serve: Callable[[_P, Admitted], Awaitable[_T]],
    ) -> _T:
        """Lets `serve` have the payload that `read` finds in the request, or raises the refusal."""
        entry: dict[str, object] = {
            "kind": "serve",
            "id": self._new_id(),
            "at": self._clock(),
            "node": str(self.node),
        }
        try:
            peer = self._identify(context, entry)
            check_size(request)
            payload = read(request)
            asked = self._decide(request, peer, entry)
        except MeshError as refusal:
            await self._log.record({**entry, "outcome": "refused", "reason": refusal.reason.code})
            raise
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("gRPC runs every call in a task of its own")
        call = LiveCall(peer, Principal(peer.id), asked.action, asked.context, request.model, task)
        self._live.add(call)
        try:
            return await self._serve_in_turn(payload, asked, call, entry, serve)
        except asyncio.CancelledError:
            if call.cut_by is None or task.uncancel() > 0:
                raise  # the caller itself left
            with contextlib.suppress(MeshError):  # what is not permitted ends, recorded or not (I1)
                await self._log.record(
                    {"kind": "cut", "id": entry["id"], "at": self._clock(), "reason": call.cut_by.reason.code}
                )
            raise call.cut_by from None
        finally:
            self._live.remove(call)

    async def _serve_in_turn(
        self,
        payload: _P,
        asked: _Asked,
        call: LiveCall,
        entry: dict[str, object],
        serve: Callable[[_P, Admitted], Awaitable[_T]],
    ) -> _T:
        try:
            turn = await self._admission.enter(asker_of(asked.peer.id, self.node.trust_domain))
        except MeshError as refusal:
            await self._log.record({**entry, "outcome": "refused", "reason": refusal.reason.code})
            raise
        with turn:
            try:
                self._permits.use(asked.presented, self._clock())
            except MeshError as refusal:
                await self._log.record({**entry, "outcome": "refused", "reason": refusal.reason.code})
                raise
            await self._log.record({**entry, "outcome": "served", "model_digest": asked.model.digest})
            return await serve(payload, Admitted(asked.decision.id, asked.model, call))

    def _identify(self, context: grpc.aio.ServicerContext[Any, Any], entry: dict[str, object]) -> Peer:
        peer = peer_of(context, self._source.bundles, self._clock())
        entry["caller"], entry["serial"] = str(peer.id), peer.serial
        refuse_revoked(peer, self._view.snapshot)
        if peer.id.kind != CLIENT:
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, "expected a caller named /client/...")
        if self.draining:
            raise MeshError(Reason.DRAINING, "the node is draining: place anew", {}, _ENGINE_RETRY_S)
        return peer

    def _decide(self, request: AnyRequest, peer: Peer, entry: dict[str, object]) -> _Asked:
        """In one synchronous block, from one snapshot at one moment."""
        now, snapshot = self._clock(), self._view.snapshot
        action, model = action_of(request), request.model
        context = codec.context_from_pb(request.admission.context)
        entry.update(action=action, model=model, context=context_entry(context))
        objection: MeshError | None = None
        presented: Presented | None = None
        try:
            presented = self._permits.open(request.admission, snapshot, now)
            entry["permit"] = presented.entry()
            self._permits.check(
                presented, caller=peer.id, action=action, context=context, model=model, now=now
            )
        except MeshError as error:
            objection = error
        entry["permit_outcome"] = objection.reason.code if objection else "accepted"
        decision = self._judge(peer, action, context, model, now, entry)
        if presented is None or objection is not None:
            raise objection or MeshError(Reason.PERMIT_MISSING, "expected a permit from Placement.Place")
        if not decision.permitted:
            raise decision.refusal()
        return _Asked(peer, action, context, presented, decision, self._model(model, action))

    def _judge(
        self,
        peer: Peer,
        action: Action,
        context: RequestContext,
        model: str,
        now: float,
        entry: dict[str, object],
    ) -> Decision:
        decision = self._placer.judge_here(
            self._view.snapshot,
            self.node,
            principal=Principal(peer.id),
            action=action,
            context=context,
            model=model,
            now=now,
            decision_id=str(entry["id"]),
        )
        entry["decision"] = decision_entry(decision)
        return decision

    def _model(self, name: str, action: Action) -> Model:
        if self._engine.state is not EngineState.READY:
            raise MeshError(
                Reason.ENGINE_UNAVAILABLE, f"the engine is {self._engine.state}", {}, _ENGINE_RETRY_S
            )
        task = TASK_OF[action]
        for model in self._engine.models:
            if (not name or model.name == name) and task in model.tasks:
                return model
        raise MeshError(Reason.MODEL_UNKNOWN, f"no model of this name can {task.value} here")
