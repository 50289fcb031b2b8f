"""Witnessing: does this checkpoint follow from what was seen of the log before?

Whoever owns a log's machine can rewrite the log, but not unseen: nodes of other authorities keep the newest
checkpoint that they were shown and cosign only what provably begins with it. The semantics are those of
C2SP tlog-witness. What does not follow is an alarm, and two checkpoints with the log's own signature under
them are its proof.

Pure: what was seen comes in as an argument; whoever calls keeps what comes out before anybody hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import verify_consistency
from mesh.core.notes import Checkpoint


class Finding(StrEnum):
    """What can be wrong with a log."""

    FORK = "fork"  # two roots for one size
    ROLLBACK = "rollback"  # it goes on from less than it had shown
    INCONSISTENT = "inconsistent"  # it does not show that it begins with what it had shown
    NEW_KEY = "new-key"  # it began anew under another key


MAX_ALARMS = 1024  # that a node tells of
REASONS = {
    Finding.FORK: Reason.LOG_FORKED,
    Finding.ROLLBACK: Reason.LOG_ROLLED_BACK,
    Finding.INCONSISTENT: Reason.PROOF_INVALID,
}


@dataclass(frozen=True, slots=True)
class Follows:
    """It follows: to be kept as seen, then cosigned."""


@dataclass(frozen=True, slots=True)
class Behind:
    """The asker believes that this witness saw another size than it did: it may ask again from `size`."""

    size: int


@dataclass(frozen=True, slots=True)
class Wrong:
    """It does not follow. `detail` is one sentence for people."""

    finding: Finding
    detail: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something wrong with a log. `seen` and `offered` are its checkpoints, as notes; `at`: Unix seconds."""

    origin: str
    finding: str
    detail: str
    at: float
    seen: str
    offered: str


def judge(
    seen: Checkpoint | None, offered: Checkpoint, old_size: int, proof: Sequence[bytes]
) -> Follows | Behind | Wrong:
    """What a witness that has `seen` this says to what is `offered`, with a proof from `old_size`.

    Both checkpoints carry the signature of the same log's key; whoever calls has verified that. Nothing seen
    is a log of size 0. Oracle: a witness that holds every entry and compares lists.
    """
    size = seen.size if seen is not None else 0
    if seen is not None and offered.size < size:
        return Wrong(
            Finding.ROLLBACK,
            f"it had shown {size} entries and now goes on from {offered.size}",
        )
    if seen is not None and offered.size == size:
        if offered.root != seen.root:
            return Wrong(Finding.FORK, f"it shows two different lists of {size} entries")
        return Follows()
    if old_size != size:
        return Behind(size)
    if seen is None or size == 0:
        # Every log begins with the empty one.
        return Wrong(Finding.INCONSISTENT, "it proves what needs no proof") if proof else Follows()
    try:
        verify_consistency(size, offered.size, seen.root, offered.root, proof)
    except MeshError:
        return Wrong(
            Finding.INCONSISTENT,
            f"it does not show that its {offered.size} entries begin with the {size} that it had shown",
        )
    return Follows()
