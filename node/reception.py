"""Everything that stands between a caller and the engine, in this order:

1. identity: who is on the connection, not expired, not revoked, a client;
2. form: the limits of inference.proto, a well-formed context;
3. the permit, and then the node's own decision from its own records (I2, I3, I4). Both are always
   looked at and recorded; if both refuse, the permit's reason is given;
4. room: an engine that answers, a slot, a bounded wait;
5. evidence: the decision is on disk (I7).

Only then does the payload go anywhere. Refusals are recorded as well. While a call waits or runs it is
registered, so that it can be cut off (node/oversight.py). What does not concern engines and queues is
node/gate.py's.

Nothing here logs, keeps or quotes a payload (I1).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from mesh.core.errors import MeshError, Reason
from mesh.core.types import TASK_OF, Action, Model, SpiffeId
from mesh.rpc.pace import asker_of
from node.admission import Admission
from node.api.requests import AnyRequest, action_of, check_size
from node.engine.base import Engine, EngineState
from node.gate import Asked, Entry, Gate
from node.live_calls import LiveCall

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


class Reception:
    """Receives inference requests for one node."""

    def __init__(self, gate: Gate, engine: Engine, admission: Admission) -> None:
        self._gate = gate
        self._engine = engine
        self._admission = admission

    @property
    def node(self) -> SpiffeId:
        """This node."""
        return self._gate.node

    async def receive(
        self,
        request: _R,
        context: grpc.aio.ServicerContext[Any, Any],
        read: Callable[[_R], _P],
        serve: Callable[[_P, Admitted], Awaitable[_T]],
    ) -> _T:
        """Lets `serve` have the payload that `read` finds in the request, or raises the refusal."""
        entry = self._gate.begin("serve")
        try:
            peer = self._gate.identify(context, entry)
            check_size(request)
            entry["bytes"] = request.ByteSize()
            payload = read(request)
            action = action_of(request)
            asked = self._gate.decide(peer, peer.id, request.admission, action, request.model, entry)
            model = self._model(request.model, action)
        except MeshError as refusal:
            await self._gate.refuse(entry, refusal)
            raise
        async with self._gate.watch(asked, entry) as call:
            return await self._serve_in_turn(payload, asked, model, call, entry, serve)

    async def _serve_in_turn(
        self,
        payload: _P,
        asked: Asked,
        model: Model,
        call: LiveCall,
        entry: Entry,
        serve: Callable[[_P, Admitted], Awaitable[_T]],
    ) -> _T:
        began = self._gate.monotonic()
        try:
            turn = await self._admission.enter(asker_of(asked.peer.id, self.node.trust_domain))
        except MeshError as refusal:
            await self._gate.refuse(entry, refusal)
            raise
        finally:
            self._gate.observer.queued(self._gate.monotonic() - began)
        with turn:
            try:
                self._gate.spend(asked)
            except MeshError as refusal:
                await self._gate.refuse(entry, refusal)
                raise
            await self._gate.record({**entry, "outcome": "served", "model_digest": model.digest})
            return await serve(payload, Admitted(asked.decision.id, model, call))

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
