"""Whatever bytes come as a permit, the answer is a PERMIT_* reason and nothing else (I4)."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError
from mesh.core.records import RecordType
from mesh.core.snapshot import Snapshot
from mesh.core.types import SpiffeId
from node.permit_check import PermitCheck
from sovereign.mesh.v1 import envelope_pb2, inference_pb2, placement_pb2
from tests.support.identities import AuthorityForTests

_FOLDER = TemporaryDirectory(prefix="permit-fuzz-")  # removed when the process ends
NODE = SpiffeId("de.mesh.example", "/node/fra-1")


@cache
def authority() -> AuthorityForTests:
    return AuthorityForTests(Path(_FOLDER.name), "de.mesh.example")


@cache
def signed() -> bytes:
    permit = placement_pb2.Permit(decision_id="d", caller=str(NODE), node=str(NODE), action="ACTION_INFER")
    return sign(permit.SerializeToString())


def sign(payload: bytes) -> bytes:
    now = time.time()
    signer = authority().source("/node/fra-1").signer
    return signer.sign(RecordType.PERMIT, "id", 1, now, now + 60, payload)


def refused(envelope: envelope_pb2.Envelope) -> None:
    snapshot = Snapshot(1, "de.mesh.example", bundles={"de.mesh.example": authority().bundle})
    admission = inference_pb2.Admission(permit=envelope)
    with pytest.raises(MeshError) as caught:
        PermitCheck(NODE).open(admission, snapshot, time.time())
    assert caught.value.reason.code.startswith("PERMIT_")


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=4), st.binary(max_size=80))
def test_envelopes_of_noise(statement: bytes, chain: list[bytes], signature: bytes):
    refused(envelope_pb2.Envelope(statement=statement, certificate_chain=chain, signature=signature))


@given(st.data())
def test_one_flipped_bit_anywhere(data: st.DataObject):
    envelope = envelope_pb2.Envelope.FromString(signed())
    parts = [envelope.statement, *envelope.certificate_chain, envelope.signature]
    which = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    refused(envelope_pb2.Envelope(statement=parts[0], certificate_chain=parts[1:-1], signature=parts[-1]))


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_a_good_signature_over_noise(payload: bytes):
    try:
        message = placement_pb2.Permit.FromString(payload)
        SpiffeId.parse(message.caller)
    except Exception:
        refused(envelope_pb2.Envelope.FromString(sign(payload)))
