"""Enrolling this machine as a node: a join token and a key made here, against a certificate.

The control plane proves itself under the authority's root, which came as a file; this side has
nothing to prove itself with but the token.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from control.cli.identity_files import require_vacant, write_identity
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.bundle import MAX_BUNDLE_BYTES, load_bundle
from mesh.identity.keys import make_key_and_csr
from mesh.identity.names import dns_name_of
from mesh.identity.private_files import read_file
from mesh.identity.svid import Svid
from mesh.identity.tls import channel_options, enrolment_channel_credentials
from mesh.rpc.status import from_rpc_error
from mesh.sdk.renewal import bundles_of, chain_of
from sovereign.mesh.v1 import admin_pb2, admin_pb2_grpc

ENROL_TIMEOUT_S = 20.0


async def enrol(token: str, endpoint: str, control_name: str, bundle_file: Path, out: Path) -> Svid:
    """Writes the new identity into `out` and returns it; raises JOIN_TOKEN_INVALID, UNREACHABLE, ..."""
    require_vacant(out)
    bundle = load_bundle(read_file(bundle_file, limit=MAX_BUNDLE_BYTES))
    name = dns_name_of(SpiffeId(bundle.trust_domain, f"/control/{control_name}"))
    key, csr = make_key_and_csr()
    credentials = enrolment_channel_credentials(bundle)
    async with grpc.aio.secure_channel(endpoint, credentials, channel_options(name)) as channel:
        try:
            async with asyncio.timeout(ENROL_TIMEOUT_S):
                answer = await admin_pb2_grpc.EnrolmentStub(channel).Enroll(
                    admin_pb2.EnrollRequest(token=token.strip(), csr=csr)
                )
        except TimeoutError:
            raise MeshError(Reason.UNREACHABLE, f"no answer within {ENROL_TIMEOUT_S:g} s") from None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
    bundles = {b.trust_domain: b for b in bundles_of(answer.bundles)}
    # What the machine's owner brought outweighs what came over the wire.
    bundles[bundle.trust_domain] = bundle
    expected = SpiffeId.parse(answer.spiffe_id)
    if expected.trust_domain != bundle.trust_domain or expected.kind != "node":
        raise MeshError(Reason.IDENTITY_MALFORMED, f"expected the name of a node of {bundle.trust_domain}")
    return write_identity(out, chain_of(answer.certificate_chain), key, bundles.values(), expected)
