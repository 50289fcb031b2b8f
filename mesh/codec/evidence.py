"""The Evidence service's messages, read as hostile and written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mesh.core.cosigned import MAX_NOTE_CHARS, MAX_WITNESSES
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import MAX_RANGE, RangeProof
from mesh.core.merkle import HASH_BYTES, MAX_PROOF_HASHES
from mesh.core.receipt import MAX_ENTRIES, End, ProvenEntry
from mesh.core.records import MAX_ENVELOPE_BYTES
from mesh.core.text import shortened
from mesh.core.tiles import MAX_ENTRY_BYTES
from mesh.core.types import SpiffeId
from mesh.core.witness import MAX_ALARMS, Alarm
from sovereign.mesh.v1 import evidence_pb2

MAX_ID_CHARS = 64
MAX_WAIT_MS = 10_000
_MAX_LINE_CHARS = 1024
_LATEST = 253_402_300_799.0  # 9999-12-31, the last moment that can be shown


def cosign_from_pb(request: evidence_pb2.CosignRequest) -> tuple[bytes, int, tuple[bytes, ...]]:
    """(checkpoint, old size, proof); REQUEST_INVALID."""
    if len(request.checkpoint) > MAX_NOTE_CHARS:
        raise MeshError(Reason.REQUEST_INVALID, f"checkpoint: expected at most {MAX_NOTE_CHARS} characters")
    return request.checkpoint.encode(), request.old_size, _proof(request.proof, Reason.REQUEST_INVALID)


def cosigned_from_pb(answer: evidence_pb2.CosignResponse) -> tuple[str, int]:
    """(signature line or "", size); PEER_MISBEHAVED."""
    if len(answer.signature) > _MAX_LINE_CHARS or "\n" in answer.signature:
        raise _misbehaved("a signature on one line")
    return answer.signature, answer.size


class Asked(NamedTuple):
    """What is to be proved: the entries of this id, in whose log, on whose behalf; seconds to wait."""

    id: str
    wait_s: float
    node: SpiffeId | None
    requester: SpiffeId | None


def prove_from_pb(request: evidence_pb2.ProveRequest) -> Asked:
    """Raises REQUEST_INVALID, IDENTITY_MALFORMED."""
    if not 1 <= len(request.id) <= MAX_ID_CHARS or not request.id.isprintable():
        raise MeshError(Reason.REQUEST_INVALID, f"id: expected 1 to {MAX_ID_CHARS} printable characters")
    wait_s = _wait_s(request.wait_ms)
    node = SpiffeId.parse(request.node) if request.node else None
    if node is not None and node.kind != "node":
        raise MeshError(Reason.REQUEST_INVALID, "node: expected spiffe://<trust domain>/node/<name>")
    requester = SpiffeId.parse(request.requester) if request.requester else None
    return Asked(request.id, wait_s, node, requester)


def end_to_pb(end: End) -> evidence_pb2.ProveResponse:
    """Writes it; the node is known by who answers."""
    return evidence_pb2.ProveResponse(
        entries=[
            evidence_pb2.ProvenEntry(index=each.index, entry=each.entry, proof=each.proof)
            for each in end.entries
        ],
        checkpoint=end.checkpoint.decode(),
        record=end.record,
        witnesses=end.witnesses,
    )


def end_from_pb(answer: evidence_pb2.ProveResponse, node: SpiffeId) -> End:
    """What `node` shows; PEER_MISBEHAVED if it is not of the form. Whether it holds is not looked at here."""
    if not 1 <= len(answer.entries) <= MAX_ENTRIES or len(answer.witnesses) > MAX_WITNESSES:
        raise _misbehaved(f"1 to {MAX_ENTRIES} entries and at most {MAX_WITNESSES} witnesses")
    envelopes = _envelopes(answer)
    return End(
        node, tuple(map(_entry, answer.entries)), answer.checkpoint.encode(), envelopes[0], envelopes[1:]
    )


class AskedRange(NamedTuple):
    """Which entries are to be proved, [start, end), `end` 0 for the log's present end; seconds to wait."""

    start: int
    end: int
    wait_s: float


def prove_range_from_pb(request: evidence_pb2.ProveRangeRequest) -> AskedRange:
    """Raises REQUEST_INVALID."""
    if request.end and not 0 < request.end - request.start <= MAX_RANGE:
        raise MeshError(Reason.REQUEST_INVALID, f"end: expected 1 to {MAX_RANGE} entries after start")
    return AskedRange(request.start, request.end, _wait_s(request.wait_ms))


