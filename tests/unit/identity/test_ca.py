"""An authority's root, what it issues, and how its files are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordType
from mesh.core.types import SpiffeId
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import make_csr, make_key_and_csr
from mesh.identity.signing import open_envelope
from tests.support.identities import AuthorityForTests

NOW = 1_800_000_000.0


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


def leaf_of(chain: tuple[bytes, ...]) -> x509.Certificate:
    (der,) = chain
    return x509.load_der_x509_certificate(der)


def test_the_root_is_constrained_to_its_own_names(de: AuthorityForTests) -> None:
    extensions = de.root.extensions
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [
        x509.DNSName("de.mesh.example"),
        x509.UniformResourceIdentifier("de.mesh.example"),
    ]
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert isinstance(de.root.public_key(), ec.EllipticCurvePublicKey)


def test_a_certificate_names_the_identity_as_uri_and_dns(de: AuthorityForTests) -> None:
    _, csr = make_key_and_csr()
    leaf = leaf_of(de.ca.issue(csr, de.id("/node/fra-1"), 3600, NOW))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://de.mesh.example/node/fra-1"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["fra-1.node.de.mesh.example"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.not_valid_before_utc.timestamp() == NOW - 60
    assert leaf.not_valid_after_utc.timestamp() == NOW + 3600
    assert leaf.serial_number.bit_length() > 64


def test_clients_of_the_same_name_in_two_tenants_have_two_dns_names(de: AuthorityForTests) -> None:
    _, csr = make_key_and_csr()
    names = {
        leaf_of(de.ca.issue(csr, de.id(f"/client/{tenant}/app"), 60, NOW))
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.DNSName)[0]
        for tenant in ("clinic-a", "clinic-b")
    }
    assert names == {"app.clinic-a.client.de.mesh.example", "app.clinic-b.client.de.mesh.example"}


def test_a_short_life_is_back_dated_less_than_half_of_it(de: AuthorityForTests) -> None:
    _, csr = make_key_and_csr()
    leaf = leaf_of(de.ca.issue(csr, de.id("/node/fra-1"), 20, NOW))
    assert leaf.not_valid_before_utc.timestamp() == NOW - 2


def test_the_csr_decides_nothing_but_the_key(de: AuthorityForTests) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fra-1.node.de.mesh.example")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("evil.example")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    leaf = leaf_of(de.ca.issue(csr, de.id("/client/acme"), 3600, NOW))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["acme.client.de.mesh.example"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []
    assert leaf.public_key() == key.public_key()


def _foreign_csrs() -> dict[str, bytes]:
    good = make_csr(ec.generate_private_key(ec.SECP256R1()))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    broken = bytearray(good)
    broken[-1] ^= 1
    return {
        "empty": b"",
        "garbage": b"\x30\x82" + b"\xff" * 100,
        "truncated": good[:-10],
        "signature of another key": bytes(broken),
        "RSA": builder.sign(rsa_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER),
        "P-384": make_csr(ec.generate_private_key(ec.SECP384R1())),
        "PEM": b"-----BEGIN CERTIFICATE REQUEST-----",
        "oversized": good + b"\x00" * 8192,
    }


@pytest.mark.slow
def test_a_csr_that_proves_no_accepted_key_is_refused(de: AuthorityForTests) -> None:
    for what, csr in _foreign_csrs().items():
        with refused(Reason.CSR_INVALID):
            de.ca.issue(csr, de.id("/client/acme"), 3600, NOW)
            pytest.fail(what)


@pytest.mark.parametrize(
    "identity", ["spiffe://us.mesh.example/node/fra-1", "spiffe://de.mesh.example/authority"]
)
def test_it_issues_no_names_of_others_and_not_its_own(de: AuthorityForTests, identity: str) -> None:
    _, csr = make_key_and_csr()
    with refused(Reason.IDENTITY_NOT_ALLOWED):
        de.ca.issue(csr, SpiffeId.parse(identity), 3600, NOW)


@pytest.mark.parametrize("ttl_s", [0, -1, 86_401, float("nan"), float("inf")])
def test_a_certificate_lives_a_day_at_most(de: AuthorityForTests, ttl_s: float) -> None:
    _, csr = make_key_and_csr()
    with refused(Reason.REQUEST_INVALID):
        de.ca.issue(csr, de.id("/node/fra-1"), ttl_s, NOW)


def test_files_are_private_and_load_again(de: AuthorityForTests) -> None:
    assert de.directory.stat().st_mode & 0o777 == 0o700
    for name in ("root.key", "authority.key"):
        assert (de.directory / name).stat().st_mode & 0o777 == 0o600
    again = CertificateAuthority.load(de.directory)
    assert again.trust_domain == "de.mesh.example"
    assert again.bundle == de.bundle
    assert sorted(os.listdir(de.directory.parent)) == ["de.mesh.example"]


def test_a_key_that_others_can_read_is_refused(de: AuthorityForTests) -> None:
    (de.directory / "root.key").chmod(0o640)
    with refused(Reason.CONFIG_INVALID) as caught:
        CertificateAuthority.load(de.directory)
    assert "root.key" in caught.value.message
    assert "chmod 600" in caught.value.message


def test_a_key_behind_a_symbolic_link_is_refused(de: AuthorityForTests, tmp_path: Path) -> None:
    (de.directory / "root.key").rename(tmp_path / "elsewhere.key")
    (de.directory / "root.key").symlink_to(tmp_path / "elsewhere.key")
    with refused(Reason.CONFIG_INVALID):
        CertificateAuthority.load(de.directory)


def test_an_authority_is_never_overwritten(de: AuthorityForTests) -> None:
    before = (de.directory / "root.key").read_bytes()
    with refused(Reason.CONFIG_INVALID):
        CertificateAuthority.create(de.directory, "de.mesh.example", time.time)
    assert (de.directory / "root.key").read_bytes() == before
    assert sorted(os.listdir(de.directory.parent)) == ["de.mesh.example"]


def test_a_failed_founding_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with refused(Reason.CONFIG_INVALID):
        CertificateAuthority.create(tmp_path / "ca", "de.mesh.example", time.time)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("trust_domain", "reason"),
    [
        ("xx.mesh.example", Reason.COUNTRY_UNKNOWN),
        ("DE.mesh.example", Reason.IDENTITY_MALFORMED),
        ("de..example", Reason.IDENTITY_MALFORMED),
        ("", Reason.IDENTITY_MALFORMED),
    ],
)
def test_a_trust_domain_starts_with_a_country(tmp_path: Path, trust_domain: str, reason: Reason) -> None:
    with refused(reason):
        CertificateAuthority.create(tmp_path / "ca", trust_domain, time.time)


def test_keys_of_two_authorities_are_not_mixed(de: AuthorityForTests, us: AuthorityForTests) -> None:
    (us.directory / "root.key").replace(de.directory / "root.key")
    with refused(Reason.CONFIG_INVALID):
        CertificateAuthority.load(de.directory)


def test_the_authority_signs_records_and_renews_its_certificate_at_half_life(de: AuthorityForTests) -> None:
    now = time.time()
    first = de.ca.signer(now)
    assert first.id == de.id("/authority")
    assert de.ca.signer(now).not_after == first.not_after
    later = now + 200 * 86_400
    second = de.ca.signer(later)
    assert second.not_after == pytest.approx(later + 365 * 86_400, abs=1)
    envelope = second.sign(RecordType.HEADS, "k", 1, later, later + 60, b"")
    assert open_envelope(envelope, {"de.mesh.example": de.bundle}, later).signer == de.id("/authority")


def test_the_record_signing_certificate_is_not_for_tls(de: AuthorityForTests) -> None:
    chain = x509.load_pem_x509_certificates((de.directory / "authority.pem").read_bytes())
    usages = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} & set(usages)
