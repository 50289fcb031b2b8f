"""Writes the trust bundle of an authority from its root certificate: ROOT.pem TRUST-DOMAIN BUNDLE.json.

A node needs nothing else of the authority, and must not see more of it.
"""

import sys
from pathlib import Path

from mesh.core.errors import MeshError
from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import dump_bundle
from mesh.identity.leaf import chain_from_pem

root, trust_domain, bundle = sys.argv[1:]
try:
    document = dump_bundle(TrustBundle(trust_domain, tuple(chain_from_pem(Path(root).read_bytes()))))
except (MeshError, OSError) as error:
    sys.exit(f"{root}: {error}")
Path(bundle).write_bytes(document)
