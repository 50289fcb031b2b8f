"""The payloads of records, from and to protobuf.

Functions named `*_from_payload` read the payload of a verified statement and raise RECORD_MALFORMED.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from mesh.codec.wire import MAX_ENDPOINTS, as_record, bounded, endpoint, parse
from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.notes import PUBLIC_KEY_BYTES
from mesh.core.records import MAX_KEY_BYTES, ROOT
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Heads, Revocations, TrustBundle
from mesh.core.types import HeldCollection, Model, NodeFacts, NodeRecord, NodeStatus, SpiffeId, Task
from sovereign.mesh.v1 import records_pb2

MAX_POLICY_BYTES = 128 * 1024
MAX_MODELS = 64
MAX_COLLECTIONS = 256
MAX_NAME_CHARS = 128
MAX_REVOCATIONS = 4096
MAX_BUNDLES = 256
MAX_HEADS = 4096

_TASKS_PB: Mapping[Task, records_pb2.ModelTask] = {
    Task.GENERATE: records_pb2.MODEL_TASK_GENERATE,
    Task.EMBED: records_pb2.MODEL_TASK_EMBED,
}
_TASKS = {int(number): task for task, number in _TASKS_PB.items()}


def policy_from_payload(payload: bytes) -> str:
    """The Cedar text of a PolicyRecord; whether it parses is for mesh/core/policy.py to say."""
    text = parse(records_pb2.PolicyRecord, payload).cedar
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
        admin_access=frozenset(bounded("admin access", message.admin_access, 32, 1)),
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
    message = parse(records_pb2.NodeFacts, payload)
    return as_record(lambda: facts_from_pb(message))


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
        tasks=[_TASKS_PB[t] for t in sorted(model.tasks)],
    )


def _shown(text: str) -> str:
    """A name that a foreign node gives and people are shown: short, and unable to drive a terminal."""
    if len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise MeshError(
            Reason.RECORD_MALFORMED, f"name: expected at most {MAX_NAME_CHARS} printable characters"
        )
    return text


def _node_record_from_pb(message: records_pb2.NodeRecord) -> NodeRecord:
    return NodeRecord(
        endpoints=tuple(endpoint(e) for e in bounded("endpoints", message.endpoints, MAX_ENDPOINTS, 1)),
        models=tuple(model_from_pb(m) for m in bounded("models", message.models, MAX_MODELS)),
        collections=tuple(
            HeldCollection(c.name, c.digest)
            for c in bounded("collections", message.collections, MAX_COLLECTIONS)
        ),
        software_version=_shown(message.software_version[:64]),
        log_key=_log_key("log_key", message.log_key),
        witness_key=_log_key("witness_key", message.witness_key),
    )


def _log_key(name: str, key: bytes) -> bytes:
    if len(key) not in (0, PUBLIC_KEY_BYTES):
        raise MeshError(
            Reason.RECORD_MALFORMED, f"{name}: expected an Ed25519 key of {PUBLIC_KEY_BYTES} bytes"
        )
    return key


def node_record_to_pb(record: NodeRecord) -> records_pb2.NodeRecord:
    """Writes what a node states about itself."""
    return records_pb2.NodeRecord(
        endpoints=record.endpoints,
        models=[model_to_pb(m) for m in record.models],
        collections=[
            records_pb2.HeldCollection(name=held.name, digest=held.digest) for held in record.collections
        ],
        software_version=record.software_version,
        log_key=record.log_key,
        witness_key=record.witness_key,
    )


def node_record_from_payload(payload: bytes) -> NodeRecord:
    """Reads a NodeRecord."""
    message = parse(records_pb2.NodeRecord, payload)
    return as_record(lambda: _node_record_from_pb(message))


def node_record_to_payload(record: NodeRecord) -> bytes:
    """Writes it."""
    return node_record_to_pb(record).SerializeToString()


def status_from_payload(payload: bytes, reported_at: float) -> NodeStatus:
    """Reads a NodeStatus; `reported_at` is the statement's not-before, Unix seconds."""
    message = parse(records_pb2.NodeStatus, payload)
    return NodeStatus(
        message.ready,
        message.in_flight,
        message.queued,
        message.capacity,
        message.draining,
        reported_at,
        message.running,
        message.facts_generation,
    )


def status_to_pb(status: NodeStatus) -> records_pb2.NodeStatus:
    """Writes it; the time travels in the statement."""
    return records_pb2.NodeStatus(
        ready=status.ready,
        in_flight=status.in_flight,
        queued=status.queued,
        capacity=status.capacity,
        draining=status.draining,
        running=status.running,
        facts_generation=status.facts_generation,
    )


