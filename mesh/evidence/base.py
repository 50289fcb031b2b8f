"""The ports of the log: `DecisionLog` for whoever must leave evidence, `EvidenceLog` for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import Checkpoint, VerifierKey

Entry = Mapping[str, object]


class SignedCheckpoint(NamedTuple):
    """A checkpoint and the signed note that states it, as bytes."""

    checkpoint: Checkpoint
    note: bytes

    @property
    def size(self) -> int:
        """The number of entries that it covers."""
        return self.checkpoint.size


class Signer(Protocol):
    """The key that a log signs with (mesh/identity/log_keys.py)."""

    @property
    def public(self) -> bytes:
        """Ed25519, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        ...


class DecisionLog(Protocol):
    """Durable, append-only. Safe to use from many tasks of one event loop."""

    async def record(self, entry: Entry) -> int:
        """Returns the entry's index once it and all before it are durable; EVIDENCE_UNAVAILABLE if not."""
        ...

    async def aclose(self) -> None:
        """Waits for what is being written, signs for it, and closes."""
        ...


class EvidenceLog(DecisionLog, Protocol):
    """A log that can be read and proved. Indexes begin at 0; sizes and indexes count durable entries only.

    An index or size that is not there is NOT_FOUND. What is read is held against the tree: files that are
    not what was written are EVIDENCE_DAMAGED.
    """

    @property
    def key(self) -> VerifierKey | None:
        """By which its checkpoints are verified; None if it cannot sign."""
        ...

    @property
    def size(self) -> int:
        """How many entries are durable."""
        ...

    async def entry(self, index: int) -> bytes:
        """One entry's bytes."""
        ...

    async def entries_in(self, start: int, end: int) -> tuple[bytes, ...]:
        """The entries [start, end), at most 1,024 of them."""
        ...

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The proof that the entry is in the tree of this size (mesh/core/merkle.py)."""
        ...

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of size `new` begins with the one of size `old`."""
        ...

    async def find(self, entry_id: str, *, recent_only: bool = False) -> tuple[int, ...]:
        """The indexes, rising, of the entries that this id is of: theirs, their decision's, or that of the
        decision on whose permit they rest (entries.ids_of).

        Reads all of the log; with `recent_only`, what is in memory: a few ten thousand entries.
        """
        ...

    @property
    def latest(self) -> SignedCheckpoint | None:
        """The newest checkpoint, None if none was signed yet."""
        ...

    async def checkpoint(self) -> SignedCheckpoint:
        """Signs for what is durable now, unless that was done already. EVIDENCE_UNAVAILABLE if it cannot."""
        ...

    async def covering(self, size: int) -> SignedCheckpoint:
        """A checkpoint of at least this size: the newest, or the next that is due."""
        ...

    def subscribe(self, told: Callable[[SignedCheckpoint], None]) -> Callable[[], None]:
        """Has every new checkpoint told, on the event loop; returns what ends that."""
        ...


def unavailable(why: str = "the decision could not be recorded, so it was not taken (I7)") -> MeshError:
    """The refusal of whatever cannot leave its evidence."""
    return MeshError(Reason.EVIDENCE_UNAVAILABLE, why, {}, 5.0)


def damaged(what: str) -> MeshError:
    """The refusal of files that are not what was written; `what` names file and expectation."""
    return MeshError(Reason.EVIDENCE_DAMAGED, what)


def not_there(what: str) -> MeshError:
    """The refusal of an index or a size that the log does not have."""
    return MeshError(Reason.NOT_FOUND, f"expected {what}")
