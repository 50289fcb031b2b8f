"""A range of a node's log, all of it, in one file that proves itself: `sovereign-mesh-bundle/1`.

The first line states whose log, which indexes, and what proves them; each further line is one entry, in the
order of the log. Two proofs do for any number of entries: the inclusion proof of the first one holds the
roots of all that is before it, so that the entries, appended, give the root of the log up to the range's end;
from there a consistency proof leads to the checkpoint (RFC 9162, 2.1.3 and 2.1.4). An entry that is changed,
left out, added or moved gives another root.

There is one form only, so that no byte can be changed unnoticed: every line read is the one that would be
written. Files are read line by line, and nothing is kept of entries. Whether the proofs hold is known at the
end: what was read before is hostile until then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from mesh.core.audit_entries import MAX_TIME
from mesh.core.cosigned import (
    MAX_NOTE_CHARS,
    MAX_WITNESSES,
    WITNESSES,
    Opener,
    VerifiedCheckpoint,
    from_text,
    integer,
    to_text,
    verify_checkpoint,
)
from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import (
    MAX_PROOF_HASHES,
    MAX_TREE_SIZE,
    Frontier,
    leaf_hash,
    verify_consistency,
)
from mesh.core.notes import Checkpoint, Verify
from mesh.core.tiles import MAX_ENTRY_BYTES
from mesh.core.types import SpiffeId

FORMAT = "sovereign-mesh-bundle/1"
MARK = b'{"format": "sovereign-mesh-bundle/'
"""How every such file begins, also one of a later form."""
MAX_RANGE = 10_000_000
MAX_HEAD_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 6 * MAX_ENTRY_BYTES + 128  # JSON in JSON; six is what a control character takes

ReadLine = Callable[[int], bytes]
"""At most so many bytes, up to and with the next line break; b"" at the end. A file's `readline`."""


@dataclass(frozen=True, slots=True)
class RangeProof:
    """What the first line states: the entries `first` to `last` of this node's log, and their proofs.

    `record` and `witnesses` are envelopes of node records; `checkpoint` is a note. `inclusion` is of the
    first entry, `consistency` from the range's end, both up to the checkpoint.
    """

    node: SpiffeId
    first: int
    last: int
    checkpoint: bytes
    record: bytes
    witnesses: tuple[bytes, ...]
    inclusion: tuple[bytes, ...]
    consistency: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """How many entries."""
        return self.last - self.first + 1

    def to_line(self) -> bytes:
        """The line."""
        document = {
            "format": FORMAT,
            "node": str(self.node),
            "first": self.first,
            "last": self.last,
            "entries": self.count,
            "checkpoint": self.checkpoint.decode(),
            "record": to_text(self.record),
            "witnesses": [to_text(each) for each in self.witnesses],
            "inclusion": [to_text(each) for each in self.inclusion],
            "consistency": [to_text(each) for each in self.consistency],
        }
        return f"{json.dumps(document)}\n".encode()

    @classmethod
    def from_line(cls, line: bytes) -> RangeProof:
        """Reads it; RECEIPT_INVALID for anything that `to_line` does not write."""
        try:
            stated = json.loads(line)
            found = cls(
                SpiffeId.parse(stated["node"]),
                integer(stated["first"]),
                integer(stated["last"]),
                stated["checkpoint"].encode(),
                from_text(stated["record"]),
                tuple(from_text(each) for each in stated["witnesses"]),
                tuple(from_text(each) for each in stated["inclusion"]),
                tuple(from_text(each) for each in stated["consistency"]),
            )
            same = found.to_line() == line
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MeshError):
            same = False
        if not same:
            _invalid(f"a first line in the one form of {FORMAT}")
        if not (0 <= found.first <= found.last < MAX_TREE_SIZE and found.count <= MAX_RANGE):
            _invalid(f"1 to {MAX_RANGE} entries")
        proofs = (found.inclusion, found.consistency)
        if (
            len(found.witnesses) > MAX_WITNESSES
            or len(found.checkpoint) > MAX_NOTE_CHARS
            or any(len(each) > MAX_PROOF_HASHES for each in proofs)
        ):
            _invalid("a checkpoint, witnesses and proofs within their limits")
        return found


