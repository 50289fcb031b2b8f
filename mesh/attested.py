"""Whose log a checkpoint is of, offline: node records as they stood at a moment, by trust bundles alone."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.codec.records import node_record_from_payload
from mesh.core.cosigned import Attested, Opener
from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordKey, RecordType, check_place
from mesh.core.snapshot import TrustBundle
from mesh.identity.signing import began_at, open_envelope


def attested_by(bundles: Mapping[str, TrustBundle]) -> Opener:
    """Opens node records of these trust domains. Raises RECORD_*, whatever the bytes are."""

    def opener(envelope: bytes, at: float | None) -> Attested:
        statement = open_envelope(envelope, bundles, began_at(envelope) if at is None else at)
        key = RecordKey.parse(statement.key)
        check_place(statement, key)
        if key.type is not RecordType.NODE:
            raise MeshError(Reason.RECORD_WRONG_KEY, "expected the record of a node")
        record = node_record_from_payload(statement.payload)
        return Attested(key.node, record.log_key, record.witness_key)

    return opener
