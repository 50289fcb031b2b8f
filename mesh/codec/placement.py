"""Permits, decisions and targets, from and to protobuf; and what is known of a node."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from mesh.codec.context import action_from_pb, action_to_pb
from mesh.codec.records import facts_to_pb, node_record_to_pb, status_to_pb
from mesh.codec.wire import MAX_ENDPOINTS, bounded, endpoint, parse
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import Permit
from mesh.core.placement import Decision, Offer, Ranked, Refused
from mesh.core.snapshot import Candidate
from mesh.core.types import NodeFacts, NodeRecord, NodeStatus, SpiffeId
from sovereign.mesh.v1 import admin_pb2, envelope_pb2, placement_pb2

MAX_EXCLUDED = 64
MAX_TARGETS = 16


def permit_from_payload(payload: bytes) -> Permit:
    """Reads a Permit; raises PERMIT_MALFORMED."""
    try:
        message = placement_pb2.Permit.FromString(payload)
        return Permit(
            decision_id=message.decision_id[:64],
            caller=SpiffeId.parse(message.caller),
            node=SpiffeId.parse(message.node),
            action=action_from_pb(message.action),
            context_digest=message.context_digest,
            model=message.model,
            policy_digests=dict(message.policy_digests),
        )
    except (DecodeError, MeshError):
        raise MeshError(Reason.PERMIT_MALFORMED, "expected a permit from Placement.Place") from None


def permit_to_payload(permit: Permit) -> bytes:
    """Writes it."""
    return placement_pb2.Permit(
        decision_id=permit.decision_id,
        caller=str(permit.caller),
        node=str(permit.node),
        action=action_to_pb(permit.action),
        context_digest=permit.context_digest,
        model=permit.model,
        policy_digests=dict(permit.policy_digests),
    ).SerializeToString()


def envelope_from_bytes(data: bytes) -> envelope_pb2.Envelope:
    """Parses an envelope without believing it, for messages that carry one."""
    return parse(envelope_pb2.Envelope, data)


def decision_to_pb(decision: Decision) -> placement_pb2.Decision:
    """Writes a decision."""
    return placement_pb2.Decision(
        id=decision.id,
        permitted=decision.permitted,
        chosen=str(decision.chosen) if decision.chosen else "",
        ranked=[
            placement_pb2.RankedCandidate(
                node=str(r.node), score=r.score, location=r.location, permitted_by=r.permitted_by
            )
            for r in decision.ranked
        ],
        refused=[
            placement_pb2.Refusal(
                node=str(r.node),
                reason=r.reason.code,
                detail=r.detail,
                policies=r.policies,
                location=r.location,
            )
            for r in decision.refused
        ],
        refused_total=decision.refused_total,
        considered=decision.considered,
        policy_digests=dict(decision.policy_digests),
        snapshot_version=decision.snapshot_version,
        decided_at_ms=round(decision.decided_at * 1000),
        expires_at_ms=round(decision.expires_at * 1000),
        decided_by=str(decision.decided_by),
    )


def decision_from_pb(message: placement_pb2.Decision, *, ranked: int = MAX_TARGETS) -> Decision:
    """Reads a decision that somebody else took, up to `ranked` permitted nodes of it.

    Raises REQUEST_INVALID if it makes no sense.
    """
    try:
        return Decision(
            id=message.id[:64],
            permitted=message.permitted,
            ranked=tuple(
                Ranked(SpiffeId.parse(r.node), r.score, r.location[:2], tuple(r.permitted_by))
                for r in message.ranked[:ranked]
            ),
            refused=tuple(
                Refused(
                    SpiffeId.parse(r.node),
                    Reason[r.reason],
                    r.detail[:512],
                    tuple(r.policies),
                    r.location[:2],
                )
                for r in message.refused[:1000]
            ),
            refused_total=message.refused_total,
            considered=message.considered,
            policy_digests=dict(message.policy_digests),
            snapshot_version=message.snapshot_version,
            decided_at=message.decided_at_ms / 1000,
            expires_at=message.expires_at_ms / 1000,
            decided_by=SpiffeId.parse(message.decided_by),
        )
    except (KeyError, MeshError):
        raise MeshError(
            Reason.REQUEST_INVALID, "expected a decision with known reasons and SPIFFE ids"
        ) from None


def offers_from_pb(targets: Iterable[placement_pb2.Target]) -> tuple[Offer, ...]:
    """Reads where a placer says one may send; mesh/core/placement.py decides whether to believe it."""
    found = list(targets)
    if len(found) > MAX_TARGETS:
        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_TARGETS} targets")
    try:
        return tuple(
            Offer(
                node=SpiffeId.parse(t.node),
                endpoints=tuple(endpoint(e) for e in bounded("endpoints", t.endpoints, MAX_ENDPOINTS, 1)),
                dns_name=t.dns_name,
                permit=t.permit.SerializeToString(),
                model_digest=t.model_digest,
            )
            for t in found
        )
    except MeshError as error:
        raise MeshError(Reason.REQUEST_INVALID, error.message) from None


def target_to_pb(
    candidate: Candidate, dns_name: str, permit: bytes, model_digest: str
) -> placement_pb2.Target:
    """Writes one place to send to. `dns_name` is the one that belongs to the node's SPIFFE id."""
    return placement_pb2.Target(
        node=str(candidate.id),
        endpoints=candidate.record.endpoints,
        dns_name=dns_name,
        permit=envelope_from_bytes(permit),
        model_digest=model_digest,
    )


def excluded_from_pb(ids: Iterable[str]) -> frozenset[SpiffeId]:
    """Reads the nodes to leave out."""
    found = list(ids)
    if len(found) > MAX_EXCLUDED:
        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_EXCLUDED} excluded nodes")
    return frozenset(SpiffeId.parse(text) for text in found)


def node_view_to_pb(
    node: SpiffeId,
    facts: NodeFacts,
    record: NodeRecord | None,
    status: NodeStatus | None,
    fresh: bool,
    heads_at: float = 0.0,
    certificate_not_after: float = 0.0,
) -> admin_pb2.NodeView:
    """Writes what is known of a node; times are Unix seconds, 0 where there is none."""
    view = admin_pb2.NodeView(
        node=str(node),
        facts=facts_to_pb(facts),
        fresh=fresh,
        heads_at_ms=round(heads_at * 1000),
        certificate_not_after_ms=round(certificate_not_after * 1000),
    )
    if record is not None:
        view.record.CopyFrom(node_record_to_pb(record))
    if status is not None:
        view.status.CopyFrom(status_to_pb(status))
        view.status_at_ms = round(status.reported_at * 1000)
    return view
