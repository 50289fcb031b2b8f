"""Putting records back on a board that has lost them, from what a node remembers of it.

A board that is rebuilt empty fills again by itself: each control plane and each node puts its own records
back. What is missing then is the word of an authority whose control plane is gone as well, until that is
back. Any node that was in the mesh still has it, signed: it can be put back by whoever has such a node's
files, and nobody has to be trusted for it (I5).

Rules it keeps:
- Records are judged as a node judges them: by the own authority's root, by its federation, with the
  generations that the node had seen. What does not verify is not put on the board.
- Nothing is replaced but an older generation, or what is nobody's signed word; each put expects what was read
  before. What is signed but not valid now (expired, or dated ahead) stays: it may well be newer.
- Statuses are not put back: they are about now, and a node's lease is its own.

It is done when somebody asks for it, never by a node on its own: a node that was away for long would fill an
empty board with the past, and could keep an authority from starting anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mesh.board import Board
from mesh.board_cache import HEADS, RECORDS, CachedBoard, read_cached
from mesh.core.errors import MeshError, Reason
from mesh.core.records import ROOT, RecordKey, RecordType
from mesh.core.snapshot import TrustBundle
from mesh.store.base import RecordStore

# Signed, and only not valid at the moment.
_LET_BE = frozenset({Reason.RECORD_EXPIRED, Reason.RECORD_NOT_YET_VALID})


class Fate(StrEnum):
    """What became of one remembered record."""

    PUT = "put"  # the board did not have it
    REPLACED = "replaced"  # the board had an older one, or nobody's word
    THERE = "there"  # the very same
    KEPT = "kept"  # the board has a newer one, or had one in the end
    REFUSED = "refused"  # it does not verify
    FAILED = "failed"  # the board did not take it


@dataclass(frozen=True, slots=True)
class Restored:
    """One key, the generation that was remembered (0 if that cannot be believed), and what became of it."""

    key: str
    generation: int
    fate: Fate
    reason: Reason | None = None


def read_memory(directory: Path) -> CachedBoard:
    """What a node has on disk of the board; NOT_FOUND or CONFIG_INVALID. Heads may be missing."""
    records = read_cached(directory / RECORDS)
    heads = read_cached(directory / HEADS) if (directory / HEADS).exists() else CachedBoard()
    return CachedBoard(
        records.version, records.saved_at, records.seen, {**records.envelopes, **heads.envelopes}
    )


async def restore(
    store: RecordStore,
    own: TrustBundle,
    memory: CachedBoard,
    clock: Callable[[], float],
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> list[Restored]:
    """Puts back what the board lacks; what became of each record, by key.

    `own` is the node's own authority, `clock` gives Unix seconds, `tell` is called with how many records of
    how many are done. Raises STORE_UNAVAILABLE if the board cannot be read.
    """
    entries, _ = await store.list(ROOT)
    revisions = {entry.key: entry.revision for entry in entries}
    on_board = {entry.key: entry.value for entry in entries}
    view = Board(store, own.trust_domain, own, clock, seen=memory.seen)
    # The board's own first, and once more: what is remembered may bring roots that vouch for more of it.
    view.adopt_all(on_board)
    refused = view.adopt_all(memory.envelopes)
    not_believed = view.adopt_all(on_board)
    found: list[Restored] = []
    for key, envelope in sorted(memory.envelopes.items()):
        judged = _judge(view, key, envelope, on_board, refused, not_believed)
        if judged.fate in (Fate.PUT, Fate.REPLACED):
            judged = await _put(store, judged, envelope, revisions.get(key, 0))
        found.append(judged)
        tell(len(found), len(memory.envelopes))
    return found


def _judge(
    view: Board,
    text: str,
    envelope: bytes,
    on_board: Mapping[str, bytes],
    refused: Mapping[str, MeshError],
    not_believed: Mapping[str, MeshError],
) -> Restored:
    objection = refused.get(text)
    if objection is not None and objection.reason is not Reason.RECORD_ROLLED_BACK:
        return Restored(text, 0, Fate.REFUSED, objection.reason)
    key = RecordKey.parse(text)
    if key.type is RecordType.STATUS:
        return Restored(text, 0, Fate.REFUSED, Reason.RECORD_WRONG_KEY)
    held = view.held(key)
    if held is None:
        # Older than what was seen; or it held by itself, and what came after it ended it: a revocation, or
        # other roots.
        reason = objection.reason if objection is not None else Reason.RECORD_WRONG_SIGNER
        return Restored(text, 0, Fate.REFUSED, reason)
    if held.envelope != envelope:
        if on_board.get(text) == held.envelope:
            return Restored(text, held.statement.generation, Fate.KEPT)
        return Restored(text, 0, Fate.REFUSED, Reason.RECORD_ROLLED_BACK)
    generation = held.statement.generation
    if text not in on_board:
        return Restored(text, generation, Fate.PUT)
    if on_board[text] == envelope:
        return Restored(text, generation, Fate.THERE)
    theirs = not_believed.get(text)
    if theirs is not None and theirs.reason in _LET_BE:
        return Restored(text, generation, Fate.KEPT, theirs.reason)
    return Restored(text, generation, Fate.REPLACED)


async def _put(store: RecordStore, judged: Restored, envelope: bytes, revision: int) -> Restored:
    try:
        await store.put(judged.key, envelope, expected_revision=revision)
    except MeshError as error:
        # Whoever has written meanwhile knows better.
        fate = Fate.KEPT if error.reason is Reason.STORE_CONFLICT else Fate.FAILED
        return Restored(judged.key, judged.generation, fate, error.reason)
    return judged
