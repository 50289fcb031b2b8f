"""The board over a memory store: what is believed, what is refused, and what stays in force (I4, I5)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh.board import MAX_REFUSED, Board
from mesh.core.assembly import _PAYLOADS
from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES, ROOT, RecordType
from mesh.core.snapshot import Snapshot
from mesh.record_payload import READERS
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.boards import DAY_S, DE, FR, US, Clock, Writer
from tests.support.identities import AuthorityForTests

DEADLINE_S = 10.0


async def settled(board: Board, memory: MemoryBoard) -> None:
    """Waits until the board has seen everything that is in the store by now."""
    marker = f"{ROOT}{US}/marker{memory.revision}"
    memory.overwrite(marker, b"")
    await board.wait_for(lambda _: marker in board.refused, DEADLINE_S)
    memory.commit(marker, None)
    await board.wait_for(lambda _: marker not in board.refused, DEADLINE_S)


async def test_a_policy_put_on_the_board_is_in_force(board: Board, memory: MemoryBoard, de: Writer) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 7))
    snapshot = await board.wait_for(lambda s: DE in s.policies, DEADLINE_S)
    assert snapshot.policies[DE].generation == 7
    assert snapshot.generations[str(key)][0] == 7
    assert not board.refused


async def test_a_node_is_a_candidate_once_facts_and_its_own_record_are_there(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    for key, payload in (de.record("fra-1"), de.facts("fra-2")):
        memory.overwrite(str(key), de.seal(key, payload))
    await settled(board, memory)
    assert not board.snapshot.candidates
    assert list(board.facts) == [de.node("fra-2")]
    key, payload = de.facts("fra-1")
    memory.overwrite(str(key), de.seal(key, payload))
    snapshot = await board.wait_for(lambda s: len(s.candidates) == 1, DEADLINE_S)
    assert snapshot.candidates[de.node("fra-1")].facts.location == "DE"


# Each: what lies on the board under DE's policy key, and why it is not believed.
HOSTILE = {
    "not protobuf": Reason.RECORD_MALFORMED,
    "truncated": Reason.RECORD_MALFORMED,
    "empty": Reason.RECORD_MALFORMED,
    "oversized": Reason.RECORD_TOO_LARGE,
    "older generation": Reason.RECORD_ROLLED_BACK,
    "same generation, other text": Reason.RECORD_ROLLED_BACK,
    "expired": Reason.RECORD_EXPIRED,
    "dated ahead": Reason.RECORD_NOT_YET_VALID,
    "signed for another key": Reason.RECORD_WRONG_KEY,
    "signed by a node": Reason.RECORD_WRONG_SIGNER,
    "signed by another authority": Reason.RECORD_WRONG_SIGNER,
    "signed by nobody we know": Reason.RECORD_WRONG_SIGNER,
    "payload of another kind": Reason.RECORD_MALFORMED,
}


def hostile(what: str, de: Writer, fr: Writer, us: Writer) -> bytes:
    key, payload = de.policy('@id("evil") permit(principal, action, resource);')
    match what:
        case "not protobuf":
            return b"\xff" * 100
        case "truncated":
            return de.seal(key, payload, 9)[:-20]
        case "empty":
            return b""
        case "oversized":
            return b"x" * (MAX_ENVELOPE_BYTES + 1)
        case "older generation":
            return de.seal(key, payload, 4)
        case "same generation, other text":
            return de.seal(key, payload, 5)
        case "expired":
            return de.seal(key, payload, 9, not_before=de.clock() - 100, life_s=50)
        case "dated ahead":
            return de.seal(key, payload, 9, not_before=de.clock() + 120)
        case "signed for another key":
            return de.seal(key, payload, 9, sealed_for=str(fr.policy()[0]))
        case "signed by a node":
            return de.seal(key, payload, 9, signer=de.node_signer("fra-1"))
        case "signed by another authority":
            return de.seal(key, payload, 9, signer=fr.signer)
        case "signed by nobody we know":
            return de.seal(key, payload, 9, signer=us.signer)
        case "payload of another kind":
            return de.seal(key, b"\xff\xff\xff", 9)
    raise AssertionError(what)


@pytest.mark.parametrize("what", HOSTILE)
async def test_i5_what_is_refused_leaves_the_record_before_it_in_force(
    what: str, board: Board, memory: MemoryBoard, de: Writer, fr: Writer, us: Writer
) -> None:
    key, payload = de.federation(fr.authority.bundle)
    memory.overwrite(str(key), de.seal(key, payload))
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 5))
    before = await board.wait_for(lambda s: DE in s.policies and FR in s.bundles, DEADLINE_S)
    memory.overwrite(str(key), hostile(what, de, fr, us))
    after = await board.wait_for(lambda _: str(key) in board.refused, DEADLINE_S)
    assert board.refused == {str(key): HOSTILE[what]}
    assert after.policies == before.policies
    # And nothing of it was remembered: the next good one is believed.
    memory.overwrite(str(key), de.seal(*de.policy("// newer"), 6))
    await board.wait_for(lambda s: s.policies[DE].generation == 6, DEADLINE_S)
    assert not board.refused


@pytest.mark.parametrize(
    "key",
    [
        "policy",
        f"{DE}",
        f"{DE}/policy/x",
        f"{DE}/nodes",
        f"{DE}/permit",
        "DE..x/policy",
        "ü/policy",
        f"{DE}/what",
    ],
)
async def test_keys_that_no_record_can_have_are_refused(key: str, board: Board, memory: MemoryBoard) -> None:
    memory.overwrite(ROOT + key, b"x")
    await board.wait_for(lambda _: ROOT + key in board.refused, DEADLINE_S)
    assert board.refused[ROOT + key] is Reason.RECORD_WRONG_KEY


async def test_a_flood_of_garbage_neither_fills_memory_nor_hides_what_is_good(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    for i in range(MAX_REFUSED + 200):
        memory.overwrite(f"{ROOT}{DE}/facts/x{i}", b"garbage")
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload))
    await board.wait_for(lambda s: DE in s.policies, DEADLINE_S)
    assert len(board.refused) == MAX_REFUSED


async def test_i4_i5_a_deletion_is_no_more_than_silence(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    sealed = [de.policy(), de.facts("fra-1"), de.record("fra-1"), de.revocations(de.node("fra-9"))]
    for key, payload in sealed:
        memory.overwrite(str(key), de.seal(key, payload, 3))
    before = await board.wait_for(lambda s: len(s.generations) == 4, DEADLINE_S)
    for key, _ in sealed:
        memory.commit(str(key), None)
    await settled(board, memory)
    assert board.snapshot.policies == before.policies
    assert board.snapshot.candidates == before.candidates
    assert board.snapshot.is_revoked(de.node("fra-9"))
    # Nor does it let an older generation back in.
    key, payload = de.policy("// older")
    memory.overwrite(str(key), de.seal(key, payload, 2))
    await board.wait_for(lambda _: str(key) in board.refused, DEADLINE_S)
    assert board.refused[str(key)] is Reason.RECORD_ROLLED_BACK


async def test_i4_expiry_ends_a_policy_but_neither_revocations_nor_what_outlives_it(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, life_s=60))
    revoked, payload = de.revocations(de.node("fra-9"))
    memory.overwrite(str(revoked), de.seal(revoked, payload, life_s=60))
    lasting, payload = de.facts("fra-1")
    memory.overwrite(str(lasting), de.seal(lasting, payload, life_s=DAY_S))
    await board.wait_for(lambda s: len(s.generations) == 3, DEADLINE_S)
    clock.now += 61
    board.tick()
    snapshot = board.snapshot
    assert DE not in snapshot.policies
    assert snapshot.is_revoked(de.node("fra-9"))
    # The list still cuts off, but no longer counts as current: heads that name it close the borders.
    assert set(snapshot.generations) == {str(lasting)}


@pytest.mark.slow
async def test_what_expires_ends_by_itself(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, life_s=60))
    await board.wait_for(lambda s: DE in s.policies, DEADLINE_S)
    clock.now += 61
    await board.wait_for(lambda s: DE not in s.policies, DEADLINE_S)


async def test_what_was_dated_ahead_is_believed_when_its_time_comes(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, not_before=clock() + 40))
    await board.wait_for(lambda _: str(key) in board.refused, DEADLINE_S)
    clock.now += 45
    board.tick()
    memory.overwrite(f"{ROOT}{US}/policy", b"any change lets the watch move")
    await board.wait_for(lambda s: DE in s.policies, DEADLINE_S)


async def test_federation_decides_whose_records_count_and_dropping_ends_them(
    board: Board, memory: MemoryBoard, de: Writer, fr: Writer
) -> None:
    for key, payload in (fr.policy(), fr.facts("par-1"), fr.record("par-1"), fr.status("par-1")):
        memory.overwrite(str(key), fr.seal(key, payload))
    await board.wait_for(lambda _: len(board.refused) == 4, DEADLINE_S)
    key, payload = de.federation(fr.authority.bundle)
    memory.overwrite(str(key), de.seal(key, payload, 1))
    snapshot = await board.wait_for(
        lambda s: FR in s.policies and fr.node("par-1") in board.statuses, DEADLINE_S
    )
    assert list(snapshot.candidates) == [fr.node("par-1")]
    assert not board.refused
    key, payload = de.federation()
    memory.overwrite(str(key), de.seal(key, payload, 2))
    snapshot = await board.wait_for(lambda s: FR not in s.bundles, DEADLINE_S)
    assert not snapshot.candidates
    assert not snapshot.policies
    assert not board.statuses


async def test_i5_other_roots_for_a_trust_domain_end_what_the_old_ones_vouched_for(
    board: Board, memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, tmp_path: Path
) -> None:
    reborn = Writer(AuthorityForTests(tmp_path, FR), clock)
    policy, payload = fr.policy()
    facts, facts_payload = fr.facts("par-1")
    memory.overwrite(str(policy), fr.seal(policy, payload, 3))
    memory.overwrite(str(facts), reborn.seal(facts, facts_payload, 1))
    key, federation = de.federation(fr.authority.bundle)
    memory.overwrite(str(key), de.seal(key, federation, 1))
    await board.wait_for(lambda s: FR in s.policies and str(facts) in board.refused, DEADLINE_S)
    key, federation = de.federation(reborn.authority.bundle)
    memory.overwrite(str(key), de.seal(key, federation, 2))
    snapshot = await board.wait_for(
        lambda s: FR not in s.policies and str(facts) in s.generations, DEADLINE_S
    )
    assert snapshot.bundles[FR] == reborn.authority.bundle
    # The generations stay: the new root does not begin at 1 again.
    memory.overwrite(str(policy), reborn.seal(policy, payload, 2))
    await board.wait_for(lambda _: board.refused.get(str(policy)) is Reason.RECORD_ROLLED_BACK, DEADLINE_S)


async def test_i5_no_federation_replaces_the_own_roots(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock, tmp_path: Path
) -> None:
    imposter = AuthorityForTests(tmp_path, DE)
    key, payload = de.federation(imposter.bundle)
    memory.overwrite(str(key), de.seal(key, payload))
    await board.wait_for(lambda _: str(key) in board.refused, DEADLINE_S)
    assert board.snapshot.bundles == {DE: de.authority.bundle}


async def test_revoking_a_node_ends_its_record_and_status_and_refuses_new_ones(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    for key, payload in (de.facts("fra-1"), de.record("fra-1"), de.status("fra-1")):
        memory.overwrite(str(key), de.seal(key, payload))
    await board.wait_for(lambda s: s.candidates and board.statuses, DEADLINE_S)
    key, payload = de.revocations(de.node("fra-1"))
    memory.overwrite(str(key), de.seal(key, payload))
    snapshot = await board.wait_for(lambda s: s.is_revoked(de.node("fra-1")), DEADLINE_S)
    assert not snapshot.candidates
    assert not board.statuses
    record, payload = de.record("fra-1")
    memory.overwrite(str(record), de.seal(record, payload, 2))
    await board.wait_for(lambda _: board.refused.get(str(record)) is Reason.IDENTITY_REVOKED, DEADLINE_S)
    # Taken back, what was refused is looked at again.
    key, payload = de.revocations()
    memory.overwrite(str(key), de.seal(key, payload, 2))
    await board.wait_for(lambda s: s.candidates, DEADLINE_S)


async def test_a_status_is_cheap_goes_with_its_key_and_stays_while_the_store_is_away(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    node = de.node("fra-1")
    key, payload = de.status("fra-1", in_flight=3)
    memory.overwrite(str(key), de.seal(key, payload, 1, life_s=30))
    snapshot = await board.wait_for(lambda _: node in board.statuses, DEADLINE_S)
    assert board.statuses[node].in_flight == 3
    assert board.statuses[node].reported_at == clock()
    key, payload = de.status("fra-1", in_flight=5)
    memory.overwrite(str(key), de.seal(key, payload, 2, life_s=30))
    assert await board.wait_for(lambda _: board.statuses[node].in_flight == 5, DEADLINE_S) is snapshot
    memory.disconnect()
    await board.wait_for(lambda _: not board.connected, DEADLINE_S)
    clock.now += 3600
    board.tick()
    assert node in board.statuses
    memory.reconnect()
    await board.wait_for(lambda _: board.connected and node not in board.statuses, DEADLINE_S)
    memory.overwrite(str(key), de.seal(key, payload, 3, life_s=30))
    await board.wait_for(lambda _: node in board.statuses, DEADLINE_S)
    memory.commit(str(key), None)
    await board.wait_for(lambda _: node not in board.statuses, DEADLINE_S)


async def test_i5_a_status_in_another_nodes_name_or_an_older_one_is_refused(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    key, payload = de.status("fra-1", in_flight=7)
    memory.overwrite(str(key), de.seal(key, payload, 1, signer=de.node_signer("fra-2")))
    await board.wait_for(lambda _: board.refused.get(str(key)) is Reason.RECORD_WRONG_SIGNER, DEADLINE_S)
    memory.overwrite(str(key), de.seal(key, payload, 5))
    await board.wait_for(lambda _: de.node("fra-1") in board.statuses, DEADLINE_S)
    memory.overwrite(str(key), de.seal(*de.status("fra-1", in_flight=0), 4))
    await board.wait_for(lambda _: board.refused.get(str(key)) is Reason.RECORD_ROLLED_BACK, DEADLINE_S)
    assert board.statuses[de.node("fra-1")].in_flight == 7


async def test_heads_make_fresh_and_their_age_makes_stale(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 4))
    heads, said = de.heads({str(key): 4})
    memory.overwrite(str(heads), de.seal(heads, said, 1))
    snapshot = await board.wait_for(lambda s: DE in s.heads, DEADLINE_S)
    assert snapshot.stale_reason(DE, clock()) == ""
    assert "old" in snapshot.stale_reason(DE, clock() + 61)
    heads, said = de.heads({str(key): 5})
    memory.overwrite(str(heads), de.seal(heads, said, 2))
    later = await board.wait_for(lambda s: s.version > snapshot.version, DEADLINE_S)
    assert "has not arrived" in later.stale_reason(DE, clock())
    assert later.policies is snapshot.policies


async def test_subscribers_hear_of_every_snapshot_even_after_one_of_them_failed(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    heard: list[Snapshot] = []

    def broken(_: Snapshot) -> None:
        raise RuntimeError

    board.subscribe(broken)
    end = board.subscribe(heard.append)
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 1))
    await board.wait_for(lambda s: DE in s.policies, DEADLINE_S)
    assert heard[-1] is board.snapshot
    end()
    count = len(heard)
    memory.overwrite(str(key), de.seal(key, payload, 2))
    await board.wait_for(lambda s: s.policies[DE].generation == 2, DEADLINE_S)
    assert len(heard) == count


async def test_waiting_ends_with_time_out_or_the_predicates_own_error(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    with pytest.raises(TimeoutError):
        await board.wait_for(lambda s: False, 0.01)
    version = board.snapshot.version
    failing = board.wait_for(lambda s: s.version > version and 1 / len(s.policies) > 0, DEADLINE_S)
    waiting = asyncio.create_task(failing)
    await asyncio.sleep(0)
    memory.overwrite(str(de.facts("fra-1")[0]), de.seal(*de.facts("fra-1")))
    with pytest.raises(ZeroDivisionError):
        await waiting


async def test_the_run_ends_when_the_store_is_closed(de: Writer, clock: Clock) -> None:
    store = MemoryStore()
    board = Board(store, DE, de.authority.bundle, clock)
    running = asyncio.create_task(board.run())
    await board.wait_for(lambda _: board.connected, DEADLINE_S)
    await store.aclose()
    await asyncio.wait_for(running, DEADLINE_S)
    assert not board.connected


def test_a_bundle_of_another_trust_domain_is_refused(de: Writer, clock: Clock) -> None:
    with pytest.raises(MeshError) as refused:
        Board(MemoryStore(), FR, de.authority.bundle, clock)
    assert refused.value.reason is Reason.CONFIG_INVALID


def test_every_type_of_record_can_be_read() -> None:
    elsewhere = {RecordType.STATUS, RecordType.PERMIT}
    assert set(READERS) == set(_PAYLOADS) == set(RecordType) - elsewhere
