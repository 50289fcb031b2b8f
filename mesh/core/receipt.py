"""Receipts: what the logs of both ends hold about one request, in one file that proves itself.

An *end* is one node's log: its entries about the request, their inclusion proofs, the checkpoint that these
lead to, with the log's own signature and those of witnesses, and the signed records that say whose keys these
are. Nobody has to be asked to check it; the roots of the authorities have to be known.

The file is JSON in one form only, so that no byte of it can be changed unnoticed: what is read is written
back byte for byte, every signature line must be one that is checked, every record one that is needed.

Pure: `Opener` and `Verify` bring the cryptography (mesh/attested.py).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import MAX_PROOF_HASHES, leaf_hash, verify_inclusion
from mesh.core.notes import COSIGNATURE, ED25519, Checkpoint, Note, VerifierKey, Verify, parse_note, verify
from mesh.core.strict_json import load_object
from mesh.core.types import SpiffeId

FORMAT = "sovereign-mesh-receipt/1"
MAX_BYTES = 4 * 1024 * 1024
MAX_ENDS = 65  # whoever placed or asked, and at most 64 nodes that were asked
MAX_ENTRIES = 64
MAX_WITNESSES = 64
MAX_NOTE_CHARS = 16 * 1024
WITNESSES = 2
"""Of so many other authorities before a checkpoint counts, unless somebody asks for more or fewer."""


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
            {"index": each.index, "entry": each.entry.decode(), "proof": [_text(h) for h in each.proof]}
            for each in end.entries
        ],
        "checkpoint": end.checkpoint.decode(),
        "record": _text(end.record),
        "witnesses": [_text(each) for each in end.witnesses],
    }


def _end_from_json(end: Mapping[str, Any]) -> End:
    entries = tuple(
        ProvenEntry(_integer(each["index"]), each["entry"].encode(), tuple(_bytes(h) for h in each["proof"]))
        for each in end["entries"]
    )
    return End(
        SpiffeId.parse(end["node"]),
        entries,
        end["checkpoint"].encode(),
        _bytes(end["record"]),
        tuple(_bytes(each) for each in end["witnesses"]),
    )


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
class VerifiedEnd:
    """An end whose proofs hold. `entries` are parsed JSON objects."""

    node: SpiffeId
    checkpoint: Checkpoint
    entries: tuple[tuple[int, Mapping[str, Any]], ...]
    witnessed: tuple[Cosigned, ...]

    @property
    def authorities(self) -> frozenset[str]:
        """The trust domains, other than the log's own, whose witnesses signed."""
        return frozenset(each.witness.trust_domain for each in self.witnessed)


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
        if len(end.authorities) < witnesses:
            raise MeshError(
                Reason.RECEIPT_UNWITNESSED,
                f"{end.node}: its checkpoint is cosigned for {len(end.authorities)} other authorities,"
                f" not {witnesses}: fetch the receipt again later, or lower --witnesses",
            )
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
    note = parse_note(end.checkpoint)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin_of(end.node) or checkpoint.extensions:
        _invalid(f"{end.node}: a checkpoint of its own log")
    stated = _stated_times(note)
    entries = tuple((each.index, _parsed(end.node, each.entry)) for each in end.entries)
    # Without a witness nobody but the log says when that was.
    own = opener(end.record, float(max(stated.values())) if stated else None)
    if own.node != end.node or not own.log_key:
        _invalid(f"{end.node}: a record of its own that names the log's key")
    keys = {VerifierKey(checkpoint.origin, ED25519, own.log_key): own.node}
    for envelope in end.witnesses:
        witness = _witness(envelope, opener, stated, end.node)
        keys[witness[0]] = witness[1]
    if len(keys) != 1 + len(end.witnesses):
        _invalid(f"{end.node}: each witness once")
    signed = verify(note, keys, verifier)
    if len(signed) != len(keys) or len(note.signatures) != len(keys):
        _invalid(f"{end.node}: exactly the signatures of the log and of the witnesses that are named")
    for each in end.entries:
        verify_inclusion(leaf_hash(each.entry), each.index, checkpoint.size, each.proof, checkpoint.root)
    witnessed = tuple(
        Cosigned(keys[each.key], each.timestamp) for each in signed if each.timestamp is not None
    )
    return VerifiedEnd(end.node, checkpoint, entries, witnessed)


def origin_of(node: SpiffeId) -> str:
    """What a node's log calls itself: its SPIFFE id without the scheme."""
    return f"{node.trust_domain}{node.path}"


def _bound(end: End) -> None:
    if not 1 <= len(end.entries) <= MAX_ENTRIES or len(end.witnesses) > MAX_WITNESSES:
        _invalid(f"{end.node}: 1 to {MAX_ENTRIES} entries and at most {MAX_WITNESSES} witnesses")
    if len(end.checkpoint) > MAX_NOTE_CHARS or any(len(e.proof) > MAX_PROOF_HASHES for e in end.entries):
        _invalid(f"{end.node}: a checkpoint and proofs within their limits")
    indexes = [each.index for each in end.entries]
    if indexes != sorted(set(indexes)):
        _invalid(f"{end.node}: entries in the order of the log, each once")


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
    _invalid(f"{log}: records of witnesses of other authorities that signed while these held")


def _parsed(node: SpiffeId, entry: bytes) -> Mapping[str, Any]:
    found = load_object(entry)
    if not isinstance(found.get("kind"), str):
        _invalid(f"{node}: entries of some kind")
    return found


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None


def _invalid(what: str) -> NoReturn:
    raise MeshError(Reason.RECEIPT_INVALID, f"the receipt does not hold: expected {what}")