class RangeCheck:
    """Whether entries, added one by one, are those that the proof is of. Signatures are no concern of it."""

    __slots__ = ("_frontier", "_left", "_proof", "_tree")

    def __init__(self, proof: RangeProof, tree: Checkpoint) -> None:
        self._proof = proof
        self._tree = tree
        self._left = proof.count
        self._frontier: Frontier | None = None

    def add(self, entry: bytes) -> None:
        """The next entry. PROOF_INVALID if it is the first and not at its place; no more than `count`."""
        leaf, proof, tree = leaf_hash(entry), self._proof, self._tree
        if self._frontier is None:
            self._frontier = Frontier.before(leaf, proof.first, tree.size, proof.inclusion, tree.root)
        self._frontier.append(leaf)
        self._left -= 1

    def finish(self) -> None:
        """After the last; PROOF_INVALID unless these are the entries, all of them."""
        if self._frontier is None or self._left != 0:
            raise MeshError(Reason.PROOF_INVALID, f"expected {self._proof.count} entries")
        end, tree = self._frontier, self._tree
        verify_consistency(end.size, tree.size, end.root(), tree.root, self._proof.consistency)


@dataclass(frozen=True, slots=True)
class VerifiedRange(VerifiedCheckpoint):
    """The range is what the log has there. `times`: earliest and latest that entries state, Unix seconds."""

    first: int
    last: int
    times: tuple[float, float] | None


def entry_line(index: int, entry: bytes) -> bytes:
    """One entry as a line; RECEIPT_INVALID if it is no ASCII of at most MAX_ENTRY_BYTES."""
    if len(entry) > MAX_ENTRY_BYTES or not entry.isascii():
        _invalid(f"entry {index} of at most {MAX_ENTRY_BYTES} bytes of ASCII")
    return f"{json.dumps({'index': index, 'entry': entry.decode()})}\n".encode()


def read_proof(readline: ReadLine) -> RangeProof:
    """The first line of a file; RECEIPT_INVALID."""
    return RangeProof.from_line(readline(MAX_HEAD_BYTES))


def read_entries(readline: ReadLine, proof: RangeProof) -> Iterator[tuple[int, bytes]]:
    """The rest of the file, each entry with its index; RECEIPT_INVALID unless the range is whole."""
    for index in range(proof.first, proof.last + 1):
        line = readline(MAX_LINE_BYTES)
        try:
            entry = json.loads(line)["entry"].encode("ascii")
            same = entry_line(index, entry) == line
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MeshError):
            same = False
        if not same:
            _invalid(f"a line with entry {index} in the one form of {FORMAT}")
        yield index, entry
    if readline(1):
        _invalid(f"the end of the file after entry {proof.last}")


def verify_range(
    readline: ReadLine, opener: Opener, verifier: Verify, witnesses: int = WITNESSES
) -> VerifiedRange:
    """What the file proves, if everything in it holds.

    RECEIPT_INVALID says what does not and why; RECEIPT_UNWITNESSED if all holds but witnesses of fewer than
    `witnesses` other authorities have signed the checkpoint.
    """
    proof = read_proof(readline)
    try:
        found = verify_checkpoint(
            proof.node, proof.checkpoint, proof.record, proof.witnesses, opener, verifier
        )
        check = RangeCheck(proof, found.checkpoint)
        times: tuple[float, float] | None = None
        for _, entry in read_entries(readline, proof):
            check.add(entry)
            at = _time(entry)
            if at is not None:
                times = (min(at, times[0]), max(at, times[1])) if times else (at, at)
        check.finish()
    except MeshError as error:
        if error.reason is Reason.RECEIPT_INVALID:
            raise
        raise MeshError(Reason.RECEIPT_INVALID, f"{proof.node}: {error.message}") from None
    found.require_witnesses(witnesses)
    return VerifiedRange(found.node, found.checkpoint, found.witnessed, proof.first, proof.last, times)


def _time(entry: bytes) -> float | None:
    """When the entry says it was logged; None if it does not."""
    try:
        at = json.loads(entry)["at"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return float(at) if isinstance(at, int | float) and 0 <= at <= MAX_TIME else None


def _invalid(what: str) -> NoReturn:
    raise MeshError(Reason.RECEIPT_INVALID, f"the bundle does not hold: expected {what}")
