"""Whatever bytes come where a signed statement is expected: a statement or a MeshError comes out (I5)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordType, Statement
from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import dump_bundle, load_bundle
from mesh.identity.keys import generate_key, make_csr, read_csr
from mesh.identity.signing import open_envelope
from mesh.identity.verify import verify_chain
from sovereign.mesh.v1.envelope_pb2 import Envelope
from tests.support.identities import AuthorityForTests

REFUSALS = {
    Reason.RECORD_TOO_LARGE,
    Reason.RECORD_MALFORMED,
    Reason.RECORD_WRONG_SIGNER,
    Reason.RECORD_SIGNATURE_INVALID,
    Reason.RECORD_EXPIRED,
    Reason.RECORD_NOT_YET_VALID,
}


pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")


class Sample(NamedTuple):
    envelope: bytes
    bundles: Mapping[str, TrustBundle]
    now: float


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    de = AuthorityForTests(tmp_path_factory.mktemp("ca"), "de.mesh.example")
    us = AuthorityForTests(tmp_path_factory.mktemp("ca"), "us.mesh.example")
    now = time.time()
    signer = de.svid("/control/main").signer
    envelope = signer.sign(RecordType.PERMIT, "6f1c", 1, now, now + 60, b"a permit")
    return Sample(envelope, {"de.mesh.example": de.bundle, "us.mesh.example": us.bundle}, now)


def opened(data: bytes, sample: Sample) -> Statement | None:
    try:
        return open_envelope(data, sample.bundles, sample.now)
    except MeshError as error:
        if error.reason not in REFUSALS:
            raise
        return None


in_any_order = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def edited(original: bytes, data: st.DataObject, longest_cut: int) -> bytes:
    """A piece of the original replaced. Signatures vary in length, so places are drawn as fractions."""
    start = int(data.draw(st.floats(0, 1), "where") * len(original))
    end = min(len(original), start + data.draw(st.integers(0, longest_cut), "cut"))
    pieces = st.one_of(st.binary(max_size=16), st.sampled_from([original[start:end], original]))
    return original[:start] + data.draw(pieces, "inserted") + original[end:]


@pytest.mark.slow
def test_every_byte_counts(sample: Sample) -> None:
    """Each byte of the envelope, with each bit turned and with a few whole values."""
    for position, byte in enumerate(sample.envelope):
        for value in {byte ^ (1 << bit) for bit in range(8)} | {0x00, 0x7F, 0x80, 0xFF}:
            if value != byte:
                mutated = sample.envelope[:position] + bytes([value]) + sample.envelope[position + 1 :]
                assert opened(mutated, sample) is None, f"byte {position} as {value:#04x} was accepted"


@pytest.mark.slow
@in_any_order
@given(data=st.data())
def test_edits_are_refused(sample: Sample, data: st.DataObject) -> None:
    """Cut, repeated, inserted or swapped pieces: accepted only if they come out as the same bytes."""
    text = edited(sample.envelope, data, longest_cut=2048)
    assert (opened(text, sample) is not None) == (text == sample.envelope)


@in_any_order
@given(noise=st.binary(max_size=4096))
@example(noise=b"")
def test_noise_is_refused(sample: Sample, noise: bytes) -> None:
    assert opened(noise, sample) is None


@pytest.mark.slow
@in_any_order
@given(
    statement=st.binary(max_size=256),
    chain=st.lists(st.binary(max_size=512), max_size=5),
    signature=st.binary(max_size=80),
    real_chain=st.booleans(),
)
def test_well_formed_noise_is_refused(
    sample: Sample, statement: bytes, chain: list[bytes], signature: bytes, real_chain: bool
) -> None:
    if real_chain:
        chain = list(Envelope.FromString(sample.envelope).certificate_chain)
    data = Envelope(statement=statement, certificate_chain=chain, signature=signature).SerializeToString()
    assert opened(data, sample) is None


@pytest.mark.slow
@in_any_order
@given(data=st.data())
def test_edited_certificates_are_refused(sample: Sample, data: st.DataObject) -> None:
    (der,) = Envelope.FromString(sample.envelope).certificate_chain
    text = edited(der, data, longest_cut=16)
    try:
        verify_chain([text], sample.bundles, sample.now)
    except MeshError:
        assert text != der
    else:
        assert text == der


@pytest.mark.slow
@in_any_order
@given(data=st.data())
def test_edited_requests_for_certificates(data: st.DataObject) -> None:
    der = make_csr(generate_key())
    text = edited(der, data, longest_cut=16)
    if text != der:
        with pytest.raises(MeshError) as caught:
            read_csr(text)
        assert caught.value.reason is Reason.CSR_INVALID


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.slow
@in_any_order
@given(data=st.data())
def test_edited_bundles(sample: Sample, data: st.DataObject) -> None:
    """A bundle with members replaced, or with bytes edited, is a bundle of that domain or BUNDLE_INVALID."""
    document = json.loads(dump_bundle(sample.bundles["de.mesh.example"]))
    where = data.draw(st.sampled_from(["document", "key", "bytes"]))
    target = document if where == "document" else document["keys"][0]
    name = data.draw(st.sampled_from(sorted(target)) | st.text(max_size=10))
    target[name] = data.draw(json_values)
    text = json.dumps(document).encode()
    if where == "bytes":
        text = edited(text, data, longest_cut=4)
    try:
        bundle = load_bundle(text, "de.mesh.example")
    except MeshError as error:
        if error.reason is not Reason.BUNDLE_INVALID:
            raise
    else:
        assert bundle.trust_domain == "de.mesh.example"
        assert bundle.roots == sample.bundles["de.mesh.example"].roots
