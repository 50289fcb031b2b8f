"""Signing statements, and opening signed ones: the gate that every record and permit passes (I5).

The signature covers the DSSE pre-authentication encoding (Dead Simple Signing Envelope v1,
https://github.com/secure-systems-lab/dsse) of the exact statement bytes, which are never re-encoded.
Opening checks size, form, signer and signature in that order, and then the times; nothing of the
payload is looked at. Whether this signer may speak under this key is records.check_place's to say.

This module reads the Envelope and Statement messages itself, and no other protobuf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES, MAX_KEY_BYTES, RecordType, Statement, check_validity
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.keys import PrivateKey
from mesh.identity.leaf import read_leaf
from mesh.identity.verify import VerifiedIdentity, verify_signatures
from sovereign.mesh.v1 import envelope_pb2

PAYLOAD_TYPE = b"application/vnd.sovereign.mesh.v1"
MAX_CHAIN = 3
# ECDSA P-256 in DER: two integers of at most 33 bytes, and 6 bytes around them.
MAX_SIGNATURE_BYTES = 72
# 9999-12-31T23:59:59Z, the last moment that X.509 can state.
MAX_TIME_MS = 253_402_300_799_000

_ALGORITHM = ec.ECDSA(hashes.SHA256())
_PREFIX = b"DSSEv1 %d %s " % (len(PAYLOAD_TYPE), PAYLOAD_TYPE)
_CERTIFICATE_REFUSALS = {
    Reason.IDENTITY_MALFORMED: Reason.RECORD_MALFORMED,
    Reason.IDENTITY_UNTRUSTED: Reason.RECORD_WRONG_SIGNER,
}


def _to_be_signed(statement: bytes) -> bytes:
    return b"%s%d %s" % (_PREFIX, len(statement), statement)


class Signer:
    """Signs statements with one identity's key. `chain` is DER, leaf first, root left out."""

    def __init__(self, chain: Sequence[bytes], key: PrivateKey) -> None:
        self._chain = tuple(chain)
        self._leaf = read_leaf(self._chain[0])
        if key.public_key() != self._leaf.public_key:
            raise MeshError(Reason.CONFIG_INVALID, "the private key does not belong to the certificate")
        self._key = key

    @property
    def id(self) -> SpiffeId:
        """Who signs."""
        return self._leaf.id

    @property
    def not_after(self) -> float:
        """Unix seconds: no statement of this signer holds longer."""
        return self._leaf.not_after

    @property
    def half_life(self) -> float:
        """Unix seconds: when its certificate should be renewed."""
        return (self._leaf.not_before + self._leaf.not_after) / 2

    def sign(
        self, type: RecordType, key: str, generation: int, not_before: float, not_after: float, payload: bytes
    ) -> bytes:
        """A serialized Envelope. Times in Unix seconds; `not_after` ends with the certificate at the latest.

        Raises RECORD_EXPIRED if that leaves no time, RECORD_TOO_LARGE above 256 KiB.
        """
        end = min(not_after, self._leaf.not_after)
        if end <= not_before:
            raise MeshError(
                Reason.RECORD_EXPIRED, "the signer's certificate ends before the statement begins"
            )
        statement = envelope_pb2.Statement(
            type=type,
            key=key,
            generation=generation,
            not_before_ms=int(not_before * 1000),
            not_after_ms=int(end * 1000),
            payload=payload,
        ).SerializeToString(deterministic=True)
        envelope = envelope_pb2.Envelope(
            statement=statement,
            certificate_chain=self._chain,
            signature=self._key.sign(_to_be_signed(statement), _ALGORITHM),
        ).SerializeToString(deterministic=True)
        if len(envelope) > MAX_ENVELOPE_BYTES:
            raise MeshError(
                Reason.RECORD_TOO_LARGE, f"a signed statement has at most {MAX_ENVELOPE_BYTES} bytes"
            )
        return envelope


