"""Which names an authority gives, to whom, and for how long: pure rules.

There are three doors, and each gives one kind of name. An administrator gets certificates for clients
and administrators; a join token gets one for the node that it was made for; a certificate that is due
gets its successor, under the same name. Nobody gets ``/authority`` or ``/control``: those keys are
made where they are used. Whoever is revoked gets nothing, by whatever door.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import Revocations
from mesh.core.types import SpiffeId, node_id

MIN_TTL_S = 60.0
MAX_TTL_S = 86_400.0

# Segments of a path that an administrator may ask for, the kind included.
_ADMIN_MAY_ISSUE = {"client": (2, 3), "admin": (2,)}
_RENEWABLE = frozenset({"node", "client", "admin", "control"})


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be issued: this name, for this long (seconds)."""

    id: SpiffeId
    ttl_s: float


def require_administrator(caller: SpiffeId, trust_domain: str) -> None:
    """Raises IDENTITY_NOT_ALLOWED unless the caller is an administrator of this authority."""
    if caller.kind != "admin" or caller.trust_domain != trust_domain:
        raise MeshError(
            Reason.IDENTITY_NOT_ALLOWED, f"expected an administrator: spiffe://{trust_domain}/admin/..."
        )


def require_node_name(name: str) -> None:
    """Raises IDENTITY_MALFORMED unless it is one path segment, so that it is one DNS label and one key."""
    if node_id("x", name).path.count("/") != 2:
        raise MeshError(Reason.IDENTITY_MALFORMED, 'a node\'s name: expected 1 to 63 of a-z, 0-9 and "-"')


def grant_by_administrator(
    trust_domain: str, path: str, ttl_s: float, revoked: Revocations, longest_s: float = MAX_TTL_S
) -> Grant:
    """What an administrator gets for a client or an administrator. `ttl_s` 0 means the longest.

    Raises IDENTITY_MALFORMED, IDENTITY_NOT_ALLOWED, IDENTITY_REVOKED or REQUEST_INVALID.
    """
    identity = SpiffeId(trust_domain, path)
    segments = path.count("/")
    if segments not in _ADMIN_MAY_ISSUE.get(identity.kind, ()):
        raise MeshError(
            Reason.IDENTITY_NOT_ALLOWED,
            "expected /client/<tenant>, /client/<tenant>/<name> or /admin/<name>; nodes join with a token",
        )
    return _grant(identity, ttl_s, revoked, longest_s)


def grant_by_token(trust_domain: str, node: str, revoked: Revocations, longest_s: float = MAX_TTL_S) -> Grant:
    """What the bearer of a join token for this node gets. IDENTITY_MALFORMED, IDENTITY_REVOKED."""
    require_node_name(node)
    return _grant(node_id(trust_domain, node), 0, revoked, longest_s)


def grant_by_renewal(
    trust_domain: str, caller: SpiffeId, serial: str, revoked: Revocations, longest_s: float = MAX_TTL_S
) -> Grant:
    """What the holder of a valid certificate gets: the same name again.

    `serial` is that certificate's. Raises IDENTITY_NOT_ALLOWED or IDENTITY_REVOKED.
    """
    if caller.trust_domain != trust_domain or caller.kind not in _RENEWABLE:
        raise MeshError(Reason.IDENTITY_NOT_ALLOWED, f"only certificates of {trust_domain} are renewed here")
    if serial in revoked.serials:
        raise MeshError(Reason.IDENTITY_REVOKED, "this certificate is revoked")
    return _grant(caller, 0, revoked, longest_s)


def _grant(identity: SpiffeId, ttl_s: float, revoked: Revocations, longest_s: float) -> Grant:
    if identity in revoked.ids:
        raise MeshError(Reason.IDENTITY_REVOKED, f"{identity} is revoked")
    if ttl_s and not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise MeshError(
            Reason.REQUEST_INVALID,
            f"ttl: expected {MIN_TTL_S:.0f} to {MAX_TTL_S:.0f} seconds, or 0 for the longest",
        )
    return Grant(identity, min(ttl_s or MAX_TTL_S, longest_s))
