"""Step 6's attacker: an authority that signs a certificate in somebody else's name.

Our own CA refuses to issue one, so this takes the authority's key and X.509 by hand, as a dishonest
authority would.
"""

from __future__ import annotations

import datetime
import random
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mesh.core.types import SpiffeId
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import key_from_pem
from mesh.identity.names import dns_name_of
from mesh.identity.source import SvidSource
from mesh.identity.svid import Svid
from mesh.identity.tls import dial, server_credentials

_METHOD = "/demo.Handshake/Hello"
_SIGNATURE_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def forged_identity(ca_directory: Path, victim: SpiffeId, accepts: SvidSource) -> SvidSource:
    """The victim's name over a new key, signed by this authority. It accepts what `accepts` accepts."""
    ca = CertificateAuthority.load(ca_directory)
    root = x509.load_der_x509_certificate(ca.bundle.roots[0])
    root_key = key_from_pem((ca_directory / "root.key").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.fromtimestamp(int(time.time()), datetime.UTC)
    names = [x509.DNSName(dns_name_of(victim)), x509.UniformResourceIdentifier(str(victim))]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNATURE_ONLY, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    svid = Svid((certificate.public_bytes(serialization.Encoding.DER),), key)
    return SvidSource(svid, accepts.bundles.values(), clock=time.time, random=random.random)


@dataclass(frozen=True)
class Handshake:
    """Whether a call went through, and what its caller saw."""

    succeeded: bool
    seen: str


async def handshake(*, client: SvidSource, server: SvidSource, address_as: SpiffeId) -> Handshake:
    """A real TLS handshake and one call on loopback; the client expects to reach `address_as`."""

    async def hello(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return request

    listener = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(hello)
    listener.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("demo.Handshake", {"Hello": handler}),)
    )
    port = listener.add_secure_port("127.0.0.1:0", server_credentials(server))
    await listener.start()
    channel = dial(client, f"127.0.0.1:{port}", address_as.trust_domain, dns_name_of(address_as))
    try:
        await channel.unary_unary(_METHOD)(b"hello", timeout=5)
        return Handshake(True, "the call went through")
    except grpc.aio.AioRpcError as error:
        return Handshake(False, f"{error.code().name}: {error.details()}"[:120])
    finally:
        await channel.close()
        await listener.stop(None)