def status_to_payload(status: NodeStatus) -> bytes:
    """Writes it."""
    return status_to_pb(status).SerializeToString()


def revocations_from_payload(payload: bytes, trust_domain: str) -> Revocations:
    """Reads a RevocationList. An authority can revoke its own names only."""
    message = parse(records_pb2.RevocationList, payload)
    texts = bounded("spiffe ids", message.spiffe_ids, MAX_REVOCATIONS)
    ids = as_record(lambda: frozenset(SpiffeId.parse(text) for text in texts))
    if any(identity.trust_domain != trust_domain for identity in ids):
        raise MeshError(Reason.RECORD_MALFORMED, f"revocations: expected names of {trust_domain} only")
    serials = bounded("serials", message.serials, MAX_REVOCATIONS)
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
    roots = tuple(bounded("roots", message.roots, 4, 1))
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
    message = parse(records_pb2.FederationRecord, payload)
    found = bounded("bundles", message.bundles, MAX_BUNDLES)
    bundles = as_record(lambda: tuple(bundle_from_pb(b) for b in found))
    if len({b.trust_domain for b in bundles}) != len(bundles):
        raise MeshError(Reason.RECORD_MALFORMED, "bundles: expected each trust domain once")
    return bundles


def federation_to_payload(bundles: Iterable[TrustBundle]) -> bytes:
    """Writes it."""
    ordered = sorted(bundles, key=lambda b: b.trust_domain)
    return records_pb2.FederationRecord(bundles=[bundle_to_pb(b) for b in ordered]).SerializeToString()


def groups_from_payload(payload: bytes) -> Groups:
    """Reads a GroupsRecord."""
    text = parse(records_pb2.GroupsRecord, payload).json
    return as_record(lambda: Groups.from_json(text))


def groups_to_payload(groups: Groups) -> bytes:
    """Writes it."""
    return records_pb2.GroupsRecord(json=groups.to_json()).SerializeToString()


def collection_from_pb(message: records_pb2.CollectionRecord) -> CollectionSpec:
    """Reads how a collection is indexed."""
    return CollectionSpec(
        name=message.name,
        embedder=message.embedder,
        embedder_digest=message.embedder_digest,
        dimensions=message.dimensions,
        analyzer=message.analyzer,
        k1=message.k1,
        b=message.b,
        average_length=message.average_length,
        chunk_tokens=message.chunk_tokens,
    )


def collection_to_pb(collection: CollectionSpec) -> records_pb2.CollectionRecord:
    """Writes it."""
    return records_pb2.CollectionRecord(**dataclasses.asdict(collection))


def collection_from_payload(payload: bytes) -> CollectionSpec:
    """Reads a CollectionRecord."""
    message = parse(records_pb2.CollectionRecord, payload)
    return as_record(lambda: collection_from_pb(message))


def collection_to_payload(collection: CollectionSpec) -> bytes:
    """Writes it."""
    return collection_to_pb(collection).SerializeToString()


def heads_from_payload(payload: bytes, signed_at: float, trust_domain: str) -> Heads:
    """Reads Heads; `signed_at` is the statement's not-before, Unix seconds.

    An authority speaks for its own keys only. Keys are quoted in refusals, once for every node that is
    refused, so they are held to the form and length of keys.
    """
    message = parse(records_pb2.Heads, payload)
    own = f"{ROOT}{trust_domain}/"
    if not all(len(k) <= MAX_KEY_BYTES and k.isascii() and k.isprintable() for k in message.generations):
        raise MeshError(
            Reason.RECORD_MALFORMED, f"heads: expected keys of at most {MAX_KEY_BYTES} characters"
        )
    if not all(key.startswith(own) for key in message.generations):
        raise MeshError(Reason.RECORD_MALFORMED, f"heads: expected keys of {trust_domain} only")
    if len(message.generations) > MAX_HEADS or not 0 < message.max_age_ms <= 30 * 86_400_000:
        raise MeshError(Reason.RECORD_MALFORMED, "heads: expected a maximum age of up to 30 days")
    return Heads(signed_at, message.max_age_ms / 1000, dict(message.generations))


def heads_to_payload(heads: Heads) -> bytes:
    """Writes it; `signed_at` travels in the statement."""
    return records_pb2.Heads(
        generations=dict(heads.generations), max_age_ms=round(heads.max_age_s * 1000)
    ).SerializeToString()
