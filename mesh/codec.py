"""Where protobuf and domain types meet, and nowhere else.

Decoding is where hostile bytes become values: every function here either returns a well-formed value
or raises MeshError with a stable reason (I4). Bounds are those stated in protos/. Functions named
`*_from_payload` read the payload of a verified statement and raise RECORD_MALFORMED; functions named
`*_from_pb` read a request and raise the reason that the value's own constructor gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.permits import Permit
from mesh.core.placement import Decision, Offer, Ranked, Refused
from mesh.core.snapshot import Candidate, Heads, Revocations, TrustBundle
from mesh.core.types import (
    Action,
    Model,
    NodeFacts,
    NodeRecord,
    NodeStatus,
    RequestContext,
    SpiffeId,
    Task,
)
from sovereign.mesh.v1 import admin_pb2, context_pb2, envelope_pb2, placement_pb2, records_pb2

_M = TypeVar("_M", bound=Message)
_T = TypeVar("_T")

MAX_POLICY_BYTES = 128 * 1024
MAX_ENDPOINTS = 8
MAX_MODELS = 64
MAX_COLLECTIONS = 256
MAX_REVOCATIONS = 4096
MAX_BUNDLES = 256
MAX_HEADS = 4096
MAX_EXCLUDED = 64
MAX_TARGETS = 16

_ACTIONS: Mapping[int, Action] = {
    context_pb2.ACTION_INFER: Action.INFER,
    context_pb2.ACTION_EMBED: Action.EMBED,
    context_pb2.ACTION_SEARCH: Action.SEARCH,
    context_pb2.ACTION_RELEASE: Action.RELEASE,
    context_pb2.ACTION_TRANSIT: Action.TRANSIT,
    context_pb2.ACTION_EGRESS: Action.EGRESS,
}
_ACTIONS_PB = {action: number for number, action in _ACTIONS.items()}
_TASKS = {records_pb2.MODEL_TASK_GENERATE: Task.GENERATE, records_pb2.MODEL_TASK_EMBED: Task.EMBED}
_TASKS_PB = {task: number for number, task in _TASKS.items()}


def _parse(message: type[_M], payload: bytes) -> _M:
    try:
        return message.FromString(payload)
    except DecodeError:
        raise MeshError(Reason.RECORD_MALFORMED, f"expected a {message.DESCRIPTOR.name} message") from None


def _bounded(what: str, values: Iterable[_T], limit: int, least: int = 0) -> list[_T]:
    found = list(values)
    if not least <= len(found) <= limit:
        raise MeshError(Reason.RECORD_MALFORMED, f"{what}: expected {least} to {limit}")
    return found


def _as_record(build: Callable[[], _T]) -> _T:
    """Whatever a value's constructor objects to, in a record it means: malformed."""
    try:
        return build()
    except MeshError as error:
        raise MeshError(Reason.RECORD_MALFORMED, error.message) from None


