"""A certificate for an etcd that has none: self-signed, RSA, trusted by nobody but who is given it.

The board is no authority's (I5), so no authority has to vouch for it: its clients trust this one
certificate. And it is RSA, unlike everything else here, because of two limits that meet. Before 3.5.8
and 3.4.25 etcd speaks TLS 1.2 at most (https://github.com/etcd-io/etcd/pull/15156); and the TLS 1.2
suites that tls13.py leaves to gRPC are the ones that need an RSA server key, which no SVID has. So
etcd can be reached over TLS 1.2 and nothing of the mesh can. An etcd with a certificate of its own
needs an RSA key too, or TLS 1.3.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_BITS = 2048
LIFE_S = 365 * 86_400.0
BACK_DATE_S = 60.0


def make_board_certificate(dns_name: str, now: float, life_s: float = LIFE_S) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM for an etcd member of this name. Takes a fraction of a second.

    The certificate is also what clients have to trust.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sovereign Mesh board")])
    certificate = (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(subject)
        .not_valid_before(datetime.fromtimestamp(int(now - BACK_DATE_S), UTC))
        .not_valid_after(datetime.fromtimestamp(int(now + life_s), UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
