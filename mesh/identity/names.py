"""The DNS names that belong to SPIFFE ids.

gRPC checks a server's DNS name and not its URI, so each identity carries both, and the one follows
from the other: ``/node/fra-1`` of de.mesh.example is ``fra-1.node.de.mesh.example``. Path segments
are reversed, so that two tenants with a client of the same name do not share a DNS name. Pure.
"""

from __future__ import annotations

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId

MAX_DNS_NAME = 253


def dns_name_of(identity: SpiffeId) -> str:
    """The DNS name in this identity's certificate; IDENTITY_MALFORMED if it would be too long."""
    name = ".".join([*reversed(identity.path[1:].split("/")), identity.trust_domain])
    if len(name) > MAX_DNS_NAME:
        raise MeshError(Reason.IDENTITY_MALFORMED, f"the DNS name has more than {MAX_DNS_NAME} characters")
    return name


def is_within(dns_name: str, trust_domain: str) -> bool:
    """Whether the DNS name is the trust domain or below it (RFC 5280 section 4.2.1.10)."""
    name = dns_name.lower()
    return name == trust_domain or name.endswith("." + trust_domain)
