"""Having a certificate issued for a key that is made here: what `client issue` and `admin issue` share."""

from __future__ import annotations

from pathlib import Path

from control.cli.identity_files import IDENTITY, require_vacant, write_identity, write_profile
from control.cli.session import Session, call
from mesh.core.types import SpiffeId
from mesh.identity.keys import make_key_and_csr
from mesh.identity.svid import Svid
from mesh.sdk.renewal import bundles_of, chain_of
from sovereign.mesh.v1 import admin_pb2


async def issue_profile(session: Session, path: str, ttl_s: int, out: Path) -> Svid:
    """A new key under `path` ("/client/...", "/admin/...") with a profile like this session's own."""
    require_vacant(out)
    key, csr = make_key_and_csr()
    request = admin_pb2.IssueCertificateRequest(csr=csr, path=path, ttl_seconds=ttl_s)
    answer = await call(session.admin.IssueCertificate(request))
    svid = write_identity(
        out / IDENTITY,
        chain_of(answer.certificate_chain),
        key,
        bundles_of(answer.bundles),
        SpiffeId(session.profile.trust_domain, path),
    )
    write_profile(out, session.profile.model_copy(update={"identity": Path(IDENTITY)}))
    return svid
