"""Evidence: cosigns other authorities' logs, and shows this node's own log to whom it concerns.

- `Cosign` is for nodes of other authorities about their own logs. Which key a log has is read from that
  node's record in force, never from the request.
- `Prove` is for whoever a request was made by or for, about that request alone: an entry names others'
  business, so the rest of the log is nobody else's. Who may not see an entry learns no more than if there
  were none (NOT_FOUND). A client asks nodes of its own authority, which pass the question on to others.
- `Read`, `ProveRange` and `ListAlarms` are for administrators of this node's own authority.

Nothing here is recorded: it decides nothing about anybody's data, and asking must not fill the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc

from mesh.board import Board
from mesh.codec import evidence as codec
from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import MAX_RANGE, RangeProof
from mesh.core.receipt import MAX_ENTRIES, End, ProvenEntry
from mesh.core.snapshot import Candidate
from mesh.core.types import SpiffeId
from mesh.evidence.base import EvidenceLog, not_there
from mesh.evidence.entries import ids_in
from mesh.evidence.witness import Witness
from mesh.identity.peer import Peer
from mesh.rpc.callers import ADMIN, CLIENT, NODE, caller_of, require_speaks_for, require_still
from mesh.rpc.pace import Pace, asker_of
from node.evidence.witnessing import Witnessing
from node.gate import Gate
from node.streams import Streams
from sovereign.mesh.v1 import evidence_pb2, evidence_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Evidence"
_READ_AT_ONCE = 256
_READ_BYTES = 512 * 1024
_RETRY_S = 1.0
_TICK_S = 1.0
_LOOKED_AT = 1024
# Of an authority's share: some 60 cosignatures a second, for all of its nodes together.
_COSIGN_COSTS_S = 0.004
# Entries that are about the caller and this node, and nobody else.
_OF_TWO_ENDS = frozenset({"serve", "shard", "release", "cut"})

_Context = grpc.aio.ServicerContext[Any, Any]
Elsewhere = Callable[[Candidate, codec.Asked], Awaitable[End]]
"""Asks another node's log. Raises MeshError."""


