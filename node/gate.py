"""What everything that serves callers shares: who is it, may it, and what the log will say of it.

    entry = gate.begin("shard")                      # the evidence of this call
    try:
        peer = gate.identify(context, entry, {NODE})    # IDENTITY_*, DRAINING
        asked = gate.decide(peer, requester, request.admission, Action.SEARCH, collection, entry)
    except MeshError as refusal:
        await gate.refuse(entry, refusal)            # recorded, too
        raise
    async with gate.watch(asked, entry) as call:     # from here on the call can be cut off
        gate.spend(asked)                            # PERMIT_REPLAYED
        await gate.record({**entry, "outcome": "served"})
        await gate.send(context, call, answer)       # an answer nobody takes is cut off as well

The order matters: `decide` looks at the permit and at the node's own records at one moment, and always
at both, so that the evidence holds both (I2, I7); if both refuse, the permit's reason is given. Nothing
of the payload is read here, and nothing may be answered before `record` has returned (I7).

A permission may end while its call runs. Then the call's task is cancelled, and `watch` turns that into
the error that ended it (I1). This works only where the task that is cancelled runs inside `watch`: so a
servicer that streams answers by `send`, and not by yielding.

It knows nothing of engines, queues or indexes: reception.py and retrieval/ do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from mesh import codec
from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Placer
from mesh.core.snapshot import Snapshot, TrustBundle
from mesh.core.types import Action, Principal, RequestContext, SpiffeId
from mesh.evidence import DecisionLog, context_entry, decision_entry
from mesh.identity.peer import Peer, peer_of
from mesh.identity.source import SvidSource
from mesh.rpc.callers import CLIENT, refuse_revoked
from mesh.rpc.placement_service import View
from mesh.telemetry.base import SILENT, NodeObserver
from node.live_calls import LiveCall, LiveCalls
from node.permit_check import PermitCheck, Presented
from sovereign.mesh.v1 import inference_pb2

Entry = dict[str, object]

_DRAINING_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was permitted. `subject` is a model's name, or a collection's. Only Gate makes one.

    `principal` is who it is for: the peer itself, or the client on whose behalf a peer node asks.
    """

    peer: Peer
    principal: Principal
    action: Action
    context: RequestContext
    subject: str
    presented: Presented
    decision: Decision


