"""Signed statements: what is opened, and every way not to be (I5)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES, RecordKey, RecordType, check_place
from mesh.core.snapshot import TrustBundle
from mesh.identity.keys import generate_key
from mesh.identity.signing import PAYLOAD_TYPE, Signer, open_envelope
from mesh.identity.svid import Svid
from sovereign.mesh.v1.envelope_pb2 import Envelope, Statement
from tests.support.identities import AuthorityForTests

KEY = "/sovereign/v1/de.mesh.example/nodes/fra-1"


@pytest.fixture
def bundles(de: AuthorityForTests, us: AuthorityForTests) -> Mapping[str, TrustBundle]:
    return {a.trust_domain: a.bundle for a in (de, us)}


@pytest.fixture
def node(de: AuthorityForTests) -> Svid:
    return de.svid("/node/fra-1")


def signed(node: Svid, *, not_after: float = 60.0, payload: bytes = b"payload") -> bytes:
    now = time.time()
    return node.signer.sign(RecordType.NODE, KEY, 7, now, now + not_after, payload)


def hand_signed(
    node: Svid, statement: bytes, chain: list[bytes] | None = None, context: bytes = PAYLOAD_TYPE
) -> bytes:
    """Signs whatever bytes with the node's real key."""
    pae = b"DSSEv1 %d %s %d %s" % (len(context), context, len(statement), statement)
    signature = node.key.sign(pae, ec.ECDSA(hashes.SHA256()))
    chain = list(node.chain) if chain is None else chain
    return Envelope(statement=statement, certificate_chain=chain, signature=signature).SerializeToString()


def a_statement(**changes: object) -> bytes:
    now = int(time.time() * 1000)
    fields: dict[str, object] = {
        "type": "nodes",
        "key": KEY,
        "generation": 1,
        "not_before_ms": now,
        "not_after_ms": now + 60_000,
        "payload": b"x",
    }
    return Statement(**{**fields, **changes}).SerializeToString()  # type: ignore[arg-type]


def reason_of(envelope: bytes, bundles: Mapping[str, TrustBundle], now: float | None = None) -> Reason:
    with pytest.raises(MeshError) as caught:
        open_envelope(envelope, bundles, time.time() if now is None else now)
    return caught.value.reason