class EvidenceService(evidence_pb2_grpc.EvidenceServicer):
    """Of one node."""

    def __init__(
        self,
        gate: Gate,
        board: Board,
        log: EvidenceLog,
        witness: Witness,
        witnessing: Witnessing,
        elsewhere: Elsewhere,
    ) -> None:
        self._gate = gate
        self._board = board
        self._log = log
        self._witness = witness
        self._witnessing = witnessing
        self._elsewhere = elsewhere
        # Apart: asking for receipts must not use up the share by which an authority's logs are witnessed.
        self._cosigning, self._showing = Pace(), Pace()
        self._open = Streams("receipts")
        self._searching = asyncio.Semaphore(1)

    async def Cosign(
        self, request: evidence_pb2.CosignRequest, context: _Context
    ) -> evidence_pb2.CosignResponse:
        """A witness's word on a later checkpoint; see evidence.proto."""
        peer = self._caller(context, (NODE,), self._cosigning)
        if peer.id.trust_domain == self._gate.node.trust_domain:
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, "an authority does not witness its own nodes' logs")
        note, old_size, proof = codec.cosign_from_pb(request)
        candidate = self._board.snapshot.candidates.get(peer.id)
        if candidate is None or not candidate.record.log_key:
            raise MeshError(Reason.NODE_UNKNOWN, "the caller's record in force names no key of its log")
        # Counted by the piece: most of the time it waits for the disk, which says nothing of who asked.
        self._cosigning.spend(
            asker_of(peer.id, self._gate.node.trust_domain), _COSIGN_COSTS_S, self._gate.monotonic()
        )
        line, size = await self._witness.cosign(
            origin_of(peer.id), candidate.record.log_key, note, old_size, proof
        )
        return evidence_pb2.CosignResponse(signature=line, size=size)

    async def Prove(
        self, request: evidence_pb2.ProveRequest, context: _Context
    ) -> evidence_pb2.ProveResponse:
        """The entries about one request, with proofs; see evidence.proto."""
        peer = self._caller(context, (CLIENT, ADMIN, NODE), self._showing)
        asked = codec.prove_from_pb(request)
        reader = self._reader(peer, asked.requester)
        with self._open.one(asker_of(reader, self._gate.node.trust_domain)):
            if asked.node not in (None, self._gate.node):
                return await self._pass_on(asked, reader)
            return await self._prove(asked, reader)

    async def _prove(self, asked: codec.Asked, reader: SpiffeId) -> evidence_pb2.ProveResponse:
        began = self._gate.monotonic()
        try:
            found = await self._found(asked.id, reader)
        finally:
            self._spend(self._showing, reader, began)
        if not found:
            raise MeshError(Reason.NOT_FOUND, "expected the id of a request made by or for the caller")
        covering = await self._witnessing.covering(found[-1][0] + 1, asked.wait_s)
        proven = [
            ProvenEntry(index, entry, await self._log.inclusion(index, covering.size))
            for index, entry in found
        ]
        end = End(
            self._gate.node,
            tuple(proven),
            covering.note,
            covering.record,
            covering.records,
        )
        return codec.end_to_pb(end)

    def _reader(self, peer: Peer, requester: SpiffeId | None) -> SpiffeId:
        """Whose entries may be shown: the peer's own, or those of a client that a node speaks for."""
        if peer.id.kind == NODE:
            return require_speaks_for(peer, requester)
        if requester not in (None, peer.id):
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, "requester: only nodes ask for somebody else")
        if peer.id.kind == ADMIN:
            self._require_own(peer)
        return peer.id

    async def _pass_on(self, asked: codec.Asked, reader: SpiffeId) -> evidence_pb2.ProveResponse:
        """Asks another node's log, for a client of this node's authority."""
        if reader.kind != CLIENT or reader.trust_domain != self._gate.node.trust_domain:
            raise MeshError(
                Reason.IDENTITY_NOT_ALLOWED, "questions are passed on for clients of this node's authority"
            )
        candidate = self._gate.snapshot.candidates.get(asked.node) if asked.node else None
        if candidate is None:
            raise MeshError(Reason.NODE_UNKNOWN, "node: expected one with a record in force")
        return codec.end_to_pb(await self._elsewhere(candidate, asked._replace(requester=reader)))

    async def Read(self, request: evidence_pb2.ReadRequest, context: _Context) -> None:
        """A range of the log, for administrators; see evidence.proto."""
        peer = self._caller(context, (ADMIN,), self._showing)
        self._require_own(peer)
        if request.end and (request.follow or request.end < request.start):
            raise MeshError(Reason.REQUEST_INVALID, "end: expected one after start, and none with follow")
        log, start = self._log, min(request.start, self._log.size)
        grown = asyncio.Event()
        unsubscribe = log.subscribe(lambda _: grown.set())
        try:
            await context.write(evidence_pb2.ReadResponse(start=start, size=log.size))
            while True:
                grown.clear()
                end = min(request.end or log.size, log.size)
                while start < end:
                    self._require_still(peer)
                    entries = await log.entries_in(start, min(end, start + _READ_AT_ONCE))
                    part = _within(entries)
                    await context.write(evidence_pb2.ReadResponse(start=start, entries=part, size=log.size))
                    start += len(part)
                if not request.follow:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK_S):
                        await grown.wait()
                self._require_still(peer)
        finally:
            unsubscribe()

    async def ProveRange(self, request: evidence_pb2.ProveRangeRequest, context: _Context) -> None:
        """A range whole, with its proof, for administrators; see evidence.proto."""
        peer = self._caller(context, (ADMIN,), self._showing)
        self._require_own(peer)
        asked = codec.prove_range_from_pb(request)
        log, start, end = self._log, asked.start, asked.end or self._log.size
        if not start < end <= log.size:
            raise not_there(f"a range within the log's {log.size} entries")
        if end - start > MAX_RANGE:
            raise MeshError(Reason.REQUEST_INVALID, f"end: expected at most {MAX_RANGE} entries after start")
        covering = await self._witnessing.covering(end, asked.wait_s)
        began = self._gate.monotonic()
        proof = RangeProof(
            self._gate.node,
            start,
            end - 1,
            covering.note,
            covering.record,
            covering.records,
            await log.inclusion(start, covering.size),
            await log.consistency(end, covering.size),
        )
        self._spend(self._showing, peer.id, began)
        await context.write(evidence_pb2.ProveRangeResponse(proof=codec.range_proof_to_pb(proof)))
        while start < end:
            self._require_still(peer)
            # What counts is the reading, not how fast it is taken.
            began = self._gate.monotonic()
            part = _within(await log.entries_in(start, min(end, start + _READ_AT_ONCE)))
            self._spend(self._showing, peer.id, began)
            await context.write(evidence_pb2.ProveRangeResponse(start=start, entries=part))
            start += len(part)

    async def ListAlarms(
        self, request: evidence_pb2.ListAlarmsRequest, context: _Context
    ) -> evidence_pb2.ListAlarmsResponse:
        """What this node found wrong with others' logs; see evidence.proto."""
        self._require_own(self._caller(context, (ADMIN,), self._showing))
        return codec.alarms_to_pb(await self._witness.alarms())

    def _caller(self, context: _Context, kinds: Sequence[str], pace: Pace) -> Peer:
        gate = self._gate
        peer = caller_of(context, gate.bundles, gate.snapshot, gate.clock(), kinds)
        pace.require(asker_of(peer.id, gate.node.trust_domain), gate.monotonic())
        return peer

    def _require_own(self, peer: Peer) -> None:
        if peer.id.trust_domain != self._gate.node.trust_domain:
            raise MeshError(Reason.IDENTITY_NOT_ALLOWED, "administrators read their own authority's logs")

    def _require_still(self, peer: Peer) -> None:
        """A stream ends when its reader may no longer read."""
        require_still(peer, self._gate.snapshot, self._gate.clock())

    def _spend(self, pace: Pace, asker: SpiffeId, began: float) -> None:
        now = self._gate.monotonic()
        pace.spend(asker_of(asker, self._gate.node.trust_domain), now - began, now)

    async def _found(self, entry_id: str, reader: SpiffeId) -> list[tuple[int, bytes]]:
        indexes = await self._log.find(entry_id, recent_only=True)
        home = reader.trust_domain == self._gate.node.trust_domain
        if not indexes and home:
            # All of the log is read for it: one at a time, and for the own authority alone.
            if self._searching.locked():
                raise MeshError(
                    Reason.OVERLOADED, "another search through the log is under way", {}, _RETRY_S
                )
            async with self._searching:
                indexes = await self._log.find(entry_id)
        found = {index: await self._log.entry(index) for index in indexes[:_LOOKED_AT]}
        # What a node did on the permit of this decision goes on under an id of its own.
        for other in {own for entry in found.values() for own in ids_in(entry)} - {entry_id}:
            for index in await self._log.find(other, recent_only=True):
                if len(found) < _LOOKED_AT and index not in found:
                    found[index] = await self._log.entry(index)
        return _concerning(sorted(found.items()), reader, home=home)[:MAX_ENTRIES]


def _concerning(
    entries: Sequence[tuple[int, bytes]], reader: SpiffeId, *, home: bool
) -> list[tuple[int, bytes]]:
    """Those about a request of the reader's; administrators have been let in before. An entry that names
    nobody adds to one of the same id that does. Whom else a decision was about is not for foreigners to know
    (mesh/rpc/placement_service.py)."""
    said = [json.loads(entry) for _, entry in entries]
    own = {entry.get("id") for entry in said if _for_whom(entry) == str(reader)}
    return [
        found
        for found, entry in zip(entries, said, strict=True)
        if (
            reader.kind == ADMIN
            or _for_whom(entry) == str(reader)
            or (not _for_whom(entry) and entry.get("id") in own)
        )
        and (home or entry["kind"] in _OF_TWO_ENDS)
    ]


def _for_whom(entry: Mapping[str, Any]) -> object:
    return entry.get("requester", entry.get("caller"))


def _within(entries: Sequence[bytes]) -> list[bytes]:
    """The first of them, as many as fit into a message; at least one."""
    size = 0
    part: list[bytes] = []
    for entry in entries:
        size += len(entry)
        if part and size > _READ_BYTES:
            break
        part.append(entry)
    return part
