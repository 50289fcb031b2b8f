"""Makes a CA of a release's own, and certificates under it: for etcd, or for a node's way to its Ray workers.

The CA vouches for that one way and for nothing of the mesh, whose identities come from the authority. RSA for
etcd, since etcd before 3.5.8 needs it (mesh/identity/board_certificate.py says why); P-256 for everything
else. Writes OUT/NAME/{ca.crt,tls.crt,tls.key}, the CA as "ca".
"""

import argparse
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Pair = tuple[x509.Certificate, Key]

ORGANIZATION = "Sovereign Mesh release"
CA_DAYS = 3650


def new_key(algorithm: str) -> Key:
    """ "rsa" (2048 bits) or "ecdsa" (P-256)."""
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def subject_of(common_name: str) -> x509.Name:
    """A subject."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def builder_of(subject: x509.Name, issuer: x509.Name, key: Key, days: int) -> x509.CertificateBuilder:
    """What CA and leaf have in common."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def usage_of(*, is_ca: bool, is_rsa: bool) -> x509.KeyUsage:
    """Key usage of a CA, or of an end of TLS."""
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=is_rsa and not is_ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def new_ca(common_name: str, algorithm: str, days: int) -> Pair:
    """A self-signed CA."""
    key, name = new_key(algorithm), subject_of(common_name)
    certificate = (
        builder_of(name, name, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage_of(is_ca=True, is_rsa=algorithm == "rsa"), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def issue(
    ca: Pair, common_name: str, dns_names: list[str], *, serves: bool, algorithm: str, days: int
) -> Pair:
    """A leaf; one that `serves` may be the client's end, too."""
    authority, signing_key = ca
    key = new_key(algorithm)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if serves else [])
    builder = (
        builder_of(subject_of(common_name), authority.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage_of(is_ca=False, is_rsa=algorithm == "rsa"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    if dns_names:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signing_key, hashes.SHA256()), key


def write(folder: Path, ca: x509.Certificate, pair: Pair) -> None:
    """Three files, for their owner alone."""
    certificate, key = pair
    pem = serialization.Encoding.PEM
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_bytes(ca.public_bytes(pem))
    (folder / "tls.crt").write_bytes(certificate.public_bytes(pem))
    (folder / "tls.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def existing_ca(folder: Path) -> Pair:
    """The CA whose tls.crt and tls.key are in the folder."""
    key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise SystemExit("expected an RSA or ECDSA key")
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()), key


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="A CA of a release's own, and certificates under it.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--algorithm", choices=["rsa", "ecdsa"], required=True)
    parser.add_argument("--ca", type=Path, help="folder with tls.crt and tls.key of one that exists")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=DNS[,DNS]")
    parser.add_argument("--client", action="append", default=[], metavar="NAME[=DNS]")
    options = parser.parse_args()
    os.umask(0o077)
    if options.ca is not None:
        ca = existing_ca(options.ca)
    else:
        ca = new_ca(f"{ORGANIZATION} CA", options.algorithm, max(options.days, CA_DAYS))
        write(options.out / "ca", ca[0], ca)
    for serves, wanted in ((True, options.server), (False, options.client)):
        for text in wanted:
            name, _, listed = text.partition("=")
            dns_names = [dns_name for dns_name in listed.split(",") if dns_name]
            leaf = issue(ca, name, dns_names, serves=serves, algorithm=options.algorithm, days=options.days)
            write(options.out / name, ca[0], leaf)


if __name__ == "__main__":
    main()
