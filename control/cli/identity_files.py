"""Writing an identity: key, certificate and trust bundles in a private directory.

The layout is mesh/identity's; `SvidSource.load` reads it back. A key is made on the machine where
this runs and goes nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.core.types import SpiffeId
from mesh.identity.bundle import check_bundle, save_bundle
from mesh.identity.keys import PrivateKey
from mesh.identity.private_files import make_private_directory
from mesh.identity.source import BUNDLE_DIRECTORY
from mesh.identity.svid import CHAIN_FILE, Svid, save_svid
from mesh.identity.verify import verify_chain
from mesh.sdk.profile import FILE_NAME, Profile

IDENTITY = "identity"


def require_vacant(directory: Path) -> None:
    """Raises CONFIG_INVALID if an identity or a profile is there already: neither is overwritten."""
    for name in (FILE_NAME, CHAIN_FILE, f"{IDENTITY}/{CHAIN_FILE}"):
        if (directory / name).exists():
            raise MeshError(
                Reason.CONFIG_INVALID, f"{directory / name} exists already and is not overwritten"
            )


def write_identity(
    directory: Path,
    chain: tuple[bytes, ...],
    key: PrivateKey,
    bundles: Iterable[TrustBundle],
    expected: SpiffeId,
) -> Svid:
    """Writes key (mode 0600), certificate and bundles; the directory gets mode 0700.

    Raises IDENTITY_* or BUNDLE_INVALID, and writes nothing, unless the chain is `expected`'s and valid
    now under its own authority's bundle.
    """
    svid = Svid(chain, key)
    accepted = {bundle.trust_domain: bundle for bundle in bundles}
    for bundle in accepted.values():
        check_bundle(bundle)
    if svid.id != expected or verify_chain(chain, accepted, time.time()).id != expected:
        raise MeshError(Reason.IDENTITY_UNTRUSTED, f"expected a certificate for {expected}")
    make_private_directory(directory)
    make_private_directory(directory / BUNDLE_DIRECTORY)
    for bundle in accepted.values():
        save_bundle(directory / BUNDLE_DIRECTORY, bundle)
    save_svid(directory, svid)
    return svid


def write_profile(directory: Path, profile: Profile) -> Path:
    """Writes profile.yaml into a directory of mode 0700."""
    make_private_directory(directory)
    return profile.save(directory)