def test_a_round_trip(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    statement = open_envelope(signed(node), bundles, time.time())
    assert (statement.type, statement.key, statement.generation) == (RecordType.NODE, KEY, 7)
    assert statement.payload == b"payload"
    assert statement.signer == node.id
    assert statement.signer_serial == node.serial
    check_place(statement, RecordKey.parse(KEY))


def test_the_hand_signed_form_is_the_signed_form(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    assert open_envelope(hand_signed(node, a_statement()), bundles, time.time()).signer == node.id


def test_the_digest_is_of_the_statement_alone(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    statement = a_statement()
    digests = {open_envelope(hand_signed(node, statement), bundles, time.time()).digest for _ in range(2)}
    assert len(digests) == 1  # ECDSA signs differently each time


def test_a_statement_ends_with_its_signers_certificate(
    node: Svid, bundles: Mapping[str, TrustBundle]
) -> None:
    assert open_envelope(signed(node, not_after=1e6), bundles, time.time()).not_after == node.not_after
    # and a signer that claims more is not believed
    forever = hand_signed(node, a_statement(not_after_ms=4_000_000_000_000))
    assert open_envelope(forever, bundles, time.time()).not_after == node.not_after
    assert reason_of(forever, bundles, node.not_after) is Reason.RECORD_EXPIRED


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (-120, Reason.RECORD_NOT_YET_VALID),  # two minutes of clock skew
        (60, Reason.RECORD_EXPIRED),
        (7200, Reason.RECORD_EXPIRED),  # the certificate is over as well
        (-7200, Reason.RECORD_NOT_YET_VALID),
    ],
)
def test_validity(node: Svid, bundles: Mapping[str, TrustBundle], offset: float, reason: Reason) -> None:
    envelope = signed(node)
    open_envelope(envelope, bundles, time.time())
    assert reason_of(envelope, bundles, time.time() + offset) is reason


def test_no_signature_for_no_time(node: Svid) -> None:
    with pytest.raises(MeshError) as caught:
        node.signer.sign(RecordType.NODE, KEY, 1, node.not_after, node.not_after + 60, b"")
    assert caught.value.reason is Reason.RECORD_EXPIRED


def test_oversized(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    with pytest.raises(MeshError) as caught:
        signed(node, payload=b"x" * MAX_ENVELOPE_BYTES)
    assert caught.value.reason is Reason.RECORD_TOO_LARGE
    assert reason_of(b"x" * (MAX_ENVELOPE_BYTES + 1), bundles) is Reason.RECORD_TOO_LARGE
    largest = signed(node, payload=b"x" * (MAX_ENVELOPE_BYTES - 2048))
    assert len(open_envelope(largest, bundles, time.time()).payload) == MAX_ENVELOPE_BYTES - 2048


@pytest.mark.parametrize("data", [b"", b"not protobuf", b"\x00", b"\xff" * 100, b"\x0a\x05abc"])
def test_not_an_envelope(bundles: Mapping[str, TrustBundle], data: bytes) -> None:
    assert reason_of(data, bundles) is Reason.RECORD_MALFORMED


def test_truncated_at_every_length(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    envelope = signed(node)
    for length in range(len(envelope)):
        assert reason_of(envelope[:length], bundles) in (
            Reason.RECORD_MALFORMED,
            Reason.RECORD_SIGNATURE_INVALID,
        )


def test_chains(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    leaf = node.chain[0]
    assert reason_of(hand_signed(node, a_statement(), chain=[]), bundles) is Reason.RECORD_MALFORMED
    assert reason_of(hand_signed(node, a_statement(), chain=[leaf] * 4), bundles) is Reason.RECORD_MALFORMED
    assert (
        reason_of(hand_signed(node, a_statement(), chain=[leaf] * 2), bundles) is Reason.RECORD_WRONG_SIGNER
    )
    assert (
        reason_of(hand_signed(node, a_statement(), chain=[b"\x30\x00"]), bundles) is Reason.RECORD_MALFORMED
    )


def test_signers_nobody_vouches_for(
    de: AuthorityForTests, us: AuthorityForTests, node: Svid, bundles: Mapping[str, TrustBundle]
) -> None:
    assert reason_of(signed(node), {}) is Reason.RECORD_WRONG_SIGNER
    assert reason_of(signed(node), {"us.mesh.example": us.bundle}) is Reason.RECORD_WRONG_SIGNER
    forged = us.forged_svid("spiffe://de.mesh.example/authority", "de.mesh.example")
    assert reason_of(hand_signed(forged, a_statement(type="policy")), bundles) is Reason.RECORD_WRONG_SIGNER
    two_names = [x509.UniformResourceIdentifier(f"spiffe://{td}/authority") for td in bundles]
    chain, _ = us.forge(two_names)
    assert reason_of(hand_signed(node, a_statement(), chain=list(chain)), bundles) is Reason.RECORD_MALFORMED


def test_a_signature_by_another_key(
    de: AuthorityForTests, node: Svid, bundles: Mapping[str, TrustBundle]
) -> None:
    other = de.svid("/node/fra-2")
    for envelope in (
        hand_signed(other, a_statement(), chain=list(node.chain)),
        hand_signed(node, a_statement(), context=b"application/octet-stream"),
        Envelope(statement=a_statement(), certificate_chain=node.chain).SerializeToString(),
        Envelope(
            statement=a_statement(), certificate_chain=node.chain, signature=b"x" * 73
        ).SerializeToString(),
        Envelope(
            statement=a_statement(), certificate_chain=node.chain, signature=b"\x30\x00"
        ).SerializeToString(),
    ):
        assert reason_of(envelope, bundles) is Reason.RECORD_SIGNATURE_INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "nonsense"},
        {"type": ""},
        {"key": ""},
        {"key": "k" * 257},
        {"generation": 0},
        {"not_before_ms": -1},
        {"not_after_ms": 0},
        {"not_after_ms": 2**62},
        {"not_before_ms": 2**62, "not_after_ms": 2**62},
    ],
    ids=str,
)
def test_statements_that_are_signed_and_still_malformed(
    node: Svid, bundles: Mapping[str, TrustBundle], changes: dict[str, object]
) -> None:
    assert reason_of(hand_signed(node, a_statement(**changes)), bundles) is Reason.RECORD_MALFORMED


def test_signed_bytes_that_are_no_statement(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    assert reason_of(hand_signed(node, b"\xff\xff\xff"), bundles) is Reason.RECORD_MALFORMED


def test_nothing_can_be_added_outside_the_signature(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    envelope = signed(node)
    unknown_field = b"\xa2\x06\x05hello"
    assert reason_of(envelope + unknown_field, bundles) is Reason.RECORD_MALFORMED
    parsed = Envelope.FromString(envelope)
    twice = envelope + Envelope(signature=parsed.signature).SerializeToString()
    assert reason_of(twice, bundles) is Reason.RECORD_MALFORMED


def test_a_key_and_a_certificate_that_do_not_belong_together(node: Svid) -> None:
    with pytest.raises(MeshError) as caught:
        Signer(node.chain, generate_key())
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_messages_repeat_nothing_that_was_sent(node: Svid, bundles: Mapping[str, TrustBundle]) -> None:
    secret = "do-not-repeat-me"
    for envelope in (
        hand_signed(node, a_statement(type=secret)),
        secret.encode(),
        hand_signed(node, a_statement(payload=secret.encode()), context=b"x"),
    ):
        with pytest.raises(MeshError) as caught:
            open_envelope(envelope, bundles, time.time())
        assert secret not in str(caught.value)
