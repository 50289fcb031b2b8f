"""Receipts: what the logs of both ends hold about one request, in one file that proves itself.

An *end* is one node's log: its entries about the request, their inclusion proofs, the checkpoint that these
lead to, with the log's own signature and those of witnesses, and the signed records that say whose keys these
are. Nobody has to be asked to check it; the roots of the authorities have to be known.

The file is JSON in one form only, so that no byte of it can be changed unnoticed: what is read is written
back byte for byte, and nothing in it is unused (cosigned.py).

Pure: `Opener` and `Verify` bring the cryptography (mesh/attested.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mesh.core.cosigned import (
    WITNESSES,
    Opener,
    VerifiedCheckpoint,
    from_text,
    integer,
    to_text,
    verify_checkpoint,
)
from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import MAX_PROOF_HASHES, leaf_hash, verify_inclusion
from mesh.core.notes import Verify
from mesh.core.strict_json import load_object
from mesh.core.types import SpiffeId

FORMAT = "sovereign-mesh-receipt/1"
MAX_BYTES = 4 * 1024 * 1024
MAX_ENDS = 65  # whoever placed or asked, and at most 64 nodes that were asked
MAX_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """One entry of a log as it was logged (JSON), its index, and its inclusion proof."""

    index: int
    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class End:
    """One log's part. `record` and `witnesses` are envelopes of node records; `checkpoint` is a note."""

    node: SpiffeId
    entries: tuple[ProvenEntry, ...]
    checkpoint: bytes
    record: bytes
    witnesses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The ends of one request: first who placed it or asked, then who served."""

    ends: tuple[End, ...]

    def to_json(self) -> bytes:
        """The file."""
        document = {"format": FORMAT, "ends": [_end_to_json(end) for end in self.ends]}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Receipt:
        """Reads a file; RECEIPT_INVALID for anything that `to_json` does not write."""
        if len(data) > MAX_BYTES:
            _invalid(f"a file of at most {MAX_BYTES} bytes")
        try:
            document = json.loads(data)
            ends = tuple(_end_from_json(end) for end in document["ends"])
            receipt = cls(ends)
            same = document["format"] == FORMAT and receipt.to_json() == data
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MeshError):
            same = False
        if not same:
            _invalid(f"a file in the one form of {FORMAT}")
        if not 1 <= len(receipt.ends) <= MAX_ENDS:
            _invalid(f"1 to {MAX_ENDS} ends")
        return receipt


def _end_to_json(end: End) -> dict[str, object]:
    return {
        "node": str(end.node),
        "entries": [
            {"index": each.index, "entry": each.entry.decode(), "proof": [to_text(h) for h in each.proof]}
            for each in end.entries
        ],
        "checkpoint": end.checkpoint.decode(),
        "record": to_text(end.record),
        "witnesses": [to_text(each) for each in end.witnesses],
    }


def _end_from_json(end: Mapping[str, Any]) -> End:
    entries = tuple(
        ProvenEntry(
            integer(each["index"]), each["entry"].encode(), tuple(from_text(h) for h in each["proof"])
        )
        for each in end["entries"]
    )
    return End(
        SpiffeId.parse(end["node"]),
        entries,
        end["checkpoint"].encode(),
        from_text(end["record"]),
        tuple(from_text(each) for each in end["witnesses"]),
    )


@dataclass(frozen=True, slots=True)
class VerifiedEnd(VerifiedCheckpoint):
    """An end whose proofs hold. `entries` are parsed JSON objects."""

    entries: tuple[tuple[int, Mapping[str, Any]], ...]


def verify_receipt(
    receipt: Receipt, opener: Opener, verifier: Verify, witnesses: int = WITNESSES
) -> tuple[VerifiedEnd, ...]:
    """The ends, if everything in every one of them holds.

    RECEIPT_INVALID says which does not and why; RECEIPT_UNWITNESSED if all holds but witnesses of fewer than
    `witnesses` other authorities have signed a checkpoint.
    """
    nodes = [end.node for end in receipt.ends]
    if len(set(nodes)) < len(nodes):
        _invalid("each node once")
    found = tuple(_verify_end(end, opener, verifier) for end in receipt.ends)
    for end in found:
        end.require_witnesses(witnesses)
    return found


def _verify_end(end: End, opener: Opener, verifier: Verify) -> VerifiedEnd:
    try:
        return _checked_end(end, opener, verifier)
    except MeshError as error:
        if error.reason is Reason.RECEIPT_INVALID:
            raise
        raise MeshError(Reason.RECEIPT_INVALID, f"{end.node}: {error.message}") from None


def _checked_end(end: End, opener: Opener, verifier: Verify) -> VerifiedEnd:
    _bound(end)
    entries = tuple((each.index, _parsed(end.node, each.entry)) for each in end.entries)
    found = verify_checkpoint(end.node, end.checkpoint, end.record, end.witnesses, opener, verifier)
    tree = found.checkpoint
    for each in end.entries:
        verify_inclusion(leaf_hash(each.entry), each.index, tree.size, each.proof, tree.root)
    return VerifiedEnd(end.node, tree, found.witnessed, entries)


def _bound(end: End) -> None:
    if not 1 <= len(end.entries) <= MAX_ENTRIES:
        _invalid(f"{end.node}: 1 to {MAX_ENTRIES} entries")
    if any(len(each.proof) > MAX_PROOF_HASHES for each in end.entries):
        _invalid(f"{end.node}: proofs within their limits")
    indexes = [each.index for each in end.entries]
    if indexes != sorted(set(indexes)):
        _invalid(f"{end.node}: entries in the order of the log, each once")


def _parsed(node: SpiffeId, entry: bytes) -> Mapping[str, Any]:
    found = load_object(entry)
    if not isinstance(found.get("kind"), str):
        _invalid(f"{node}: entries of some kind")
    return found


def _invalid(what: str) -> NoReturn:
    raise MeshError(Reason.RECEIPT_INVALID, f"the receipt does not hold: expected {what}")
