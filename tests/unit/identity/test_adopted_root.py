"""A root that somebody else made, such as cert-manager, as an authority's own."""

from __future__ import annotations

import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import key_to_pem, make_key_and_csr
from mesh.identity.roots import constraints_for

DE = "de.mesh.example"


def made_elsewhere(
    *,
    names: str = DE,
    uri: str = f"spiffe://{DE}",
    constrained: bool = True,
    days: tuple[int, int] = (-1, 3650),
    subject: str = "de root",
    curve: ec.EllipticCurve | None = None,
) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """What cert-manager makes of `isCA` with `nameConstraints`: with usages that ours lacks."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name(attributes))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_encipherment=True,
                key_cert_sign=True,
                content_commitment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=not subject
        )
    )
    if constrained:
        builder = builder.add_extension(constraints_for(names), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), key


def test_an_adopted_root_issues_and_signs_like_one_of_our_own(tmp_path: Path) -> None:
    pem, key = made_elsewhere()
    CertificateAuthority.adopt(tmp_path / "ca", DE, pem, key_to_pem(key), time.time)
    ca = CertificateAuthority.load(tmp_path / "ca")
    assert ca.trust_domain == DE
    _, csr = make_key_and_csr()
    now = time.time()
    (leaf,) = ca.issue(csr, SpiffeId(DE, "/node/fra-1"), 3600, now)
    root = x509.load_pem_x509_certificate(pem)
    x509.load_der_x509_certificate(leaf).verify_directly_issued_by(root)
    assert ca.signer(now).half_life > now
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ca").iterdir()}
    assert modes["root.key"] == modes["authority.key"] == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("root", "reason", "says"),
    [
        ({"constrained": False}, Reason.BUNDLE_INVALID, "name constraints"),
        ({"names": "fr.mesh.example"}, Reason.BUNDLE_INVALID, "de.mesh.example alone"),
        ({"uri": "spiffe://fr.mesh.example"}, Reason.BUNDLE_INVALID, "URI name"),
        ({"uri": "https://de.mesh.example"}, Reason.BUNDLE_INVALID, "URI name"),
        ({"subject": ""}, Reason.BUNDLE_INVALID, "subject"),
        ({"curve": ec.SECP384R1()}, Reason.BUNDLE_INVALID, "P-256"),
        ({"days": (-10, -1)}, Reason.IDENTITY_EXPIRED, "not valid now"),
        ({"days": (1, 10)}, Reason.IDENTITY_EXPIRED, "not valid now"),
    ],
)
def test_a_root_that_would_not_hold_is_refused(
    tmp_path: Path, root: dict[str, object], reason: Reason, says: str
) -> None:
    pem, key = made_elsewhere(**root)  # type: ignore[arg-type]
    with pytest.raises(MeshError, match=says) as caught:
        CertificateAuthority.adopt(tmp_path / "ca", DE, pem, key_to_pem(key), time.time)
    assert caught.value.reason is reason
    assert not (tmp_path / "ca").exists()


def test_a_key_of_another_root_is_refused(tmp_path: Path) -> None:
    pem, _ = made_elsewhere()
    _, other = made_elsewhere()
    with pytest.raises(MeshError) as caught:
        CertificateAuthority.adopt(tmp_path / "ca", DE, pem, key_to_pem(other), time.time)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_certificate_is_refused(tmp_path: Path) -> None:
    pem, key = made_elsewhere()
    for text in (b"", b"-----BEGIN CERTIFICATE-----\n", pem + pem, key_to_pem(key)):
        with pytest.raises(MeshError) as caught:
            CertificateAuthority.adopt(tmp_path / "ca", DE, text, key_to_pem(key), time.time)
        assert caught.value.reason is Reason.BUNDLE_INVALID
    assert list(tmp_path.iterdir()) == []
