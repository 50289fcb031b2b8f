"""What a root certificate must be before anything is believed under it.

A root speaks for one trust domain. Its name constraints say so in the certificate itself, critical,
so that every TLS stack that verifies under it refuses a certificate in another domain's name, gRPC's
included. A root that lacks them is never accepted, whoever vouches for it.

RFC 5280 section 4.2.1.10: a DNS constraint ``de.mesh.example`` covers that name and all below; a URI
constraint is a host, ``de.mesh.example``, matched exactly (``.de.mesh.example`` would cover the hosts
below and not the host itself). A SPIFFE id's host is the trust domain, so the plain form it is.
BoringSSL (gRPC) and Go's crypto/x509 both read it so.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from mesh.core.errors import MeshError, Reason
from mesh.identity.keys import UNREADABLE, is_accepted_key
from mesh.identity.leaf import is_canonical


def constraints_for(trust_domain: str) -> x509.NameConstraints:
    """The name constraints of this trust domain's root."""
    return x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(trust_domain), x509.UniformResourceIdentifier(trust_domain)],
        excluded_subtrees=None,
    )


@lru_cache(maxsize=256)
def read_root(der: bytes, trust_domain: str) -> x509.Certificate:
    """Reads a root of this trust domain (DER); raises BUNDLE_INVALID, saying what is missing.

    Whether it is valid at some time is for verify.py to say, which knows the time.
    """
    try:
        root = x509.load_der_x509_certificate(der)
        extensions = root.extensions
        root.verify_directly_issued_by(root)
        accepted = is_accepted_key(root.public_key())
        canonical = is_canonical(root, der)
        basic = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        names = extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        raise MeshError(
            Reason.BUNDLE_INVALID, "a root needs basic constraints, key usage and name constraints"
        ) from None
    except InvalidSignature:
        raise MeshError(Reason.BUNDLE_INVALID, "a root must be self-signed") from None
    except UNREADABLE:
        raise MeshError(Reason.BUNDLE_INVALID, "expected an X.509 root certificate in DER") from None
    if not canonical:
        raise MeshError(Reason.BUNDLE_INVALID, "expected an X.509 root certificate in DER")
    if not accepted:
        raise MeshError(Reason.BUNDLE_INVALID, "a root's key must be ECDSA P-256")
    if not (basic.critical and basic.value.ca and usage.key_cert_sign):
        raise MeshError(Reason.BUNDLE_INVALID, "a root must be a CA certificate that may sign certificates")
    if not names.critical or not _constrains_to(names.value, trust_domain):
        raise MeshError(
            Reason.BUNDLE_INVALID,
            f"a root must carry critical name constraints, for DNS names and URIs of {trust_domain} alone",
        )
    return root


def _constrains_to(names: x509.NameConstraints, trust_domain: str) -> bool:
    # Subtrees of other kinds (IP addresses, mail) would only permit what no SVID may carry anyway;
    # a root that lists them is refused all the same, because its authority meant something else.
    wanted = {x509.DNSName(trust_domain), x509.UniformResourceIdentifier(trust_domain)}
    permitted = names.permitted_subtrees or []
    return len(permitted) == len(wanted) and set(permitted) == wanted
