"""A daemon's logs: where they are below its state directory, what they are called, and by which key."""

from __future__ import annotations

from pathlib import Path

from mesh.core.types import SpiffeId
from mesh.evidence.log import MerkleLog
from mesh.identity.log_keys import LogKey

DECISIONS = "decisions"
ACTIONS = "actions"


def origin_of(identity: SpiffeId, name: str = DECISIONS) -> str:
    """What a log is called: the SPIFFE id without its scheme, and for any log but that of decisions its name.

    "de.mesh.example/node/fra-1", "de.mesh.example/control/main/actions".
    """
    origin = f"{identity.trust_domain}{identity.path}"
    return origin if name == DECISIONS else f"{origin}/{name}"


def open_log(state_directory: Path, identity: SpiffeId, name: str = DECISIONS) -> MerkleLog:
    """Opens or begins `evidence/<name>` with the key `evidence/<name>.key`.

    Raises EVIDENCE_UNAVAILABLE, EVIDENCE_DAMAGED, and CONFIG_INVALID for a key that others may read.
    """
    folder = state_directory / "evidence"
    signer = LogKey.load_or_make(folder / f"{name}.key")
    return MerkleLog.open(folder / name, origin=origin_of(identity, name), signer=signer)
