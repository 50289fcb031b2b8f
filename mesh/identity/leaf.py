"""What a leaf certificate says: one SPIFFE id, one key, a serial number and a time.

Reading is not believing: verify.py checks who issued it. The form is that of the X.509-SVID
specification (https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md), narrowed to P-256.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.keys import UNREADABLE, PublicKey, is_accepted_key
from mesh.identity.names import is_within

MAX_CERTIFICATE_BYTES = 8 * 1024

_KNOWN_CRITICAL = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A certificate that names an identity. `serial` is lower-case hex; times are Unix seconds."""

    id: SpiffeId
    serial: str
    not_before: float
    not_after: float
    public_key: PublicKey
    certificate: x509.Certificate


def read_leaf(der: bytes) -> Leaf:
    """Reads an SVID (DER); raises IDENTITY_MALFORMED, saying what an SVID must be."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise MeshError(Reason.IDENTITY_MALFORMED, f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        public_key = certificate.public_key()
        extensions = certificate.extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        serial = certificate.serial_number
        canonical = is_canonical(certificate, der)
    except x509.ExtensionNotFound:
        raise MeshError(Reason.IDENTITY_MALFORMED, "a certificate needs key usage and a SPIFFE id") from None
    except UNREADABLE:
        raise MeshError(Reason.IDENTITY_MALFORMED, "expected an X.509 certificate in DER") from None
    if not canonical or serial <= 0:
        raise MeshError(Reason.IDENTITY_MALFORMED, "expected an X.509 certificate in DER, its serial above 0")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise MeshError(Reason.IDENTITY_MALFORMED, "a certificate names exactly one SPIFFE id")
    identity = SpiffeId.parse(uris[0])
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not is_accepted_key(public_key):
        raise MeshError(Reason.IDENTITY_MALFORMED, "a certificate's key must be ECDSA P-256")
    is_ca = any(isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in extensions)
    if is_ca or usage.key_cert_sign or usage.crl_sign or not usage.digital_signature:
        raise MeshError(Reason.IDENTITY_MALFORMED, "an SVID may sign statements and no certificates")
    if any(e.critical and e.oid not in _KNOWN_CRITICAL for e in extensions):
        raise MeshError(
            Reason.IDENTITY_MALFORMED, "the certificate has a critical extension that is not known here"
        )
    # What the root's name constraints make TLS check; signed statements get the same rule here.
    if not all(is_within(name, identity.trust_domain) for name in names.get_values_for_type(x509.DNSName)):
        raise MeshError(Reason.IDENTITY_MALFORMED, "the certificate's DNS names are not of its trust domain")
    return Leaf(
        identity,
        format(serial, "x"),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        public_key,
        certificate,
    )


def is_canonical(certificate: x509.Certificate, der: bytes) -> bool:
    """Whether these bytes are the one form of this certificate.

    The library checks signatures over its own encoding of what it read, so bytes that DER forbids would
    pass; and a signature whose last bit is 0 could be said to be one bit shorter.
    """
    return certificate.public_bytes(serialization.Encoding.DER) == der and der.endswith(
        b"\0" + certificate.signature
    )


def chain_to_pem(chain_der: tuple[bytes, ...]) -> bytes:
    """The chain as concatenated PEM, in the order given."""
    certificates = (x509.load_der_x509_certificate(der) for der in chain_der)
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def chain_from_pem(pem: bytes) -> tuple[bytes, ...]:
    """The certificates (DER) in concatenated PEM; raises IDENTITY_MALFORMED."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        return tuple(c.public_bytes(serialization.Encoding.DER) for c in certificates)
    except UNREADABLE:
        raise MeshError(Reason.IDENTITY_MALFORMED, "expected X.509 certificates in PEM") from None
