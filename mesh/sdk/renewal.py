"""Renewing the caller's own certificate at its authority's control plane.

`renewer` makes what SvidSource.run wants: a callable that turns a new key's CSR into a certificate,
over mutual TLS with the certificate that is still good. The bundles that come back replace the known
ones, so a client learns of newly federated authorities when it renews.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.keys import make_key_and_csr
from mesh.identity.names import dns_name_of
from mesh.identity.source import Renew, SvidSource
from mesh.identity.svid import Svid
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.sdk.placers import Server
from sovereign.mesh.v1 import admin_pb2, admin_pb2_grpc, records_pb2

RENEW_TIMEOUT_S = 15.0
# A command that finds its certificate half used up waits this long for a new one, and else goes on.
RENEW_ON_THE_WAY_S = 3.0
MAX_CHAIN = 3

_LOG = logging.getLogger(__name__)


def renewer(pool: ChannelPool, control: Server) -> Renew:
    """Renews at this control plane; raises UNREACHABLE, IDENTITY_REVOKED, ..."""

    async def renew(csr: bytes) -> tuple[tuple[bytes, ...], tuple[TrustBundle, ...]]:
        channel = pool.channel(
            control.endpoint, dns_name=dns_name_of(control.id), trust_domain=control.id.trust_domain
        )
        try:
            answer = await admin_pb2_grpc.EnrolmentStub(channel).Renew(
                admin_pb2.RenewRequest(csr=csr), timeout=RENEW_TIMEOUT_S
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        return chain_of(answer.certificate_chain), bundles_of(answer.bundles)

    return renew


async def renew_if_due(source: SvidSource, directory: Path, renew: Renew, now: float) -> bool:
    """Renews once, if half of the certificate's life is over and no other process is at it.

    Whether it did. A failure is logged and is no error while the certificate holds.
    """
    if now < source.svid.half_life:
        return False
    with _only_one(directory) as alone:
        if not alone:
            return False
        try:
            async with asyncio.timeout(RENEW_ON_THE_WAY_S):
                key, csr = make_key_and_csr()
                chain, bundles = await renew(csr)
            if bundles:
                source.set_bundles(bundles)
            source.rotate(Svid(chain, key))
            await asyncio.to_thread(source.save)
        except (MeshError, OSError) as error:  # TimeoutError is an OSError
            _LOG.info("%s was not renewed: %s", source.id, type(error).__name__)
            return False
    return True


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[bool]:
    """Two processes that write one identity at once could leave a key beside the other's certificate."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def chain_of(chain: Iterable[bytes]) -> tuple[bytes, ...]:
    """A certificate chain as answered: 1 to 3 certificates (DER), leaf first."""
    found = tuple(chain)
    if not 1 <= len(found) <= MAX_CHAIN:
        raise MeshError(Reason.IDENTITY_MALFORMED, f"expected 1 to {MAX_CHAIN} certificates")
    return found


def bundles_of(bundles: Iterable[records_pb2.TrustBundle]) -> tuple[TrustBundle, ...]:
    """Trust bundles as answered; raises RECORD_MALFORMED."""
    found = list(bundles)
    if len(found) > codec.MAX_BUNDLES:
        raise MeshError(Reason.RECORD_MALFORMED, f"expected at most {codec.MAX_BUNDLES} bundles")
    return tuple(codec.bundle_from_pb(bundle) for bundle in found)
