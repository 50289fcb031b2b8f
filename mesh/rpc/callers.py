"""Who is calling, and may this kind of identity call here at all?

The first question of every servicer. The certificate was verified by the handshake and by
mesh/identity; this adds what only the snapshot knows, that its authority has revoked it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import grpc

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import Snapshot, TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.peer import Peer, peer_of

CLIENT = "client"
ADMIN = "admin"
NODE = "node"
CONTROL = "control"


def caller_of(
    context: grpc.aio.ServicerContext[Any, Any],
    bundles: Mapping[str, TrustBundle],
    snapshot: Snapshot,
    now: float,
    kinds: Collection[str] = (),
) -> Peer:
    """The caller, if its certificate holds now, is not revoked and is of one of these kinds.

    No kinds: any. Raises IDENTITY_*; IDENTITY_NOT_ALLOWED for another kind.
    """
    peer = peer_of(context, bundles, now)
    refuse_revoked(peer, snapshot)
    if kinds and peer.id.kind not in kinds:
        expected = " or ".join(f"/{kind}/..." for kind in kinds)
        raise MeshError(Reason.IDENTITY_NOT_ALLOWED, f"expected a caller named {expected}")
    return peer


def refuse_revoked(peer: Peer, snapshot: Snapshot) -> None:
    """Raises IDENTITY_REVOKED if the peer's own authority has cut it off, by name or by serial."""
    if snapshot.is_revoked(peer.id, peer.serial):
        raise MeshError(Reason.IDENTITY_REVOKED, "the caller's authority has revoked it")


def require_still(peer: Peer, snapshot: Snapshot, now: float) -> None:
    """For calls that last: IDENTITY_REVOKED, IDENTITY_EXPIRED if the caller no longer may call at `now`."""
    refuse_revoked(peer, snapshot)
    if now >= peer.not_after:
        raise MeshError(Reason.IDENTITY_EXPIRED, "the caller's certificate ran out during the call")


def require_speaks_for(peer: Peer, requester: SpiffeId | None) -> SpiffeId:
    """The client that a node asks for; IDENTITY_NOT_ALLOWED unless it is one of the node's own authority."""
    if requester is None or requester.kind != CLIENT or requester.trust_domain != peer.id.trust_domain:
        raise MeshError(
            Reason.IDENTITY_NOT_ALLOWED,
            "requester: expected a /client/... of the asking node's own trust domain",
        )
    return requester