def open_envelope(data: bytes, bundles: Mapping[str, TrustBundle], now: float) -> Statement:
    """The statement in a serialized Envelope, if all of it holds at `now` (Unix seconds).

    The roots are those that `bundles` has for the signer's own trust domain. The statement ends with
    its signer's certificate at the latest. Raises RECORD_TOO_LARGE, RECORD_MALFORMED,
    RECORD_WRONG_SIGNER, RECORD_SIGNATURE_INVALID, RECORD_NOT_YET_VALID or RECORD_EXPIRED, and nothing
    else whatever the bytes are.
    """
    envelope = _parse_envelope(data)
    signer = _signer_of(envelope, bundles)
    try:
        signer.public_key.verify(envelope.signature, _to_be_signed(envelope.statement), _ALGORITHM)
    except InvalidSignature:
        raise MeshError(
            Reason.RECORD_SIGNATURE_INVALID, f"the signature is not that of {signer.id} over this statement"
        ) from None
    return _read_statement(envelope.statement, signer, now)


def began_at(data: bytes) -> float:
    """When the statement says that it begins, Unix seconds; opening it at that time verifies it.

    Raises RECORD_TOO_LARGE or RECORD_MALFORMED.
    """
    return _parse_statement(_parse_envelope(data).statement).not_before_ms / 1000


def _parse_envelope(data: bytes) -> envelope_pb2.Envelope:
    if len(data) > MAX_ENVELOPE_BYTES:
        raise MeshError(Reason.RECORD_TOO_LARGE, f"a signed statement has at most {MAX_ENVELOPE_BYTES} bytes")
    try:
        envelope = envelope_pb2.Envelope.FromString(data)
    except DecodeError:
        raise MeshError(Reason.RECORD_MALFORMED, "expected a signed envelope") from None
    # One statement has one form. Unknown fields and odd encodings lie outside the signature, so
    # whoever carries a record (I5) could otherwise add to it.
    envelope.DiscardUnknownFields()
    if envelope.SerializeToString(deterministic=True) != data:
        raise MeshError(Reason.RECORD_MALFORMED, "the envelope is not in its canonical encoding")
    if not 1 <= len(envelope.certificate_chain) <= MAX_CHAIN:
        raise MeshError(Reason.RECORD_MALFORMED, f"expected 1 to {MAX_CHAIN} certificates")
    if not 1 <= len(envelope.signature) <= MAX_SIGNATURE_BYTES:
        raise MeshError(Reason.RECORD_SIGNATURE_INVALID, "expected an ECDSA P-256 signature in DER")
    return envelope


def _signer_of(envelope: envelope_pb2.Envelope, bundles: Mapping[str, TrustBundle]) -> VerifiedIdentity:
    try:
        return verify_signatures(envelope.certificate_chain, bundles)
    except MeshError as error:
        raise MeshError(_CERTIFICATE_REFUSALS[error.reason], f"its signer: {error.message}") from None


def _parse_statement(data: bytes) -> envelope_pb2.Statement:
    try:
        return envelope_pb2.Statement.FromString(data)
    except DecodeError:
        raise MeshError(Reason.RECORD_MALFORMED, "expected a statement inside the envelope") from None


def _read_statement(data: bytes, signer: VerifiedIdentity, now: float) -> Statement:
    parsed = _parse_statement(data)
    try:
        type = RecordType(parsed.type)
    except ValueError:
        raise MeshError(
            Reason.RECORD_MALFORMED, f"statement type: expected one of {', '.join(RecordType)}"
        ) from None
    if not parsed.key or len(parsed.key.encode()) > MAX_KEY_BYTES:
        raise MeshError(Reason.RECORD_MALFORMED, f"statement key: expected 1 to {MAX_KEY_BYTES} bytes")
    if parsed.generation < 1:
        raise MeshError(Reason.RECORD_MALFORMED, "generations count from 1")
    if not 0 <= parsed.not_before_ms < parsed.not_after_ms <= MAX_TIME_MS:
        raise MeshError(Reason.RECORD_MALFORMED, "expected a validity that begins before it ends")
    check_validity(signer.not_before, signer.not_after, now)
    not_before = parsed.not_before_ms / 1000
    not_after = min(parsed.not_after_ms / 1000, signer.not_after)
    check_validity(not_before, not_after, now)
    return Statement(
        type=type,
        key=parsed.key,
        generation=parsed.generation,
        not_before=not_before,
        not_after=not_after,
        payload=parsed.payload,
        signer=signer.id,
        signer_serial=signer.serial,
        digest="sha256:" + hashlib.sha256(data).hexdigest(),
    )
