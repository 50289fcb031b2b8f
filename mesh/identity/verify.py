"""Who a certificate chain belongs to, and which root says so.

Deliberately narrower than a general path builder: an SVID stands directly under a root, names exactly
one SPIFFE id, and that id's trust domain picks the roots that may vouch for it (I5: the board, which
delivers chains, has no say). gRPC verifies handshakes by itself; this is for signed statements, and
the second opinion on peers.

Verified signatures are remembered by the SHA-256 of certificate and root, up to a bound. Validity in
time is checked again on every use.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from mesh.core.errors import MeshError, Reason
from mesh.core.records import CLOCK_TOLERANCE_S
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.keys import UNREADABLE, PublicKey
from mesh.identity.leaf import read_leaf
from mesh.identity.roots import read_root

REMEMBERED_CHAINS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedIdentity:
    """Whom a chain belongs to. `serial` is lower-case hex; times are Unix seconds.

    The times are the stricter of the certificate's and its root's.
    """

    id: SpiffeId
    serial: str
    not_before: float
    not_after: float
    public_key: PublicKey


class _Memory:
    """Verified chains, least recently used dropped first. Shared by threads: gRPC brings its own."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[VerifiedIdentity, bytes]] = OrderedDict()

    def get(self, key: bytes) -> tuple[VerifiedIdentity, bytes] | None:
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def put(self, key: bytes, identity: VerifiedIdentity, root: bytes) -> None:
        with self._lock:
            self._known[key] = (identity, root)
            if len(self._known) > self._size:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)


_memory = _Memory(REMEMBERED_CHAINS)


def verify_chain(
    chain_der: Sequence[bytes], bundles: Mapping[str, TrustBundle], now: float
) -> VerifiedIdentity:
    """The identity that this chain (DER, leaf first, root left out) proves at `now`.

    `bundles` maps trust domains to the roots accepted for them. Raises IDENTITY_MALFORMED,
    IDENTITY_UNTRUSTED or IDENTITY_EXPIRED.
    """
    identity = verify_signatures(chain_der, bundles)
    check_time(identity, now)
    return identity


def check_time(identity: VerifiedIdentity, now: float) -> None:
    """Raises IDENTITY_EXPIRED unless the certificate is valid at `now`.

    A certificate from the near future is taken for clocks that differ, up to CLOCK_TOLERANCE_S; one
    that has ended is over (the same rule as for statements).
    """
    if now >= identity.not_after:
        raise MeshError(
            Reason.IDENTITY_EXPIRED,
            f"the certificate of {identity.id} expired {now - identity.not_after:.0f} s ago: renew it",
        )
    if now < identity.not_before - CLOCK_TOLERANCE_S:
        raise MeshError(
            Reason.IDENTITY_EXPIRED,
            f"the certificate of {identity.id} begins in {identity.not_before - now:.0f} s: compare clocks",
        )


def verify_signatures(chain_der: Sequence[bytes], bundles: Mapping[str, TrustBundle]) -> VerifiedIdentity:
    """Like verify_chain, without the time. Raises IDENTITY_MALFORMED or IDENTITY_UNTRUSTED."""
    if not chain_der:
        raise MeshError(Reason.IDENTITY_MALFORMED, "expected a certificate")
    if len(chain_der) > 1:
        raise MeshError(Reason.IDENTITY_UNTRUSTED, "expected a certificate that a root issued directly")
    der = chain_der[0]
    key = hashlib.sha256(der).digest()
    known = _memory.get(key)
    if known is not None:
        identity, root_der = known
        bundle = bundles.get(identity.id.trust_domain)
        if bundle is not None and root_der in bundle.roots:
            return identity
    identity, root_der = _verify(der, bundles)
    _memory.put(key, identity, root_der)
    return identity


def _verify(der: bytes, bundles: Mapping[str, TrustBundle]) -> tuple[VerifiedIdentity, bytes]:
    leaf = read_leaf(der)
    trust_domain = leaf.id.trust_domain
    bundle = bundles.get(trust_domain)
    if bundle is None:
        raise MeshError(Reason.IDENTITY_UNTRUSTED, f"no trust bundle is known for {trust_domain}")
    for root_der in bundle.roots:
        try:
            root = read_root(root_der, trust_domain)
            leaf.certificate.verify_directly_issued_by(root)
        except (MeshError, InvalidSignature, *UNREADABLE):
            continue  # a root that vouches for nothing here; another one may
        identity = VerifiedIdentity(
            leaf.id,
            leaf.serial,
            max(leaf.not_before, root.not_valid_before_utc.timestamp()),
            min(leaf.not_after, root.not_valid_after_utc.timestamp()),
            leaf.public_key,
        )
        return identity, root_der
    raise MeshError(
        Reason.IDENTITY_UNTRUSTED, f"no root of {trust_domain} has issued the certificate of {leaf.id}"
    )
