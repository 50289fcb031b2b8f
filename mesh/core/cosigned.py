"""What a log's checkpoint is worth offline: signed by the log, cosigned by witnesses, keys named by records.

Receipts (receipt.py) and proven ranges (log_range.py) both rest on one. Every signature line must be one that
is checked, every record one that is needed, so that no byte of it can be changed unnoticed.

Pure: `Opener` and `Verify` bring the cryptography (mesh/attested.py).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import COSIGNATURE, ED25519, Checkpoint, Note, VerifierKey, Verify, parse_note, verify
from mesh.core.types import SpiffeId

MAX_WITNESSES = 64
MAX_NOTE_CHARS = 16 * 1024
WITNESSES = 2
"""Of so many other authorities before a checkpoint counts, unless somebody asks for more or fewer."""


class Attested(NamedTuple):
    """What a node's record says, once its signature holds: whose it is, and the keys of its log."""

    node: SpiffeId
    log_key: bytes
    witness_key: bytes


Opener = Callable[[bytes, float | None], Attested]
"""(envelope, Unix seconds; None: when it began) -> what it attests, if it held then. Raises MeshError."""


class Cosigned(NamedTuple):
    """A witness's word: at this time (Unix seconds) it saw this checkpoint follow from all before."""

    witness: SpiffeId
    at: int


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """Of this node's log, and who cosigned it."""

    node: SpiffeId
    checkpoint: Checkpoint
    witnessed: tuple[Cosigned, ...]

    @property
    def authorities(self) -> frozenset[str]:
        """The trust domains, other than the log's own, whose witnesses signed."""
        return frozenset(each.witness.trust_domain for each in self.witnessed)

    def require_witnesses(self, count: int) -> None:
        """RECEIPT_UNWITNESSED unless witnesses of at least so many other authorities have signed."""
        if len(self.authorities) < count:
            raise MeshError(
                Reason.RECEIPT_UNWITNESSED,
                f"{self.node}: its checkpoint is cosigned for {len(self.authorities)} other authorities,"
                f" not {count}: fetch it again later, or lower --witnesses",
            )


def verify_checkpoint(
    node: SpiffeId,
    signed: bytes,
    record: bytes,
    witnesses: Iterable[bytes],
    opener: Opener,
    verifier: Verify,
) -> VerifiedCheckpoint:
    """The checkpoint in the note `signed`, if it is this node's and every signature on it holds.

    `record` and `witnesses` are the envelopes of the records that name the keys. RECEIPT_INVALID, or what
    notes and records are refused with.
    """
    envelopes = tuple(witnesses)
    if len(signed) > MAX_NOTE_CHARS or len(envelopes) > MAX_WITNESSES:
        _invalid(node, f"a note of at most {MAX_NOTE_CHARS} characters and at most {MAX_WITNESSES} witnesses")
    note = parse_note(signed)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin_of(node) or checkpoint.extensions:
        _invalid(node, "one of its own log")
    stated = _stated_times(note)
    # Without a witness nobody but the log says when that was.
    own = opener(record, float(max(stated.values())) if stated else None)
    if own.node != node or not own.log_key:
        _invalid(node, "a record of its own that names the log's key")
    keys = {VerifierKey(checkpoint.origin, ED25519, own.log_key): own.node}
    for envelope in envelopes:
        key, witness = _witness(envelope, opener, stated, node)
        keys[key] = witness
    if len(keys) != 1 + len(envelopes):
        _invalid(node, "each witness once")
    found = verify(note, keys, verifier)
    if len(found) != len(keys) or len(note.signatures) != len(keys):
        _invalid(node, "exactly the signatures of the log and of the witnesses that are named")
    witnessed = tuple(
        Cosigned(keys[each.key], each.timestamp) for each in found if each.timestamp is not None
    )
    return VerifiedCheckpoint(node, checkpoint, witnessed)


def origin_of(node: SpiffeId) -> str:
    """What a node's log calls itself: its SPIFFE id without the scheme."""
    return f"{node.trust_domain}{node.path}"


def to_text(data: bytes) -> str:
    """Bytes as a file states them: base64."""
    return base64.b64encode(data).decode()


def from_text(text: str) -> bytes:
    """Reads them; ValueError, TypeError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None


def integer(value: object) -> int:
    """A number as a file states it; TypeError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _stated_times(note: Note) -> dict[str, int]:
    """By name, the times that cosignatures state: believed once the signatures are verified."""
    # A cosignature is eight bytes of time and a signature of 64; the log's own line has no time.
    return {
        each.name: int.from_bytes(each.signature[:8], "big")
        for each in note.signatures
        if len(each.signature) == 72
    }


def _witness(
    envelope: bytes, opener: Opener, stated: Mapping[str, int], log: SpiffeId
) -> tuple[VerifierKey, SpiffeId]:
    # A record says whose it is only once it is open, and it is open only at a time: so each is tried.
    for at in sorted(set(stated.values()), reverse=True):
        try:
            found = opener(envelope, float(at))
        except MeshError:
            continue
        if stated.get(origin_of(found.node)) == at and found.witness_key:
            if found.node.trust_domain == log.trust_domain:
                break
            return VerifierKey(origin_of(found.node), COSIGNATURE, found.witness_key), found.node
    _invalid(log, "records of witnesses of other authorities that signed while these held")


def _invalid(node: SpiffeId, what: str) -> NoReturn:
    raise MeshError(Reason.RECEIPT_INVALID, f"{node}: its checkpoint does not hold: expected {what}")
