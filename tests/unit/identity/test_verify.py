"""Which chains prove an identity (I5), and how a refusal reads."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity import verify
from mesh.identity.verify import verify_chain
from tests.support.identities import AuthorityForTests

NAME = "spiffe://de.mesh.example/node/fra-1"
URI = x509.UniformResourceIdentifier


@pytest.fixture
def bundles(de: AuthorityForTests, us: AuthorityForTests) -> Mapping[str, TrustBundle]:
    return {a.trust_domain: a.bundle for a in (de, us)}


def reason_of(
    chain: tuple[bytes, ...], bundles: Mapping[str, TrustBundle], now: float | None = None
) -> Reason:
    with pytest.raises(MeshError) as caught:
        verify_chain(chain, bundles, time.time() if now is None else now)
    return caught.value.reason


def test_a_good_chain(de: AuthorityForTests, bundles: Mapping[str, TrustBundle]) -> None:
    svid = de.svid("/node/fra-1")
    identity = verify_chain(svid.chain, bundles, time.time())
    assert str(identity.id) == NAME
    assert identity.serial == svid.serial == identity.serial.lower()
    assert (identity.not_before, identity.not_after) == (svid.not_before, svid.not_after)


@pytest.mark.parametrize(
    ("offset", "ok"),
    [(-30, True), (-31, False), (0, True), (3600 + 59, True), (3600 + 60, False), (1e6, False)],
)
def test_validity_is_checked_on_every_use(
    de: AuthorityForTests, bundles: Mapping[str, TrustBundle], offset: float, ok: bool
) -> None:
    svid = de.svid("/node/fra-1")
    verify_chain(svid.chain, bundles, time.time())  # now remembered
    moment = svid.not_before + offset
    if ok:
        verify_chain(svid.chain, bundles, moment)
    else:
        assert reason_of(svid.chain, bundles, moment) is Reason.IDENTITY_EXPIRED


def test_a_certificate_ends_with_its_root(de: AuthorityForTests, bundles: Mapping[str, TrustBundle]) -> None:
    root_end = de.root.not_valid_after_utc.timestamp()
    names = [URI(NAME)]
    chain, _ = de.forge(names, not_after=root_end + 1000)
    assert verify_chain(chain, bundles, time.time()).not_after == root_end
    assert reason_of(chain, bundles, root_end + 1) is Reason.IDENTITY_EXPIRED


def test_two_minutes_of_skew_say_to_compare_the_clocks(
    de: AuthorityForTests, bundles: Mapping[str, TrustBundle]
) -> None:
    svid = de.svid("/node/fra-1")
    with pytest.raises(MeshError, match="compare clocks"):
        verify_chain(svid.chain, bundles, svid.not_before - 120)


def test_another_authority_cannot_speak_for_de(
    us: AuthorityForTests, de: AuthorityForTests, bundles: Mapping[str, TrustBundle]
) -> None:
    assert reason_of(us.forge([URI(NAME)])[0], bundles) is Reason.IDENTITY_UNTRUSTED
    # nor where its root is listed under the other's name: it is constrained to its own
    mixed = {**bundles, "de.mesh.example": TrustBundle("de.mesh.example", us.bundle.roots)}
    assert reason_of(us.forge([URI(NAME)])[0], mixed) is Reason.IDENTITY_UNTRUSTED


def test_an_unknown_authority(de: AuthorityForTests, us: AuthorityForTests) -> None:
    chain = de.svid("/node/fra-1").chain
    assert reason_of(chain, {}) is Reason.IDENTITY_UNTRUSTED
    assert reason_of(chain, {"us.mesh.example": us.bundle}) is Reason.IDENTITY_UNTRUSTED


def test_a_dropped_root_ends_what_was_remembered(
    de: AuthorityForTests, us: AuthorityForTests, bundles: Mapping[str, TrustBundle]
) -> None:
    chain = de.svid("/node/fra-1").chain
    verify_chain(chain, bundles, time.time())
    assert reason_of(chain, {"us.mesh.example": us.bundle}) is Reason.IDENTITY_UNTRUSTED
    other = dataclasses.replace(de.bundle, roots=us.bundle.roots)
    assert reason_of(chain, {"de.mesh.example": other}) is Reason.IDENTITY_UNTRUSTED


def test_a_second_root_of_a_domain_is_found(
    de: AuthorityForTests, us: AuthorityForTests, tmp_path_factory: pytest.TempPathFactory
) -> None:
    successor = AuthorityForTests(tmp_path_factory.mktemp("next"), "de.mesh.example")
    both = {
        "de.mesh.example": TrustBundle(
            "de.mesh.example", (*us.bundle.roots, *de.bundle.roots, *successor.bundle.roots)
        )
    }
    for authority in (de, successor):
        assert str(verify_chain(authority.svid("/node/fra-1").chain, both, time.time()).id) == NAME


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("fra-1.node.de.mesh.example")],
        [URI(NAME), URI("spiffe://de.mesh.example/node/fra-2")],
        [URI("https://de.mesh.example/node/fra-1")],
        [URI("spiffe://de.mesh.example")],
        [URI("spiffe://de.mesh.example/")],
        [URI("spiffe://de.mesh.example:443/node/fra-1")],
        [URI("spiffe://us.mesh.example@de.mesh.example/node/fra-1")],
        [URI("spiffe://DE.mesh.example/node/fra-1")],
        [URI("spiffe://de.mesh.example/node/../authority")],
        [URI("spiffe://de.mesh.example/node/fra%2d1")],
        [URI(NAME), x509.DNSName("fra-1.node.us.mesh.example")],
    ],
    ids=lambda names: ",".join(n.value for n in names) or "no name",
)
def test_a_chain_that_names_not_exactly_one_spiffe_id(
    de: AuthorityForTests, bundles: Mapping[str, TrustBundle], names: list[x509.GeneralName]
) -> None:
    assert reason_of(de.forge(names)[0], bundles) is Reason.IDENTITY_MALFORMED


def test_form_of_the_leaf(de: AuthorityForTests, bundles: Mapping[str, TrustBundle]) -> None:
    names = [URI(NAME)]
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    p384 = ec.generate_private_key(ec.SECP384R1())
    for chain, _ in (
        de.forge(names, is_ca=True),
        de.forge(names, digital_signature=False),
        de.forge(names, extra=[(unknown, True)]),
        de.forge(names, key=p384),
    ):
        assert reason_of(chain, bundles) is Reason.IDENTITY_MALFORMED
    tolerated, _ = de.forge(names, extra=[(unknown, False)])
    verify_chain(tolerated, bundles, time.time())


def test_form_of_the_chain(de: AuthorityForTests, bundles: Mapping[str, TrustBundle]) -> None:
    chain = de.svid("/node/fra-1").chain
    assert reason_of((), bundles) is Reason.IDENTITY_MALFORMED
    assert reason_of((b"",), bundles) is Reason.IDENTITY_MALFORMED
    assert reason_of((b"\x30\x03\x02\x01\x01",), bundles) is Reason.IDENTITY_MALFORMED
    assert reason_of((b"\x00" * 9000,), bundles) is Reason.IDENTITY_MALFORMED
    assert reason_of((chain[0][:-1],), bundles) is Reason.IDENTITY_MALFORMED
    assert reason_of((*chain, *de.bundle.roots), bundles) is Reason.IDENTITY_UNTRUSTED


def test_a_leaf_issues_no_leaf(de: AuthorityForTests, bundles: Mapping[str, TrustBundle]) -> None:
    signer = de.svid("/node/fra-1")
    forged = (
        x509.CertificateBuilder()
        .public_key(signer.key.public_key())
        .serial_number(1)
        .not_valid_before(de.root.not_valid_before_utc)
        .not_valid_after(de.root.not_valid_after_utc)
        .subject_name(x509.Name([]))
        .issuer_name(de.root.subject)
        .add_extension(
            x509.SubjectAlternativeName([URI("spiffe://de.mesh.example/authority")]), critical=True
        )
    )
    usage = x509.load_der_x509_certificate(signer.chain[0]).extensions.get_extension_for_class(x509.KeyUsage)
    certificate = forged.add_extension(usage.value, critical=True).sign(signer.key, hashes.SHA256())
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert reason_of((der,), bundles) is Reason.IDENTITY_UNTRUSTED
    assert reason_of((der, *signer.chain), bundles) is Reason.IDENTITY_UNTRUSTED


def test_what_is_remembered_is_bounded(
    de: AuthorityForTests, bundles: Mapping[str, TrustBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = verify._Memory(3)
    monkeypatch.setattr(verify, "_memory", memory)
    for _ in range(6):
        verify_chain(de.svid("/node/fra-1").chain, bundles, time.time())
    assert len(memory) == 3
    for _ in range(3):
        reason_of(de.forge([URI(NAME), URI(NAME)])[0], bundles)
    assert len(memory) == 3
