"""What a verified record's payload says, by the type of its key: the codec's readers in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mesh.codec import records as codec
from mesh.core.assembly import Payload
from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordKey, RecordType, Statement

READERS: Mapping[RecordType, Callable[[RecordKey, Statement], Payload]] = {
    RecordType.POLICY: lambda key, statement: codec.policy_from_payload(statement.payload),
    RecordType.FACTS: lambda key, statement: codec.facts_from_payload(statement.payload),
    RecordType.NODE: lambda key, statement: codec.node_record_from_payload(statement.payload),
    RecordType.REVOCATIONS: lambda key, statement: codec.revocations_from_payload(
        statement.payload, key.trust_domain
    ),
    RecordType.FEDERATION: lambda key, statement: codec.federation_from_payload(statement.payload),
    RecordType.GROUPS: lambda key, statement: codec.groups_from_payload(statement.payload),
    RecordType.COLLECTION: lambda key, statement: codec.collection_from_payload(statement.payload),
    RecordType.HEADS: lambda key, statement: codec.heads_from_payload(
        statement.payload, statement.not_before, key.trust_domain
    ),
}


def read_payload(key: RecordKey, statement: Statement) -> Payload:
    """The payload of any record but a status. Raises MeshError, whatever was signed."""
    try:
        return READERS[key.type](key, statement)
    except (ValueError, TypeError, LookupError, RecursionError):
        # Signed, but by an authority that need not be ours: it must not end our watch.
        raise MeshError(Reason.RECORD_MALFORMED, "its payload cannot be read") from None
