"""Real authorities and SVIDs for tests, and certificates that no authority of ours would issue."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import generate_key, key_from_pem, make_key_and_csr
from mesh.identity.source import SvidSource
from mesh.identity.svid import Svid


class AuthorityForTests:
    """An authority with its keys at hand, so that a test can also misuse them."""

    def __init__(self, directory: Path, trust_domain: str) -> None:
        self.directory = directory / trust_domain
        self.ca = CertificateAuthority.create(self.directory, trust_domain, time.time)
        self.trust_domain = trust_domain

    @property
    def bundle(self) -> TrustBundle:
        return self.ca.bundle

    def id(self, path: str) -> SpiffeId:
        return SpiffeId(self.trust_domain, path)

    def svid(self, path: str, ttl_s: float = 3600, now: float | None = None) -> Svid:
        key, csr = make_key_and_csr()
        return Svid(self.ca.issue(csr, self.id(path), ttl_s, time.time() if now is None else now), key)

    def source(
        self,
        path: str,
        others: Iterable[TrustBundle] = (),
        *,
        svid: Svid | None = None,
        directory: Path | None = None,
    ) -> SvidSource:
        return SvidSource(
            svid or self.svid(path),
            [self.bundle, *others],
            clock=time.time,
            random=lambda: 0.5,
            directory=directory,
        )

    @property
    def root(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.bundle.roots[0])

    @property
    def root_key(self) -> ec.EllipticCurvePrivateKey:
        return key_from_pem((self.directory / "root.key").read_bytes())

    def forge(
        self,
        names: Iterable[x509.GeneralName],
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        public_key: object = None,
        not_before: float | None = None,
        not_after: float | None = None,
        is_ca: bool = False,
        digital_signature: bool = True,
        extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
        usages: Iterable[x509.ObjectIdentifier] = (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ),
    ) -> tuple[tuple[bytes, ...], ec.EllipticCurvePrivateKey]:
        """A certificate that this authority's key signs, with none of our CA's checks."""
        key = key or generate_key()
        now = time.time()
        builder = (
            x509.CertificateBuilder()
            .public_key(public_key or key.public_key())  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - 60 if not_before is None else not_before))
            .not_valid_after(_moment(now + 3600 if not_after is None else not_after))
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=digital_signature,
                    key_cert_sign=is_ca,
                    crl_sign=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        )
        san = list(names)
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=True)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(self.root_key, hashes.SHA256())
        return (certificate.public_bytes(serialization.Encoding.DER),), key

    def forged_svid(self, spiffe_id: str, dns_name: str, **options: object) -> Svid:
        """An SVID in whatever name, signed by this authority."""
        names = [x509.DNSName(dns_name), x509.UniformResourceIdentifier(spiffe_id)]
        return Svid(*self.forge(names, **options))  # type: ignore[arg-type]


def root_certificate(
    trust_domain: str = "de.mesh.example",
    *,
    subject: x509.Name | None = None,
    critical: bool = True,
    permitted: Iterable[x509.GeneralName] | None = (),
    ca: bool = True,
) -> bytes:
    """A self-signed root (DER), by default as it should be. `permitted` None: it excludes instead."""
    key = generate_key()
    names = list(permitted or ()) or [
        x509.DNSName(trust_domain),
        x509.UniformResourceIdentifier(trust_domain),
    ]
    constraints = x509.NameConstraints(*((None, names) if permitted is None else (names, None)))
    name = x509.Name([]) if subject is None else subject
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(1)
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(_moment(time.time() - 60))
        .not_valid_after(_moment(time.time() + 86_400))
        .add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(constraints, critical=critical)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def server_certificate(address: str) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    """A self-signed certificate (PEM) of a server that is no part of the mesh, for one IP address."""
    key = generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
    certificate = (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(_moment(time.time() - 60))
        .not_valid_after(_moment(time.time() + 86_400))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
