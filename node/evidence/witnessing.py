"""Has this node's checkpoints cosigned by nodes of other authorities.

Whenever the log has signed a checkpoint, a witness of each of a few other authorities is shown it, with a
proof that it follows from what that witness saw last. The checkpoint counts as witnessed once enough of them
have signed (`Witnessed.authorities`). A witness that cannot be reached is replaced by another node of its
authority, and else left out until the next checkpoint; nobody who is served waits for any of this.

What is sent is a size, a root and hashes: metadata, whatever policies say of payload (I1).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError
from mesh.core.notes import COSIGNATURE, Note, Signature, VerifierKey, parse_note, verify
from mesh.core.snapshot import Candidate
from mesh.core.types import SpiffeId
from mesh.evidence.base import EvidenceLog, SignedCheckpoint, unavailable
from mesh.identity.log_keys import verify_ed25519
from mesh.rpc.placement_service import View

_LOG = logging.getLogger(__name__)

# Beyond those that have to sign, so that one that is away costs nobody the receipt.
SPARE = 1
RETRY_S = 5.0

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

    @property
    def authorities(self) -> int:
        """How many other authorities' witnesses have signed."""
        return len({witness.trust_domain for witness in self.witnesses})


class Witnessing:
    """Of one node's log. `enough` other authorities make a checkpoint witnessed; with 0 nobody is asked."""

    def __init__(
        self,
        log: EvidenceLog,
        node: SpiffeId,
        view: View,
        ask: Ask,
        record_of: Callable[[SpiffeId], bytes | None],
        *,
        enough: int,
    ) -> None:
        self._log = log
        self._node = node
        self._view = view
        self._ask = ask
        self._record_of = record_of
        self.enough = enough
        self.latest: Witnessed | None = None
        """The newest that is witnessed by enough; else the newest with the most signatures."""
        self._seen: dict[SpiffeId, int] = {}
        self._failed: dict[SpiffeId, int] = {}  # how often in a row
        self._grown = asyncio.Event()
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Until cancelled."""
        end = self._log.subscribe(lambda _: self._grown.set())
        try:
            while True:
                self._grown.clear()
                checkpoint = self._log.latest
                done = checkpoint is None or self.enough == 0 or await self.gather(checkpoint)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if done else RETRY_S):
                        await self._grown.wait()
        finally:
            end()

    async def covering(self, size: int, wait_s: float) -> Witnessed:
        """A checkpoint of at least this size: witnessed by enough, or what there is after `wait_s`.

        Raises as EvidenceLog.covering.
        """
        signed = await self._log.covering(size)
        possible = self._possible()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s if possible else 0.0), self._changed:
                await self._changed.wait_for(lambda: self._covers(size, possible))
        if self.latest is not None and self._covers(size, 0):
            return self.latest
        record = self._record_of(self._node)
        if record is None:
            raise unavailable("this node's record is not in force at the moment")
        return Witnessed(signed.size, signed.note, record)

    def _covers(self, size: int, authorities: int) -> bool:
        latest = self.latest
        return latest is not None and latest.size >= size and latest.authorities >= authorities

    def _possible(self) -> int:
        """How many authorities can sign: more than there are cannot be waited for."""
        return min(self.enough, len(self.candidates()))

    def candidates(self) -> list[Candidate]:
        """One node of each other authority that has a witness key; those that failed last, last."""
        snapshot = self._view.snapshot
        best: dict[str, Candidate] = {}
        for node, candidate in sorted(snapshot.candidates.items()):
            own = node.trust_domain == self._node.trust_domain
            if own or not candidate.record.witness_key or snapshot.is_revoked(node):
                continue
            known = best.get(node.trust_domain)
            if known is None or self._failed.get(node, 0) < self._failed.get(known.id, 0):
                best[node.trust_domain] = candidate
        order = sorted(best.values(), key=lambda each: (self._failed.get(each.id, 0), each.id))
        return order[: self.enough + SPARE]

    async def gather(self, checkpoint: SignedCheckpoint) -> bool:
        """Shows it to witnesses; whether all that can sign have signed, or enough."""
        own = self._record_of(self._node)
        if own is None:
            return False  # until the node's record is in force nobody knows its log's key
        asked = [(each, record) for each in self.candidates() if (record := self._record_of(each.id))]
        answers = await asyncio.gather(*(self._cosigned(each, checkpoint) for each, _ in asked))
        signed = [(*pair, answer) for pair, answer in zip(asked, answers, strict=True) if answer]
        note = parse_note(checkpoint.note).signed(*(signature for _, _, signature in signed))
        found = Witnessed(
            checkpoint.size,
            bytes(note),
            own,
            tuple(each.id for each, _, _ in signed),
            tuple(record for _, record, _ in signed),
        )
        if found.authorities >= min(self.enough, self.latest.authorities if self.latest else 0):
            self.latest = found
            async with self._changed:
                self._changed.notify_all()
        return found.authorities >= self._possible()

    async def _cosigned(self, witness: Candidate, checkpoint: SignedCheckpoint) -> Signature | None:
        try:
            signature = await self._try(witness, checkpoint)
        except MeshError as error:
            self._failed[witness.id] = self._failed.get(witness.id, 0) + 1
            _LOG.warning("%s does not cosign: %s", witness.id, error)
            return None
        self._failed.pop(witness.id, None)
        return signature

    async def _try(self, witness: Candidate, checkpoint: SignedCheckpoint) -> Signature | None:
        old = min(self._seen.get(witness.id, 0), checkpoint.size)
        for _ in range(2):
            proof = await self._log.consistency(old, checkpoint.size)
            line, size = await self._ask(witness, checkpoint.note, old, proof)
            if line:
                signature = _checked(witness, parse_note(checkpoint.note), line)
                self._seen[witness.id] = checkpoint.size
                return signature
            if size > self._log.size:
                _LOG.critical(
                    "%s has seen %d entries of this node's log, which has %d: entries were lost",
                    witness.id,
                    size,
                    self._log.size,
                )
                return None
            if size > checkpoint.size:
                return None  # it has seen a later one already
            self._seen[witness.id] = old = size
        return None


def _checked(witness: Candidate, note: Note, line: str) -> Signature:
    """The signature in the line, if it is this witness's over this checkpoint; NOTE_INVALID."""
    signature = parse_note(f"{note.text}\n{line}\n".encode()).signatures[-1]
    key = VerifierKey(origin_of(witness.id), COSIGNATURE, witness.record.witness_key)
    verify(Note(note.text, (signature,)), [key], verify_ed25519)
    return signature
