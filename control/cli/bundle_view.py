"""Showing a trust bundle so that two people can compare it over the telephone."""

from __future__ import annotations

from typing import Any

from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import fingerprints


def bundle_json(bundle: TrustBundle) -> dict[str, Any]:
    """The bundle for programs."""
    return {
        "trust_domain": bundle.trust_domain,
        "sequence": bundle.sequence,
        "fingerprints": list(fingerprints(bundle)),
    }


def bundle_lines(bundle: TrustBundle) -> list[str]:
    """The bundle for people."""
    return [f"{bundle.trust_domain} root {fingerprint}" for fingerprint in fingerprints(bundle)]
