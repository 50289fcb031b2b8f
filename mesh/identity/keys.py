"""Private keys and certificate signing requests: ECDSA P-256, and nothing else.

One curve keeps the number of ways to be wrong small: it is what SVIDs, roots and envelopes are
specified with, and what every TLS 1.3 stack has. A key is made on the machine that uses it and never
leaves it; what travels is a CSR, of which only the public key counts.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.core.errors import MeshError, Reason

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

MAX_CSR_BYTES = 8 * 1024

# What `cryptography` raises over bytes that are not the X.509 they should be. Found by fuzzing: it has no
# common base class for them.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def generate_key() -> PrivateKey:
    """A new P-256 key from the operating system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def is_accepted_key(key: object) -> bool:
    """Whether a public key is of the one accepted kind."""
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def key_to_pem(key: PrivateKey) -> bytes:
    """PKCS#8 PEM, unencrypted: at rest it is guarded by file permissions (private_files.py)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(pem: bytes) -> PrivateKey:
    """Reads a key; CONFIG_INVALID unless it is an unencrypted P-256 key in PEM."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MeshError(Reason.CONFIG_INVALID, "expected an unencrypted ECDSA P-256 key in PEM")
    return key


def make_csr(key: PrivateKey) -> bytes:
    """A PKCS#10 request (DER) for this key. It names nobody: the authority decides the name."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def make_key_and_csr() -> tuple[PrivateKey, bytes]:
    """A new key and its certificate signing request (DER)."""
    key = generate_key()
    return key, make_csr(key)


def read_csr(csr_der: bytes) -> PublicKey:
    """The public key of a CSR whose sender has proved that it holds the private one.

    Subject and extensions are ignored. Raises CSR_INVALID.
    """
    if len(csr_der) > MAX_CSR_BYTES:
        raise MeshError(Reason.CSR_INVALID, f"expected at most {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(csr_der)
        public_key = request.public_key()
        proved = is_accepted_key(public_key) and request.is_signature_valid
    except UNREADABLE:
        raise MeshError(Reason.CSR_INVALID, "expected a PKCS#10 request in DER") from None
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not is_accepted_key(public_key):
        raise MeshError(Reason.CSR_INVALID, "expected an ECDSA P-256 key")
    if not proved:
        raise MeshError(Reason.CSR_INVALID, "the request is not signed with its own key")
    return public_key
