"""An authority's certificate authority: one name-constrained root, and what it issues.

The root issues leaves directly, for names of its own trust domain only: by its own check here, and by
the critical name constraints that every verifier applies even if this code were to be bypassed. It
knows no rules about who may have which name: control/ca/issuance.py does.

Files, all in a directory of mode 0700: ``root.key``, ``root.pem``, and ``authority.key``,
``authority.pem``, the key that signs records. Root key and TLS never meet: the record-signing
certificate cannot be used for TLS, and the root signs certificates alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId, jurisdiction_of
from mesh.identity.keys import (
    UNREADABLE,
    PrivateKey,
    PublicKey,
    generate_key,
    key_from_pem,
    key_to_pem,
    read_csr,
)
from mesh.identity.leaf import chain_from_pem, chain_to_pem
from mesh.identity.names import dns_name_of
from mesh.identity.private_files import make_private_directory, read_file, sync_directory, write_file
from mesh.identity.roots import constraints_for, read_root
from mesh.identity.signing import Signer

DAY_S = 86_400.0
ROOT_LIFE_S = 3652 * DAY_S
AUTHORITY_LIFE_S = 365 * DAY_S
MAX_TTL_S = DAY_S
MIN_TTL_S = 1.0
# Clocks differ: a certificate holds a little before it was issued, a tenth of its life at most, so
# that half of a short life is still ahead.
BACK_DATE_S = 60.0

AUTHORITY_PATH = "/authority"

_TLS_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
# RFC 9336, for signing documents. It is there because it is not TLS: a certificate without any
# extended key usage could be used for everything.
_SIGNING_USAGES = (x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36"),)


class CertificateAuthority:
    """One trust domain's root and record-signing key, loaded into memory."""

    def __init__(self, directory: Path, root_der: bytes, root_key: PrivateKey, trust_domain: str) -> None:
        self._directory = directory
        self._root_der = root_der
        self._root = read_root(root_der, trust_domain)
        self._key = root_key
        self._trust_domain = trust_domain
        self._signer: Signer | None = None
        if root_key.public_key() != self._root.public_key():
            raise MeshError(Reason.CONFIG_INVALID, "root.key does not belong to root.pem")

    @classmethod
    def create(
        cls, directory: Path | str, trust_domain: str, clock: Callable[[], float]
    ) -> CertificateAuthority:
        """Makes a new authority; the directory must not exist yet, or be empty.

        It appears complete or not at all. Raises CONFIG_INVALID if something is there already,
        IDENTITY_MALFORMED or COUNTRY_UNKNOWN for a trust domain whose first label is no country.
        """
        SpiffeId(trust_domain, AUTHORITY_PATH)
        jurisdiction_of(trust_domain)
        key = generate_key()
        root = _self_signed_root(key, trust_domain, clock())
        return cls._store(Path(directory), root, key, trust_domain, clock)

    @classmethod
    def adopt(
        cls,
        directory: Path | str,
        trust_domain: str,
        certificate_pem: bytes,
        key_pem: bytes,
        clock: Callable[[], float],
    ) -> CertificateAuthority:
        """The same around a root that somebody else made, such as cert-manager.

        It has to be what `create` would have made: self-signed, ECDSA P-256, critical name constraints for
        the trust domain alone, the trust domain as its URI name, and valid now. Raises BUNDLE_INVALID,
        CONFIG_INVALID, IDENTITY_EXPIRED and what `create` raises.
        """
        SpiffeId(trust_domain, AUTHORITY_PATH)
        jurisdiction_of(trust_domain)
        try:
            chain = chain_from_pem(certificate_pem)
        except MeshError as error:
            raise MeshError(Reason.BUNDLE_INVALID, f"the root certificate: {error.message}") from None
        if len(chain) != 1:
            raise MeshError(Reason.BUNDLE_INVALID, "the root certificate: expected one, in PEM")
        root = read_root(chain[0], trust_domain)
        try:
            root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            raise MeshError(Reason.BUNDLE_INVALID, "a root needs a subject key identifier") from None
        if not root.subject.rdns:
            raise MeshError(Reason.BUNDLE_INVALID, "a root needs a subject, which what it issues will name")
        if _trust_domain_of(chain[0]) != trust_domain:
            raise MeshError(Reason.BUNDLE_INVALID, f"a root needs the URI name spiffe://{trust_domain}")
        if not root.not_valid_before_utc.timestamp() <= clock() < root.not_valid_after_utc.timestamp():
            raise MeshError(Reason.IDENTITY_EXPIRED, "the root certificate is not valid now")
        return cls._store(Path(directory), chain[0], key_from_pem(key_pem), trust_domain, clock)

    @classmethod
    def _store(
        cls, target: Path, root: bytes, root_key: PrivateKey, trust_domain: str, clock: Callable[[], float]
    ) -> CertificateAuthority:
        make_private_directory(target.parent)
        if target.exists() and any(target.iterdir()):
            raise MeshError(
                Reason.CONFIG_INVALID, f"{target.name} is not empty: an authority is never overwritten"
            )
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            authority = cls(staging, root, root_key, trust_domain)
            write_file(staging / "root.key", key_to_pem(root_key))
            write_file(staging / "root.pem", chain_to_pem((root,)), mode=0o644)
            authority._renew_signer(clock())
            staging.rename(target)
            sync_directory(target.parent)
        except OSError as error:
            raise MeshError(
                Reason.CONFIG_INVALID, f"the authority cannot be stored in {target.name}: {error.strerror}"
            ) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        authority._directory = target
        return authority

    @classmethod
    def load(cls, directory: Path | str) -> CertificateAuthority:
        """Reads an authority's directory; NOT_FOUND, or CONFIG_INVALID (also if others can read a key)."""
        source = Path(directory)
        key = key_from_pem(read_file(source / "root.key", private=True))
        chain = chain_from_pem(read_file(source / "root.pem"))
        if len(chain) != 1:
            raise MeshError(Reason.CONFIG_INVALID, "root.pem: expected one certificate")
        return cls(source, chain[0], key, _trust_domain_of(chain[0]))

    @property
    def trust_domain(self) -> str:
        """Whose names it issues."""
        return self._trust_domain

    @property
    def bundle(self) -> TrustBundle:
        """What others need to verify what it issues."""
        return TrustBundle(self._trust_domain, (self._root_der,))

    def issue(self, csr_der: bytes, identity: SpiffeId, ttl_s: float, now: float) -> tuple[bytes, ...]:
        """A certificate chain (DER, leaf first, root left out) for the CSR's key under this name.

        `ttl_s` is 1 s to 24 h. Only the CSR's key counts, and that its sender holds it. Raises
        CSR_INVALID, or IDENTITY_NOT_ALLOWED for names of another trust domain and the authority's own.
        """
        if identity.trust_domain != self._trust_domain or identity.kind == AUTHORITY_PATH[1:]:
            raise MeshError(
                Reason.IDENTITY_NOT_ALLOWED,
                f"this authority issues names of {self._trust_domain} except its own",
            )
        if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
            raise MeshError(
                Reason.REQUEST_INVALID,
                f"a certificate's life: expected {MIN_TTL_S:.0f} to {MAX_TTL_S:.0f} seconds",
            )
        return (self._issue(read_csr(csr_der), identity, ttl_s, now, _TLS_USAGES, dns_name_of(identity)),)

    def signer(self, now: float) -> Signer:
        """The signer of this authority's records; its certificate is renewed when half its life is over.

        Raises CONFIG_INVALID if the files do not fit, OSError if a renewal cannot be stored.
        """
        if self._signer is None:
            key = key_from_pem(read_file(self._directory / "authority.key", private=True))
            self._signer = Signer(chain_from_pem(read_file(self._directory / "authority.pem")), key)
        if now >= self._signer.half_life:
            self._signer = self._renew_signer(now)
        return self._signer

    def _renew_signer(self, now: float) -> Signer:
        # The key stays: certificate and key are two files, and one write cannot leave them at odds.
        path = self._directory / "authority.key"
        if not path.exists():
            write_file(path, key_to_pem(generate_key()))
        key = key_from_pem(read_file(path, private=True))
        identity = SpiffeId(self._trust_domain, AUTHORITY_PATH)
        chain = (self._issue(key.public_key(), identity, AUTHORITY_LIFE_S, now, _SIGNING_USAGES, ""),)
        write_file(self._directory / "authority.pem", chain_to_pem(chain), mode=0o644, replace=True)
        return Signer(chain, key)

    def _issue(
        self,
        public_key: PublicKey,
        identity: SpiffeId,
        ttl_s: float,
        now: float,
        usages: tuple[x509.ObjectIdentifier, ...],
        dns_name: str,
    ) -> bytes:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        if dns_name:
            names.insert(0, x509.DNSName(dns_name))
        builder = (
            _builder(public_key, now - min(BACK_DATE_S, ttl_s / 10), now + ttl_s)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sovereign Mesh")]))
            .issuer_name(self._root.subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    self._root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _self_signed_root(key: PrivateKey, trust_domain: str, now: float) -> bytes:
    # The serial number tells this domain's successive roots apart by name as well.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sovereign Mesh"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, format(x509.random_serial_number(), "x")[:16]),
        ]
    )
    builder = (
        _builder(key.public_key(), now - BACK_DATE_S, now + ROOT_LIFE_S)
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(constraints_for(trust_domain), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _builder(public_key: PublicKey, not_before: float, not_after: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(not_before), UTC))
        .not_valid_after(datetime.fromtimestamp(int(not_after), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _trust_domain_of(root_der: bytes) -> str:
    try:
        names = x509.load_der_x509_certificate(root_der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, *UNREADABLE):
        raise MeshError(
            Reason.CONFIG_INVALID, "root.pem: expected a root that names its trust domain"
        ) from None
    return uri.removeprefix("spiffe://")
