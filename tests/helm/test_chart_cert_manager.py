"""The root that the chart asks cert-manager for is one that an authority can adopt.

cert-manager is not here: its certificate is made from the fields of the rendered Certificate, as its API
describes them, and nothing that they do not say is added.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import key_to_pem
from tests.support.chart.rendering import Case, Renderer

pytestmark = pytest.mark.slow

DE = "de.mesh.example"
VALUES = {
    "trustDomain": DE,
    "assumeApiVersions": ["cert-manager.io/v1"],
    "authority": {"source": "certManager"},
    "model": {"source": "none"},
    "node": {"engine": {"kind": "scripted"}},
}


def issued(spec: Mapping[str, Any]) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """What a self-signing issuer makes of it: PEM, and its key."""
    assert spec["privateKey"] == {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"}
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in spec["subject"]["organizations"]]
        + [x509.NameAttribute(NameOID.COMMON_NAME, spec["commonName"])]
    )
    permitted = spec["nameConstraints"]["permitted"]
    assert set(permitted) <= {"dnsDomains", "uriDomains"}
    subtrees: list[x509.GeneralName] = [x509.DNSName(each) for each in permitted["dnsDomains"]]
    subtrees += [x509.UniformResourceIdentifier(each) for each in permitted["uriDomains"]]
    usages = {"digital_signature": "digital signature", "key_cert_sign": "cert sign", "crl_sign": "crl sign"}
    allowed = {name: usage in spec["usages"] for name, usage in usages.items()}
    rest = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    allowed |= dict.fromkeys((*rest, "encipher_only", "decipher_only"), False)
    now = datetime.now(UTC)
    life = timedelta(hours=float(spec["duration"].removesuffix("h")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=spec["isCA"], path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**allowed), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in spec["uris"]]),
            critical=False,
        )
        .add_extension(x509.NameConstraints(subtrees, None), critical=spec["nameConstraints"]["critical"])
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM), key


def test_an_authority_adopts_it(render: Renderer, tmp_path: Path) -> None:
    rendered = render(Case("root-of-cert-manager", VALUES))
    (root,) = [each["spec"] for each in rendered.of_kind("Certificate") if each["spec"].get("uris")]
    certificate, key = issued(root)
    later = time.time() + 1.0
    CertificateAuthority.adopt(tmp_path / "ca", DE, certificate, key_to_pem(key), lambda: later)
    assert (tmp_path / "ca" / "authority.key").exists()
    # Another root has to be exchanged with every other authority: late, and never with another key.
    assert root["renewBeforePercentage"] == 10


def test_its_secret_is_where_the_nodes_and_the_control_plane_look(render: Renderer) -> None:
    rendered = render(Case("root-of-cert-manager", VALUES))
    (root,) = [each["spec"] for each in rendered.of_kind("Certificate") if each["spec"].get("uris")]
    (node,) = [pod for pod in rendered.pods if pod.component == "node"]
    (trust,) = [each["secret"] for each in node.spec["volumes"] if each["name"] == "trust"]
    assert trust["secretName"] == root["secretName"]
    assert trust["items"] == [{"key": "tls.crt", "path": "root.pem"}], "and never tls.key"
    (control,) = [pod for pod in rendered.pods if pod.component == "control"]
    (secret,) = [each["secret"] for each in control.spec["volumes"] if each["name"] == "authority-secret"]
    assert secret["secretName"] == root["secretName"]