class Gate:
    """Of one node. `clock` is Unix seconds, `monotonic` that of LiveCall.writing_since. The `observer` is
    told what is let in."""

    def __init__(
        self,
        *,
        view: View,
        source: SvidSource,
        placer: Placer,
        permits: PermitCheck,
        live: LiveCalls,
        log: DecisionLog,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
        observer: NodeObserver = SILENT,
    ) -> None:
        self.observer = observer
        self._view = view
        self._source = source
        self._placer = placer
        self._permits = permits
        self._live = live
        self._log = log
        self.monotonic = monotonic
        self._new_id = new_id
        self.clock = clock
        self.draining = False

    @property
    def node(self) -> SpiffeId:
        """This node."""
        return self._source.id

    @property
    def snapshot(self) -> Snapshot:
        """The node's newest records."""
        return self._view.snapshot

    @property
    def bundles(self) -> Mapping[str, TrustBundle]:
        """Whose certificates are accepted now."""
        return self._source.bundles

    def begin(self, kind: str) -> Entry:
        """The evidence of one call, to be filled in."""
        return {"kind": kind, "id": self._new_id(), "at": self.clock(), "node": str(self.node)}

    def identify(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        entry: Entry,
        kinds: Collection[str] = (CLIENT,),
    ) -> Peer:
        """Who is on the connection; raises IDENTITY_* unless current, not revoked and of one of the kinds.

        DRAINING, with a hint, while the node takes nothing new.
        """
        peer = peer_of(context, self._source.bundles, self.clock())
        entry["caller"], entry["serial"] = str(peer.id), peer.serial
        refuse_revoked(peer, self.snapshot)
        if peer.id.kind not in kinds:
            expected = " or ".join(f"/{kind}/..." for kind in kinds)
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, f"expected a caller named {expected}")
        if self.draining:
            raise MeshError(Reason.DRAINING, "the node is draining: place anew", {}, _DRAINING_RETRY_S)
        return peer

    def decide(
        self,
        peer: Peer,
        principal_id: SpiffeId,
        admission: inference_pb2.Admission,
        action: Action,
        subject: str,
        entry: Entry,
    ) -> Asked:
        """In one synchronous block, from one snapshot at one moment. Raises the refusal.

        The permit must be bound to `principal_id`; whether `peer` may speak for it, the servicer checks.
        """
        now, snapshot = self.clock(), self.snapshot
        context = codec.context_from_pb(admission.context)
        entry.update(action=action, model=subject, context=context_entry(context))
        if peer.id in snapshot.candidates:  # where a flow begins that another node sends
            entry["caller_location"] = snapshot.candidates[peer.id].facts.location
        objection: MeshError | None = None
        presented: Presented | None = None
        try:
            presented = self._permits.open(admission, snapshot, now)
            entry["permit"] = presented.entry()
            self._permits.check(
                presented, caller=principal_id, action=action, context=context, model=subject, now=now
            )
        except MeshError as error:
            objection = error
        entry["permit_outcome"] = objection.reason.code if objection else "accepted"
        principal = Principal(principal_id)
        decision = self.judge(snapshot, principal, action, context, subject, now, entry)
        if presented is not None and objection is None and decision.permitted:
            self.observer.judged(action, None)
            return Asked(peer, principal, action, context, subject, presented, decision)
        if presented is None:
            objection = objection or MeshError(
                Reason.PERMIT_MISSING, "expected a permit from Placement.Place"
            )
        refusal = objection or decision.refusal()
        self.observer.judged(action, refusal.reason)
        raise refusal

    def judge(
        self,
        snapshot: Snapshot,
        principal: Principal,
        action: Action,
        context: RequestContext,
        subject: str,
        now: float,
        entry: Entry,
    ) -> Decision:
        """The node's own decision from its own records, kept in the entry (I2)."""
        decision = self._placer.judge_here(
            snapshot,
            self.node,
            principal=principal,
            action=action,
            context=context,
            model=subject,
            now=now,
            decision_id=str(entry["id"]),
        )
        entry["decision"] = decision_entry(decision)
        return decision

    def spend(self, asked: Asked) -> None:
        """Uses the permit up, when the request has its turn; PERMIT_REPLAYED the second time."""
        self._permits.use(asked.presented, self.clock())

    async def record(self, entry: Entry) -> None:
        """Returns once the entry is durable; EVIDENCE_UNAVAILABLE if it is not (I7)."""
        await self._log.record(entry)
        self.observer.recorded(entry)

    async def refuse(self, entry: Entry, refusal: MeshError) -> None:
        """Records that it was refused, and why."""
        await self._log.record({**entry, "outcome": "refused", "reason": refusal.reason.code})

    @contextlib.asynccontextmanager
    async def watch(self, asked: Asked, entry: Entry) -> AsyncIterator[LiveCall]:
        """Registers the call of the current task, so that node/oversight.py can cut it off.

        A cut is recorded and becomes the error that it was cut by.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("gRPC runs every call in a task of its own")
        call = LiveCall(asked.peer, asked.principal, asked.action, asked.context, asked.subject, task)
        self._live.add(call)
        try:
            yield call
        except asyncio.CancelledError:
            if call.cut_by is None or task.uncancel() > 0:
                raise  # the caller itself left
            with contextlib.suppress(MeshError):  # what is not permitted ends, recorded or not (I1)
                await self._log.record(
                    {"kind": "cut", "id": entry["id"], "at": self.clock(), "reason": call.cut_by.reason.code}
                )
            raise call.cut_by from None
        finally:
            self._live.remove(call)

    async def send(
        self, context: grpc.aio.ServicerContext[Any, Any], call: LiveCall, message: object
    ) -> None:
        """Writes one message of a stream; a caller that does not take it is cut off in time."""
        call.writing_since = self.monotonic()
        await context.write(message)
        call.writing_since = 0.0
