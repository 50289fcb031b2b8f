"""Has this node's checkpoints cosigned by nodes of other authorities.

Whenever the log has signed a checkpoint, a witness of each of a few other authorities is shown it, with a
proof that it follows from what that witness saw last. The checkpoint counts as witnessed once enough of them
have signed (`Witnessed.authorities`); who is slower is not waited for. A witness that cannot be reached is
replaced by another node of its authority, and else left out for a while; nobody who is served waits for this.

What is sent is a size, a root and hashes: metadata, whatever policies say of payload (I1).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.notes import COSIGNATURE, Note, Signature, VerifierKey, parse_note, verify
from mesh.core.records import CLOCK_TOLERANCE_S
from mesh.core.snapshot import Candidate
from mesh.core.types import SpiffeId
from mesh.evidence.base import EvidenceLog, SignedCheckpoint, unavailable
from mesh.identity.log_keys import verify_ed25519
from mesh.rpc.placement_service import View

_LOG = logging.getLogger(__name__)

# Beyond those that have to sign, so that one that is away costs nobody the receipt.
SPARE = 1
RETRY_S, LONGEST_RETRY_S = 5.0, 300.0
LONGEST_ANSWER_S = 5.0
_NODES_OF_AN_AUTHORITY = 16  # that are thought of
# A witness says so of a log that does not follow from what it had shown.
_REFUSED = frozenset({Reason.LOG_FORKED, Reason.LOG_ROLLED_BACK, Reason.PROOF_INVALID})

Ask = Callable[[Candidate, bytes, int, tuple[bytes, ...]], Awaitable[tuple[str, int]]]
"""(witness, checkpoint, old size, proof) -> (signature line or "", size). Raises MeshError."""


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint with its cosignatures, as a signed note, and who cosigned.

    `record` and `records` are the signed records of the log's node and of the witnesses as they were in
    force then: what names the keys must have held when they were used, also if it is replaced later.
    """

    size: int
    note: bytes
    record: bytes
    witnesses: tuple[SpiffeId, ...] = ()
    records: tuple[bytes, ...] = ()

    def signed(self, witness: SpiffeId, record: bytes, signature: Signature) -> Witnessed:
        """The same with one more cosignature."""
        note = bytes(parse_note(self.note).signed(signature))
        return Witnessed(self.size, note, self.record, (*self.witnesses, witness), (*self.records, record))

    @property
    def authorities(self) -> int:
        """How many other authorities' witnesses have signed."""
        return len({witness.trust_domain for witness in self.witnesses})


