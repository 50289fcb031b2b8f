"""Placement.Place, as nodes and control planes serve it alike, from the same pure code.

Metadata only (I2, I6). A refusal is an answer. Permits are signed, one for each of the best candidates,
only after the decision is on record (I7). Who places whom is for mesh/core/placement.py to say: a
foreign caller gets candidates of this authority only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import grpc

from mesh import codec
from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import MAX_PERMITS
from mesh.core.placement import Placer
from mesh.core.reservations import Reservations
from mesh.core.snapshot import Snapshot
from mesh.core.types import TASK_OF, Action, NodeStatus, Principal, RequestContext, SpiffeId
from mesh.evidence import DecisionLog, context_entry, decision_entry
from mesh.identity.names import dns_name_of
from mesh.identity.source import SvidSource
from mesh.rpc.callers import ADMIN, CLIENT, caller_of
from mesh.rpc.pace import Pace, asker_of
from mesh.rpc.permit_writer import PermitWriter
from mesh.telemetry.base import SILENT, PlacementObserver
from sovereign.mesh.v1 import placement_pb2, placement_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Placement"
MAX_REQUEST_BYTES = 64 * 1024
MAX_MODEL_CHARS = 128


class View(Protocol):
    """The part of mesh/board.py that placement looks at."""

    @property
    def snapshot(self) -> Snapshot:
        """The latest one."""
        ...

    @property
    def statuses(self) -> Mapping[SpiffeId, NodeStatus]:
        """What nodes last said."""
        ...


class PlacementService(placement_pb2_grpc.PlacementServicer):
    """Answers callers of any accepted trust domain. `clock` is Unix seconds, `monotonic` times answers, and
    the `observer` is told of them."""

    def __init__(
        self,
        view: View,
        source: SvidSource,
        placer: Placer,
        log: DecisionLog,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        new_id: Callable[[], str],
        observer: PlacementObserver = SILENT,
    ) -> None:
        self._observer = observer
        self._view = view
        self._source = source
        self._placer = placer
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._new_id = new_id
        self._pace = Pace()
        self._permits = PermitWriter(source, new_id)
        self._reservations = Reservations()

    async def Place(
        self, request: placement_pb2.PlaceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> placement_pb2.PlaceResponse:
        """Decides where a request may go; see placement.proto."""
        now = self._clock()
        snapshot = self._view.snapshot
        peer = caller_of(context, self._source.bundles, snapshot, now, (CLIENT, ADMIN))
        if peer.id.kind == ADMIN and peer.id.trust_domain != self._source.id.trust_domain:
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, "administrators ask their own authority's placers")
        asker, began = asker_of(peer.id, self._source.id.trust_domain), self._monotonic()
        # Not recorded: nothing was decided, and a flood must not fill the disk that decisions need (I7).
        self._pace.require(asker, began)
        action: Action | None = None
        asked = {"kind": "place", "at": now, "caller": str(peer.id), "serial": peer.serial}
        try:
            question = _read(request)
            action = question.action
            deciding = self._monotonic()
            decision = self._placer.place(
                snapshot,
                self._view.statuses,
                principal=Principal(peer.id),
                action=question.action,
                context=question.context,
                model=question.model,
                excluded=question.excluded,
                placer=self._source.id,
                now=now,
                decision_id=self._new_id(),
                reservations=self._reservations,
                explain=request.explain,
            )
            self._observer.placed(action, decision, self._monotonic() - deciding)
        except MeshError as refusal:
            self._spend(asker, began)
            self._observer.not_placed(action, refusal)
            await self._log.record({**asked, "refused": refusal.reason.code})
            raise
        self._spend(asker, began)
        await self._log.record({**asked, **question.entry(), "decision": decision_entry(decision)})
        began = self._monotonic()
        shown = self._shown_to(peer.id, decision)
        response = placement_pb2.PlaceResponse(decision=codec.decision_to_pb(shown))
        if peer.id.kind == CLIENT:  # administrators ask in order to know, not to send
            response.targets.extend(self._targets(snapshot, shown, peer.id, question))
        self._spend(asker, began)
        return response

    def _spend(self, asker: str, began: float) -> None:
        now = self._monotonic()
        self._pace.spend(asker, now - began, now)

    def _shown_to(self, caller: SpiffeId, decision: Decision) -> Decision:
        """A foreign caller learns of the nodes of this authority and of its own; third parties' are not
        this authority's to tell."""
        home = self._source.id.trust_domain
        if caller.trust_domain == home:
            return decision
        concerned = {caller.trust_domain, home}
        refused = tuple(each for each in decision.refused if each.node.trust_domain in concerned)
        digests = {td: digest for td, digest in decision.policy_digests.items() if td in concerned}
        return replace(decision, refused=refused, policy_digests=digests)

    def _targets(
        self, snapshot: Snapshot, decision: Decision, caller: SpiffeId, question: _Question
    ) -> list[placement_pb2.Target]:
        targets = []
        for ranked in decision.ranked[:MAX_PERMITS]:
            candidate = snapshot.candidates[ranked.node]
            envelope = self._permits.write(
                decision,
                ranked.node,
                caller=caller,
                action=question.action,
                context=question.context,
                model=question.model,
            )
            served = None  # a search names a collection, and a model may have the same name
            if question.action is not Action.SEARCH:
                served = candidate.record.serves(question.model, TASK_OF.get(question.action))
            # Not the name that its authority states: a wrong one would make callers refuse the whole
            # answer, and so let one authority spoil the others' placements.
            name = dns_name_of(candidate.id)
            targets.append(codec.target_to_pb(candidate, name, envelope, served.digest if served else ""))
        return targets


@dataclass(frozen=True, slots=True)
class _Question:
    """A PlaceRequest, read."""

    context: RequestContext
    action: Action
    model: str
    excluded: frozenset[SpiffeId]

    def entry(self) -> dict[str, object]:
        """As the decision log keeps it."""
        return {
            "action": self.action,
            "model": self.model,
            "excluded": sorted(str(node) for node in self.excluded),
            "context": context_entry(self.context),
        }


def _read(request: placement_pb2.PlaceRequest) -> _Question:
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise MeshError(Reason.REQUEST_TOO_LARGE, f"a request has at most {MAX_REQUEST_BYTES} bytes")
    if len(request.model) > MAX_MODEL_CHARS:
        raise MeshError(Reason.REQUEST_INVALID, f"model: expected at most {MAX_MODEL_CHARS} characters")
    return _Question(
        codec.context_from_pb(request.context),
        codec.action_from_pb(request.action),
        request.model,
        codec.excluded_from_pb(request.excluded_nodes),
    )