def _endpoint(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or len(text) > 261 or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise MeshError(Reason.RECORD_MALFORMED, "endpoint: expected host:port")
    if any(c.isspace() or not c.isprintable() or c in "/,@" for c in host):
        raise MeshError(Reason.RECORD_MALFORMED, "endpoint: expected host:port")
    return text


# --- request context and action ---------------------------------------------------------------


def context_from_pb(message: context_pb2.RequestContext) -> RequestContext:
    """Reads a request's statement about itself."""
    return RequestContext.of(
        message.data_classes,
        message.purpose,
        transfer_basis=message.transfer_basis,
        tenant=message.tenant,
        allowed_jurisdictions=message.narrowing.allowed_jurisdictions,
        required_assurances=message.narrowing.required_assurances,
    )


def context_to_pb(context: RequestContext) -> context_pb2.RequestContext:
    """Writes it."""
    return context_pb2.RequestContext(
        data_classes=sorted(context.data_classes),
        purpose=context.purpose,
        transfer_basis=context.transfer_basis,
        tenant=context.tenant,
        narrowing=context_pb2.Narrowing(
            allowed_jurisdictions=sorted(context.narrowing.allowed_jurisdictions),
            required_assurances=sorted(context.narrowing.required_assurances),
        ),
    )


def action_from_pb(number: int) -> Action:
    """Reads an action; unset or unknown is refused (I4)."""
    if number not in _ACTIONS:
        raise MeshError(Reason.REQUEST_INVALID, "action: expected one of " + ", ".join(Action))
    return _ACTIONS[number]


def action_to_pb(action: Action) -> context_pb2.Action:
    """Writes it."""
    return context_pb2.Action.ValueType(_ACTIONS_PB[action])


# --- records -----------------------------------------------------------------------------------


def policy_from_payload(payload: bytes) -> str:
    """The Cedar text of a PolicyRecord; whether it parses is for mesh/core/policy.py to say."""
    text = _parse(records_pb2.PolicyRecord, payload).cedar
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise MeshError(Reason.POLICY_TOO_LARGE, f"expected at most {MAX_POLICY_BYTES} bytes of Cedar")
    return text


def policy_to_payload(cedar: str) -> bytes:
    """Writes it."""
    return records_pb2.PolicyRecord(cedar=cedar).SerializeToString()


def facts_from_pb(message: records_pb2.NodeFacts) -> NodeFacts:
    """Reads what an authority states about a node."""
    if len(message.dns_name) > 253:
        raise MeshError(Reason.RECORD_MALFORMED, "dns name: expected at most 253 characters")
    return NodeFacts(
        location=message.location,
        operator_domicile=message.operator_domicile,
        controller=message.controller,
        admin_access=frozenset(_bounded("admin access", message.admin_access, 32, 1)),
        assurances=frozenset(message.assurances),
        cordoned=message.cordoned,
        dns_name=message.dns_name,
    )


def facts_to_pb(facts: NodeFacts) -> records_pb2.NodeFacts:
    """Writes it."""
    return records_pb2.NodeFacts(
        location=facts.location,
        operator_domicile=facts.operator_domicile,
        controller=facts.controller,
        admin_access=sorted(facts.admin_access),
        assurances=sorted(facts.assurances),
        cordoned=facts.cordoned,
        dns_name=facts.dns_name,
    )


def facts_from_payload(payload: bytes) -> NodeFacts:
    """Reads a NodeFacts record."""
    message = _parse(records_pb2.NodeFacts, payload)
    return _as_record(lambda: facts_from_pb(message))


def facts_to_payload(facts: NodeFacts) -> bytes:
    """Writes it."""
    return facts_to_pb(facts).SerializeToString()


def model_from_pb(message: records_pb2.Model) -> Model:
    """Reads a model."""
    if len(message.digest) > 80:
        raise MeshError(Reason.RECORD_MALFORMED, "model digest: expected sha256:<hex>")
    tasks = frozenset(_TASKS[t] for t in message.tasks if t in _TASKS)
    return Model(message.name, message.digest, message.context_tokens, tasks)


def model_to_pb(model: Model) -> records_pb2.Model:
    """Writes it."""
    return records_pb2.Model(
        name=model.name,
        digest=model.digest,
        context_tokens=model.context_tokens,
        tasks=[records_pb2.ModelTask.ValueType(_TASKS_PB[t]) for t in sorted(model.tasks)],
    )


def _node_record_from_pb(message: records_pb2.NodeRecord) -> NodeRecord:
    return NodeRecord(
        endpoints=tuple(_endpoint(e) for e in _bounded("endpoints", message.endpoints, MAX_ENDPOINTS, 1)),
        models=tuple(model_from_pb(m) for m in _bounded("models", message.models, MAX_MODELS)),
        collections=tuple(_bounded("collections", message.collections, MAX_COLLECTIONS)),
        software_version=message.software_version[:64],
    )


def node_record_to_pb(record: NodeRecord) -> records_pb2.NodeRecord:
    """Writes what a node states about itself."""
    return records_pb2.NodeRecord(
        endpoints=record.endpoints,
        models=[model_to_pb(m) for m in record.models],
        collections=record.collections,
        software_version=record.software_version,
    )


def node_record_from_payload(payload: bytes) -> NodeRecord:
    """Reads a NodeRecord."""
    message = _parse(records_pb2.NodeRecord, payload)
    return _as_record(lambda: _node_record_from_pb(message))


def node_record_to_payload(record: NodeRecord) -> bytes:
    """Writes it."""
    return node_record_to_pb(record).SerializeToString()


def status_from_payload(payload: bytes, reported_at: float) -> NodeStatus:
    """Reads a NodeStatus; `reported_at` is the statement's not-before, Unix seconds."""
    message = _parse(records_pb2.NodeStatus, payload)
    return NodeStatus(
        message.ready, message.in_flight, message.queued, message.capacity, message.draining, reported_at
    )


def status_to_pb(status: NodeStatus) -> records_pb2.NodeStatus:
    """Writes it; the time travels in the statement."""
    return records_pb2.NodeStatus(
        ready=status.ready,
        in_flight=status.in_flight,
        queued=status.queued,
        capacity=status.capacity,
        draining=status.draining,
    )


def status_to_payload(status: NodeStatus) -> bytes:
    """Writes it."""
    return status_to_pb(status).SerializeToString()


def revocations_from_payload(payload: bytes, trust_domain: str) -> Revocations:
    """Reads a RevocationList. An authority can revoke its own names only."""
    message = _parse(records_pb2.RevocationList, payload)
    texts = _bounded("spiffe ids", message.spiffe_ids, MAX_REVOCATIONS)
    ids = _as_record(lambda: frozenset(SpiffeId.parse(text) for text in texts))
    if any(identity.trust_domain != trust_domain for identity in ids):
        raise MeshError(Reason.RECORD_MALFORMED, f"revocations: expected names of {trust_domain} only")
    serials = _bounded("serials", message.serials, MAX_REVOCATIONS)
    if any(len(s) > 40 or not s or set(s) - set("0123456789abcdef") for s in serials):
        raise MeshError(Reason.RECORD_MALFORMED, "serials: expected lower-case hex")
    return Revocations(ids, frozenset(serials))


def revocations_to_payload(revocations: Revocations) -> bytes:
    """Writes it."""
    return records_pb2.RevocationList(
        spiffe_ids=sorted(str(i) for i in revocations.ids), serials=sorted(revocations.serials)
    ).SerializeToString()


def bundle_from_pb(message: records_pb2.TrustBundle) -> TrustBundle:
    """Reads the shape of a bundle; whether its roots are sound is for mesh/identity to say."""
    SpiffeId(message.trust_domain, "/authority")  # validates the name
    roots = tuple(_bounded("roots", message.roots, 4, 1))
    if any(not 0 < len(root) <= 8192 for root in roots):
        raise MeshError(Reason.RECORD_MALFORMED, "root: expected a DER certificate of at most 8 KiB")
    return TrustBundle(message.trust_domain, roots, message.sequence)


def bundle_to_pb(bundle: TrustBundle) -> records_pb2.TrustBundle:
    """Writes it."""
    return records_pb2.TrustBundle(
        trust_domain=bundle.trust_domain, roots=bundle.roots, sequence=bundle.sequence
    )


def federation_from_payload(payload: bytes) -> tuple[TrustBundle, ...]:
    """Reads a FederationRecord; each trust domain at most once."""
    message = _parse(records_pb2.FederationRecord, payload)
    found = _bounded("bundles", message.bundles, MAX_BUNDLES)
    bundles = _as_record(lambda: tuple(bundle_from_pb(b) for b in found))
    if len({b.trust_domain for b in bundles}) != len(bundles):
        raise MeshError(Reason.RECORD_MALFORMED, "bundles: expected each trust domain once")
    return bundles


def federation_to_payload(bundles: Iterable[TrustBundle]) -> bytes:
    """Writes it."""
    ordered = sorted(bundles, key=lambda b: b.trust_domain)
    return records_pb2.FederationRecord(bundles=[bundle_to_pb(b) for b in ordered]).SerializeToString()


def groups_from_payload(payload: bytes) -> Groups:
    """Reads a GroupsRecord."""
    text = _parse(records_pb2.GroupsRecord, payload).json
    return _as_record(lambda: Groups.from_json(text))


def groups_to_payload(groups: Groups) -> bytes:
    """Writes it."""
    return records_pb2.GroupsRecord(json=groups.to_json()).SerializeToString()


def heads_from_payload(payload: bytes, signed_at: float) -> Heads:
    """Reads Heads; `signed_at` is the statement's not-before, Unix seconds."""
    message = _parse(records_pb2.Heads, payload)
    if len(message.generations) > MAX_HEADS or not 0 < message.max_age_ms <= 30 * 86_400_000:
        raise MeshError(Reason.RECORD_MALFORMED, "heads: expected a maximum age of up to 30 days")
    return Heads(signed_at, message.max_age_ms / 1000, dict(message.generations))


def heads_to_payload(heads: Heads) -> bytes:
    """Writes it; `signed_at` travels in the statement."""
    return records_pb2.Heads(
        generations=dict(heads.generations), max_age_ms=round(heads.max_age_s * 1000)
    ).SerializeToString()


# --- placement ---------------------------------------------------------------------------------


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
    return _parse(envelope_pb2.Envelope, data)


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
                node=str(r.node), reason=r.reason.code, detail=r.detail, policies=r.policies, location=r.location
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


def decision_from_pb(message: placement_pb2.Decision) -> Decision:
    """Reads a decision that somebody else took; raises REQUEST_INVALID if it makes no sense."""
    try:
        return Decision(
            id=message.id[:64],
            permitted=message.permitted,
            ranked=tuple(
                Ranked(SpiffeId.parse(r.node), r.score, r.location[:2], tuple(r.permitted_by))
                for r in message.ranked[:MAX_TARGETS]
            ),
            refused=tuple(
                Refused(SpiffeId.parse(r.node), Reason[r.reason], r.detail[:512], tuple(r.policies), r.location[:2])
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
        raise MeshError(Reason.REQUEST_INVALID, "expected a decision with known reasons and SPIFFE ids") from None


def offers_from_pb(targets: Iterable[placement_pb2.Target]) -> tuple[Offer, ...]:
    """Reads where a placer says one may send; mesh/core/placement.py decides whether to believe it."""
    found = list(targets)
    if len(found) > MAX_TARGETS:
        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_TARGETS} targets")
    try:
        return tuple(
            Offer(
                node=SpiffeId.parse(t.node),
                endpoints=tuple(_endpoint(e) for e in _bounded("endpoints", t.endpoints, MAX_ENDPOINTS, 1)),
                dns_name=t.dns_name,
                permit=t.permit.SerializeToString(),
                model_digest=t.model_digest,
            )
            for t in found
        )
    except MeshError as error:
        raise MeshError(Reason.REQUEST_INVALID, error.message) from None


def target_to_pb(candidate: Candidate, permit: bytes, model_digest: str) -> placement_pb2.Target:
    """Writes one place to send to."""
    return placement_pb2.Target(
        node=str(candidate.id),
        endpoints=candidate.record.endpoints,
        dns_name=candidate.facts.dns_name,
        permit=envelope_from_bytes(permit),
        model_digest=model_digest,
    )


def excluded_from_pb(ids: Iterable[str]) -> frozenset[SpiffeId]:
    """Reads the nodes to leave out."""
    found = list(ids)
    if len(found) > MAX_EXCLUDED:
        raise MeshError(Reason.REQUEST_INVALID, f"expected at most {MAX_EXCLUDED} excluded nodes")
    return frozenset(SpiffeId.parse(text) for text in found)


# --- administration ----------------------------------------------------------------------------


def node_view_to_pb(
    node: SpiffeId,
    facts: NodeFacts,
    record: NodeRecord | None,
    status: NodeStatus | None,
    fresh: bool,
) -> admin_pb2.NodeView:
    """Writes what is known of a node."""
    view = admin_pb2.NodeView(node=str(node), facts=facts_to_pb(facts), fresh=fresh)
    if record is not None:
        view.record.CopyFrom(node_record_to_pb(record))
    if status is not None:
        view.status.CopyFrom(status_to_pb(status))
        view.status_at_ms = round(status.reported_at * 1000)
    return view
