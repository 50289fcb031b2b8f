"""Who is at the other end of a call, from what gRPC says of its connection.

The handshake has proved the certificate; this reads the name in it, and checks it again by our own
rules (verify.py), for three reasons. A connection outlives its handshake: its certificate may have
ended since, or its authority been dropped. A session that TLS 1.3 resumes is not asked for its
certificate again: gRPC's stack would accept one for two days after its end. And a certificate whose
name no constraint covers, because it has none, must not pass as somebody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.leaf import chain_from_pem
from mesh.identity.verify import verify_chain

MAX_PEM_BYTES = 16 * 1024


class AuthenticatedCall(Protocol):
    """The part of a grpc.aio ServicerContext that is looked at."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Facts about the connection, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller. `serial` is its certificate's, lower-case hex; `not_after` is in Unix seconds."""

    id: SpiffeId
    serial: str
    not_after: float


def peer_of(context: AuthenticatedCall, bundles: Mapping[str, TrustBundle], now: float) -> Peer:
    """The caller of a gRPC call, its certificate valid at `now` under the bundles accepted now.

    Raises IDENTITY_MALFORMED without a certificate that names one SPIFFE id, IDENTITY_UNTRUSTED,
    IDENTITY_EXPIRED. Costs a few microseconds once a certificate has been seen.
    """
    certificates = tuple(context.auth_context().get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise MeshError(Reason.IDENTITY_MALFORMED, "expected a TLS connection with a client certificate")
    identity = verify_chain(_chain_of(certificates[0]), bundles, now)
    return Peer(identity.id, identity.serial, identity.not_after)


@lru_cache(maxsize=4096)
def _chain_of(pem: bytes) -> tuple[bytes, ...]:
    if len(pem) > MAX_PEM_BYTES:
        raise MeshError(Reason.IDENTITY_MALFORMED, f"a certificate has at most {MAX_PEM_BYTES} bytes")
    return chain_from_pem(pem)