class Witnessing:
    """Of one node's log. `enough` other authorities make a checkpoint witnessed; with 0 nobody is asked.
    `clock` is Unix seconds."""

    def __init__(
        self,
        log: EvidenceLog,
        node: SpiffeId,
        view: View,
        ask: Ask,
        record_of: Callable[[SpiffeId], bytes | None],
        clock: Callable[[], float],
        *,
        enough: int,
    ) -> None:
        self._log = log
        self._node = node
        self._view = view
        self._ask = ask
        self._record_of = record_of
        self._clock = clock
        self.enough = enough
        self.latest: Witnessed | None = None
        """The newest that is witnessed by enough."""
        self.newest: Witnessed | None = None
        """The newest that anybody has cosigned."""
        self._seen: dict[SpiffeId, int] = {}
        self._failed: dict[SpiffeId, int] = {}  # how often in a row
        self._eligible: tuple[object, dict[str, list[Candidate]]] = (None, {})
        self._grown = asyncio.Event()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Until cancelled."""
        end = self._log.subscribe(lambda _: self._grown.set())
        tries = 0
        try:
            while True:
                self._grown.clear()
                checkpoint = self._log.latest
                done = checkpoint is None or self.enough == 0 or await self.gather(checkpoint)
                tries = 0 if done else tries + 1
                pause = min(RETRY_S * 2 ** (tries - 1), LONGEST_RETRY_S) if tries else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._grown.wait()
        finally:
            end()

    async def covering(self, size: int, wait_s: float) -> Witnessed:
        """A checkpoint of at least this size: witnessed by enough, or what there is after `wait_s`.

        Raises as EvidenceLog.covering; EVIDENCE_UNAVAILABLE while this node's record is not in force.
        """
        signed = await self._log.covering(size)
        possible = self._possible()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s if possible else 0.0), self._changed:
                await self._changed.wait_for(lambda: _covers(self.newest, size, possible))
        for found in (self.latest, self.newest):
            if found is not None and found.size >= size:
                return found
        record = self._record_of(self._node)
        if record is None:
            raise unavailable("this node's record is not in force at the moment")
        return Witnessed(signed.size, signed.note, record)

    def _possible(self) -> int:
        """How many authorities can sign: more than there are cannot be waited for."""
        return min(self.enough, len(self.candidates()))

    def candidates(self) -> list[Candidate]:
        """One node of each other authority that has a witness key; those that failed last, last."""
        snapshot = self._view.snapshot

        def order(each: Candidate) -> tuple[int, bytes]:
            # Another order at each node, so that not all of an authority's ask the same witness.
            pair = hashlib.sha256(f"{self._node} {each.id}".encode()).digest()
            return self._failed.get(each.id, 0), pair

        best = [
            min(alive, key=order)
            for nodes in self._by_authority(snapshot.candidates).values()
            if (alive := [each for each in nodes if not snapshot.is_revoked(each.id)])
        ]
        return sorted(best, key=order)[: self.enough + SPARE]

    def _by_authority(self, candidates: Mapping[SpiffeId, Candidate]) -> dict[str, list[Candidate]]:
        """Looked up once for each set of records: a mesh has many nodes, and this runs beside requests."""
        known, eligible = self._eligible
        if known is not candidates:
            eligible = {}
            for node, candidate in candidates.items():
                if candidate.record.witness_key and node.trust_domain != self._node.trust_domain:
                    nodes = eligible.setdefault(node.trust_domain, [])
                    if len(nodes) < _NODES_OF_AN_AUTHORITY:
                        nodes.append(candidate)
            self._eligible = candidates, eligible
        return eligible

    async def gather(self, checkpoint: SignedCheckpoint) -> bool:
        """Shows it to witnesses until enough have signed; whether they have, or all that can."""
        own = self._record_of(self._node)
        if own is None:
            return False  # until the node's record is in force nobody knows its log's key
        newest = self.newest
        found = Witnessed(checkpoint.size, checkpoint.note, own)
        if newest is not None and parse_note(newest.note).text == checkpoint.checkpoint.text:
            found = newest  # signatures of several tries add up
        asked = {
            asyncio.ensure_future(self._cosigned(each, checkpoint)): (each.id, record)
            for each in self.candidates()
            if each.id not in found.witnesses and (record := self._record_of(each.id))
        }
        try:
            while asked and found.authorities < self.enough:
                done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    witness, record = asked.pop(task)
                    if (signature := task.result()) is not None:
                        found = found.signed(witness, record, signature)
                        await self._tell(found)
        finally:
            for task, (witness, _) in asked.items():
                task.cancel()  # slower than enough others: asked last from now on
                self._failed[witness] = self._failed.get(witness, 0) + 1
        return found.authorities >= self._possible()

    async def _tell(self, found: Witnessed) -> None:
        self.newest = found
        if found.authorities >= self.enough:
            self.latest = found
        async with self._changed:
            self._changed.notify_all()

    async def _cosigned(self, witness: Candidate, checkpoint: SignedCheckpoint) -> Signature | None:
        failed = self._failed.get(witness.id, 0)
        try:
            async with asyncio.timeout(LONGEST_ANSWER_S):
                signature = await self._try(witness, checkpoint)
        except (MeshError, TimeoutError) as error:
            self._failed[witness.id] = failed + 1
            if isinstance(error, MeshError) and error.reason in _REFUSED:
                _LOG.critical("%s no longer witnesses this node's log: %s", witness.id, error)
            elif not failed:
                _LOG.warning("%s does not cosign: %s", witness.id, error or "no answer in time")
            return None
        self._failed.pop(witness.id, None)
        return signature

    async def _try(self, witness: Candidate, checkpoint: SignedCheckpoint) -> Signature:
        old = min(self._seen.get(witness.id, 0), checkpoint.size)
        for _ in range(2):
            proof = await self._log.consistency(old, checkpoint.size)
            line, size = await self._ask(witness, checkpoint.note, old, proof)
            if line:
                signature = self._checked(witness, parse_note(checkpoint.note), line)
                self._seen[witness.id] = checkpoint.size
                return signature
            if size >= checkpoint.size or size == old:
                break
            self._seen[witness.id] = old = size
        raise MeshError(Reason.PEER_MISBEHAVED, "expected a cosignature, or the size that was seen")

    def _checked(self, witness: Candidate, note: Note, line: str) -> Signature:
        """The signature in the line, if it is this witness's over this checkpoint, and of now."""
        signature = parse_note(f"{note.text}\n{line}\n".encode()).signatures[-1]
        key = VerifierKey(origin_of(witness.id), COSIGNATURE, witness.record.witness_key)
        (signed,) = verify(Note(note.text, (signature,)), [key], verify_ed25519)
        # A receipt opens records as of that time: a wrong one would make it worthless.
        if abs((signed.timestamp or 0) - self._clock()) > CLOCK_TOLERANCE_S:
            raise MeshError(Reason.NOTE_INVALID, "expected the time of now: compare the clocks")
        return signature


def _covers(found: Witnessed | None, size: int, authorities: int) -> bool:
    return found is not None and found.size >= size and found.authorities >= authorities
