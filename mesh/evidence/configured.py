"""A daemon's logs: where they are below its state directory, what they are called, and by which key.

A key signs for one log only. It is written when its log has begun and before anything is signed; from then
on, one without the other is EVIDENCE_DAMAGED: a log that began anew under a key that has signed before would
sign two histories.
"""

from __future__ import annotations

from pathlib import Path

from mesh.core import cosigned
from mesh.core.errors import MeshError, Reason
from mesh.core.tiles import CHECKPOINT_PATH
from mesh.core.types import SpiffeId
from mesh.evidence import journal
from mesh.evidence.base import damaged, unavailable
from mesh.evidence.log import MerkleLog
from mesh.evidence.opening import begin
from mesh.identity.log_keys import LogKey
from mesh.identity.private_files import make_private_directory, sync_directory

DECISIONS = "decisions"
ACTIONS = "actions"


def origin_of(identity: SpiffeId, name: str = DECISIONS) -> str:
    """What a log is called: the SPIFFE id without its scheme, and for any log but that of decisions its name.

    "de.mesh.example/node/fra-1", "de.mesh.example/control/main/actions".
    """
    origin = cosigned.origin_of(identity)
    return origin if name == DECISIONS else f"{origin}/{name}"


def open_log(state_directory: Path, identity: SpiffeId, name: str = DECISIONS) -> MerkleLog:
    """Opens or begins `evidence/<name>` with the key `evidence/<name>.key`.

    Raises EVIDENCE_UNAVAILABLE, EVIDENCE_DAMAGED, and CONFIG_INVALID for a key that others may read.
    """
    folder = state_directory / "evidence" / name
    try:
        for each in (state_directory, folder.parent):
            if not each.is_dir():
                make_private_directory(each)
                sync_directory(each.parent)
    except OSError as error:
        raise unavailable(f"the log's folder cannot be made: {error.strerror}") from error
    signer = _key_of(folder)
    return MerkleLog.open(folder, origin=origin_of(identity, name), signer=signer)


def _key_of(folder: Path) -> LogKey:
    path = folder.with_name(f"{folder.name}.key")
    try:
        signer = LogKey.load(path)
    except MeshError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return _begun(folder, path)
    if not (folder / journal.FOLDER).is_dir():
        raise damaged(f"evidence/{folder.name}: expected the log that {path.name} has signed for")
    return signer


def _begun(folder: Path, path: Path) -> LogKey:
    if (folder / CHECKPOINT_PATH).exists():
        raise damaged(f"evidence/{path.name}: expected the key that has signed for the log beside it")
    try:
        begin(folder)
    except OSError as error:
        raise unavailable(f"the log's folder cannot be used: {error.strerror}") from error
    made = LogKey.generate()
    made.save(path)
    return made