def range_proof_to_pb(proof: RangeProof) -> evidence_pb2.RangeProof:
    """Writes it; the node is known by who answers."""
    return evidence_pb2.RangeProof(
        start=proof.first,
        end=proof.last + 1,
        checkpoint=proof.checkpoint.decode(),
        record=proof.record,
        witnesses=proof.witnesses,
        inclusion=proof.inclusion,
        consistency=proof.consistency,
    )


def range_proof_from_pb(proof: evidence_pb2.RangeProof, node: SpiffeId) -> RangeProof:
    """What `node` shows; PEER_MISBEHAVED if it is not of the form. Whether it holds is not looked at here."""
    if not 0 < proof.end - proof.start <= MAX_RANGE or len(proof.witnesses) > MAX_WITNESSES:
        raise _misbehaved(f"1 to {MAX_RANGE} entries and at most {MAX_WITNESSES} witnesses")
    envelopes = _envelopes(proof)
    return RangeProof(
        node,
        proof.start,
        proof.end - 1,
        proof.checkpoint.encode(),
        envelopes[0],
        envelopes[1:],
        _proof(proof.inclusion, Reason.PEER_MISBEHAVED),
        _proof(proof.consistency, Reason.PEER_MISBEHAVED),
    )


def alarms_to_pb(alarms: Iterable[Alarm]) -> evidence_pb2.ListAlarmsResponse:
    """Writes them."""
    return evidence_pb2.ListAlarmsResponse(
        alarms=[
            evidence_pb2.Alarm(
                origin=each.origin,
                finding=each.finding,
                detail=each.detail,
                at=each.at,
                seen=each.seen,
                offered=each.offered,
            )
            for each in alarms
        ]
    )


def alarms_from_pb(answer: evidence_pb2.ListAlarmsResponse) -> tuple[Alarm, ...]:
    """Reads them, as far as they can be shown; PEER_MISBEHAVED."""
    if len(answer.alarms) > MAX_ALARMS or not all(0 <= each.at < _LATEST for each in answer.alarms):
        raise _misbehaved(f"at most {MAX_ALARMS} alarms, each with its time")
    return tuple(
        Alarm(
            shortened(each.origin, _MAX_LINE_CHARS),
            shortened(each.finding, _MAX_LINE_CHARS),
            shortened(each.detail, _MAX_LINE_CHARS),
            each.at,
            each.seen[:MAX_NOTE_CHARS],
            each.offered[:MAX_NOTE_CHARS],
        )
        for each in answer.alarms
    )


def _wait_s(wait_ms: int) -> float:
    if wait_ms > MAX_WAIT_MS:
        raise MeshError(Reason.REQUEST_INVALID, f"wait_ms: expected at most {MAX_WAIT_MS}")
    return wait_ms / 1000


def _envelopes(answer: evidence_pb2.ProveResponse | evidence_pb2.RangeProof) -> tuple[bytes, ...]:
    """The records, the log's own first, if these and the checkpoint are within their limits."""
    envelopes = (answer.record, *answer.witnesses)
    if len(answer.checkpoint) > MAX_NOTE_CHARS or any(len(e) > MAX_ENVELOPE_BYTES for e in envelopes):
        raise _misbehaved("a checkpoint and records within their limits")
    return envelopes


def _entry(entry: evidence_pb2.ProvenEntry) -> ProvenEntry:
    if len(entry.entry) > MAX_ENTRY_BYTES or not entry.entry.isascii():
        raise _misbehaved(f"entries of at most {MAX_ENTRY_BYTES} bytes of ASCII")
    return ProvenEntry(entry.index, entry.entry, _proof(entry.proof, Reason.PEER_MISBEHAVED))


def _proof(hashes: Iterable[bytes], reason: Reason) -> tuple[bytes, ...]:
    found = tuple(hashes)
    if len(found) > MAX_PROOF_HASHES or any(len(each) != HASH_BYTES for each in found):
        raise MeshError(reason, f"proof: expected at most {MAX_PROOF_HASHES} hashes of {HASH_BYTES} bytes")
    return found


def _misbehaved(what: str) -> MeshError:
    return MeshError(Reason.PEER_MISBEHAVED, f"expected {what}")
