"""One contract for every decision log (I7), written to and read from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.core.decision import MAX_NAMED_POLICIES, Decision, Refused
from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import leaf_hash, verify_consistency, verify_inclusion
from mesh.core.notes import Checkpoint, parse_note, verify
from mesh.core.tiles import MAX_ENTRY_BYTES
from mesh.core.types import SpiffeId
from mesh.evidence import (
    MAX_LOGGED_REFUSALS,
    EvidenceLog,
    MemoryDecisionLog,
    SignedCheckpoint,
    decision_entry,
)
from mesh.identity.log_keys import LogKey, verify_ed25519
from tests.support.evidence import ORIGIN, all_entries, open_log


@pytest.fixture(params=["memory", "merkle"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EvidenceLog]:
    signer = LogKey.generate()
    made: EvidenceLog = (
        MemoryDecisionLog(ORIGIN, signer) if request.param == "memory" else open_log(tmp_path / "log", signer)
    )
    yield made
    await made.aclose()


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


async def record(log: EvidenceLog, count: int) -> None:
    first = log.size
    await asyncio.gather(*(log.record({"id": f"d-{first + n}"}) for n in range(count)))


async def test_what_was_recorded_is_there(log: EvidenceLog):
    assert await log.record({"refused": ["ü"], "id": "1"}) == 0
    assert await log.entry(0) == b'{"id":"1","refused":["\\u00fc"]}'
    assert log.size == 1


async def test_many_at_once_are_all_there_in_order(log: EvidenceLog):
    assert await asyncio.gather(*(log.record({"id": n}) for n in range(1500))) == list(range(1500))
    assert [entry["id"] for entry in await all_entries(log)] == list(range(1500))


async def test_a_caller_that_leaves_spoils_nothing(log: EvidenceLog):
    leaving = asyncio.create_task(log.record({"id": "left"}))
    await asyncio.sleep(0)
    leaving.cancel()
    await log.record({"id": "stayed"})
    assert {"id": "stayed"} in await all_entries(log)


async def test_order_is_of_recording_whatever_the_clock_says(log: EvidenceLog):
    times = [1_800_000_000.0, 1_700_000_000.0, -5.0, 1_800_000_000.0]
    for at in times:
        await log.record({"id": "x", "at": at})
    assert [entry["at"] for entry in await all_entries(log)] == times
    assert await log.find("x") == (0, 1, 2, 3)


async def test_every_entry_can_be_proved_in_every_later_tree(log: EvidenceLog):
    signed: list[Checkpoint] = []
    for count in (1, 2, 4, 250, 30):
        await record(log, count)
        signed.append((await log.checkpoint()).checkpoint)
    assert [each.size for each in signed] == [1, 3, 7, 257, 287]
    for now in signed:
        for index in {0, now.size // 2, now.size - 1}:
            leaf = leaf_hash(await log.entry(index))
            verify_inclusion(leaf, index, now.size, await log.inclusion(index, now.size), now.root)
        for before in signed:
            if before.size <= now.size:
                proof = await log.consistency(before.size, now.size)
                verify_consistency(before.size, now.size, before.root, now.root, proof)


async def test_what_is_not_there_is_not_found(log: EvidenceLog):
    await record(log, 3)
    for ask in (
        lambda: log.entry(3),
        lambda: log.entry(-1),
        lambda: log.entries_in(2, 1),
        lambda: log.entries_in(0, 4),
        lambda: log.inclusion(0, 4),
        lambda: log.inclusion(2, 2),
        lambda: log.inclusion(-1, 3),
        lambda: log.consistency(2, 4),
        lambda: log.consistency(3, 2),
        lambda: log.covering(4),
    ):
        with refused(Reason.NOT_FOUND):
            await ask()
    assert await log.entries_in(3, 3) == ()


async def test_checkpoints_are_signed_notes_of_the_size(log: EvidenceLog):
    told: list[SignedCheckpoint] = []
    end = log.subscribe(told.append)
    assert log.latest is None
    await record(log, 5)
    signed = await log.checkpoint()
    note = parse_note(signed.note)
    assert log.key is not None
    assert verify(note, [log.key], verify_ed25519) == ((log.key, None),)
    assert Checkpoint.parse(note.text) == signed.checkpoint
    assert (signed.checkpoint.origin, signed.size) == (ORIGIN, 5)
    assert await log.checkpoint() == signed == log.latest == await log.covering(3)
    assert told == [signed], "signed once"
    end()
    await record(log, 1)
    assert (await log.covering(6)).size == 6
    assert told == [signed]


async def test_an_empty_log_can_be_signed_for(log: EvidenceLog):
    assert (await log.checkpoint()).size == 0


async def test_entries_are_found_by_their_id_or_their_decisions(log: EvidenceLog):
    await log.record({"id": "a", "decision": {"id": "b"}})
    await log.record({"kind": "place", "decision": {"id": "b"}})
    await log.record({"kind": "none", "note": "a"})
    await log.record({"id": "a"})
    assert await log.find("a") == await log.find("a", recent_only=True) == (0, 3)
    assert await log.find("b") == await log.find("b", recent_only=True) == (0, 1)
    assert await log.find("c") == ()


@pytest.mark.slow
async def test_the_largest_decision_is_cut_and_says_so(log: EvidenceLog):
    """100 refusals by 16 policies with long names do not fit an entry of 64 KiB."""
    node = SpiffeId("de.mesh.example", "/node/" + "n" * 60)
    refusal = Refused(
        node,
        Reason.POLICY_SENDER_DENIES,
        "",
        tuple(f"{'p' * 60}-{i}" for i in range(MAX_NAMED_POLICIES)),
        "DE",
    )
    decision = Decision("d", False, (), (refusal,) * 1000, 1000, 1000, decided_by=node)
    await log.record({"kind": "place", "id": "p", "decision": decision_entry(decision)})
    data = await log.entry(0)
    kept = json.loads(data)
    assert len(data) <= MAX_ENTRY_BYTES
    assert len(kept["decision"]["refused"]) + kept["left_out"]["decision.refused"] == MAX_LOGGED_REFUSALS
    assert kept["decision"]["refused_total"] == 1000
    assert MAX_ENTRY_BYTES - len(data) < 3000, "as much as fits is kept"


async def test_an_entry_that_cannot_be_cut_is_refused(log: EvidenceLog):
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        await log.record({"id": "x" * MAX_ENTRY_BYTES})
    assert await log.record({"id": "y"}) == 0


async def test_a_memory_log_without_a_key_signs_nothing():
    log = MemoryDecisionLog()
    await log.record({"id": "x"})
    with refused(Reason.EVIDENCE_UNAVAILABLE):
        await log.checkpoint()
