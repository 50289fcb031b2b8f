"""Publishing through the board: generations, concurrent writers, leases, and what the board has lost."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator

import pytest

from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordKey
from mesh.identity.signing import open_envelope
from mesh.store.base import Entry, Lease, WatchBatch, WatchKind
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.boards import DAY_S, DE, Clock, Writer, running_board

DEADLINE_S = 10.0


async def test_the_first_generation_is_one_and_each_is_one_more(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    key, payload = de.policy()
    assert await board.publish(de.signer, key, payload, DAY_S) == 1
    assert board.snapshot.policies[DE].generation == 1, "in force here at once"
    assert await board.publish(de.signer, key, payload, DAY_S) == 2
    entry = memory.get(str(key))
    assert entry is not None
    assert board.board_revision(str(key)) == (entry.revision, True)


async def test_it_goes_on_from_what_is_stored_and_from_what_was_ever_seen(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 41))
    await board.wait_for(lambda s: DE in s.policies, DEADLINE_S)
    assert await board.publish(de.signer, key, payload, DAY_S) == 42
    memory.commit(str(key), None)
    await board.wait_for(lambda _: board.board_revision(str(key)) == (0, False), DEADLINE_S)
    assert await board.publish(de.signer, key, payload, DAY_S) == 43


async def test_it_reads_first_where_it_has_not_listed_yet(
    memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 6))
    board = Board(MemoryStore(memory), DE, de.authority.bundle, clock)
    with pytest.raises(MeshError) as refused:
        await board.publish(de.signer, key, payload, DAY_S)
    assert refused.value.reason is Reason.STORE_CONFLICT, "whoever made the payload had not seen 6"
    assert await board.publish(de.signer, key, payload, DAY_S) == 7


async def test_i5_garbage_under_a_key_neither_stops_its_owner_nor_decides_the_generation(
    board: Board, memory: MemoryBoard, de: Writer, fr: Writer
) -> None:
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, 2**63, signer=fr.signer))
    await board.wait_for(lambda _: str(key) in board.refused, DEADLINE_S)
    assert await board.publish(de.signer, key, payload, DAY_S) == 1
    assert not board.refused


async def test_of_two_writers_one_loses_and_undoes_nothing(
    memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    bundle = de.authority.bundle
    async with (
        running_board(MemoryStore(memory), bundle, clock) as one,
        running_board(MemoryStore(memory), bundle, clock) as two,
    ):
        results = await asyncio.gather(
            one.publish(de.signer, *de.revocations(de.node("a")), DAY_S),
            two.publish(de.signer, *de.revocations(de.node("b")), DAY_S),
            return_exceptions=True,
        )
        lost = [result.reason for result in results if isinstance(result, MeshError)]
        assert lost == [Reason.STORE_CONFLICT]
        winner = de.node("ab"[results.index(1)])
        for board in (one, two):
            await board.wait_for(lambda s: s.is_revoked(winner), DEADLINE_S)
            assert not board.refused
        assert await two.publish(de.signer, *de.revocations(de.node("a"), de.node("b")), DAY_S) > 1


async def test_what_a_node_says_of_itself_wins_over_what_is_stored(
    memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    signer = de.node_signer("fra-1")
    bundle = de.authority.bundle
    async with (
        running_board(MemoryStore(memory), bundle, clock) as one,
        running_board(MemoryStore(memory), bundle, clock) as two,
    ):
        ports = range(1, 5)
        generations = await asyncio.gather(
            *(
                board.publish(signer, *de.record("fra-1", port), DAY_S)
                for board, port in zip((one, two, one, two), ports, strict=True)
            )
        )
        assert len(set(generations)) == 4
        key = str(de.record("fra-1")[0])
        for board in (one, two):
            await board.wait_for(lambda s: s.generations[key][0] == max(generations), DEADLINE_S)
            assert not board.refused


async def test_nobody_signs_for_another(board: Board, memory: MemoryBoard, de: Writer, fr: Writer) -> None:
    for signer in (de.node_signer("fra-1"), fr.signer):
        with pytest.raises(MeshError) as refused:
            await board.publish(signer, *de.policy(), DAY_S)
        assert refused.value.reason is Reason.RECORD_WRONG_SIGNER
    assert memory.get(str(de.policy()[0])) is None


class LosesAnswers(MemoryStore):
    """A store that never says whether it did what it was asked. `does` tells us."""

    def __init__(self, *, does: bool) -> None:
        super().__init__()
        self.does = does
        self.sent: list[bytes] = []

    async def put(
        self, key: str, value: bytes, *, expected_revision: int | None = None, lease: Lease | None = None
    ) -> int:
        self.sent.append(value)
        if self.does:
            await super().put(key, value, expected_revision=expected_revision, lease=lease)
        raise MeshError(Reason.STORE_UNAVAILABLE, "lost")


@pytest.mark.parametrize("does", [True, False])
async def test_i5_no_generation_is_signed_twice_when_an_attempts_fate_is_unknown(
    de: Writer, clock: Clock, does: bool
) -> None:
    store = LosesAnswers(does=does)
    async with running_board(store, de.authority.bundle, clock) as board:
        for text in ("// one", "// two", "// three"):
            with pytest.raises(MeshError) as unknown:
                await board.publish(de.signer, *de.policy(text), DAY_S)
            assert unknown.value.reason is Reason.STORE_UNAVAILABLE
            if does:
                # Whoever publishes next has to have seen it.
                await board.wait_for(
                    lambda s, text=text: DE in s.policies and s.policies[DE].cedar == text, DEADLINE_S
                )
        bundles = {DE: de.authority.bundle}
        signed = [open_envelope(envelope, bundles, clock()).generation for envelope in store.sent]
        assert signed == [1, 2, 3]


class AlwaysConflicts(MemoryStore):
    """A store where somebody else is always faster."""

    async def put(
        self, key: str, value: bytes, *, expected_revision: int | None = None, lease: Lease | None = None
    ) -> int:
        raise MeshError(Reason.STORE_CONFLICT, "changed")


async def test_it_gives_up_where_others_keep_writing(de: Writer, clock: Clock) -> None:
    async with running_board(AlwaysConflicts(), de.authority.bundle, clock) as board:
        with pytest.raises(MeshError) as refused:
            await board.publish(de.signer, *de.policy(), DAY_S)
        assert refused.value.reason is Reason.STORE_CONFLICT
        assert DE not in board.snapshot.policies, "an authority's record counts once it is published"


async def test_i4_what_a_node_says_of_itself_counts_without_the_store(
    board: Board, memory: MemoryBoard, de: Writer
) -> None:
    key, payload = de.facts("fra-1")
    memory.overwrite(str(key), de.seal(key, payload))
    await board.wait_for(lambda _: board.facts, DEADLINE_S)
    memory.disconnect()
    await board.wait_for(lambda _: not board.connected, DEADLINE_S)
    with pytest.raises(MeshError) as away:
        await board.publish(de.node_signer("fra-1"), *de.record("fra-1"), DAY_S)
    assert away.value.reason is Reason.STORE_UNAVAILABLE
    board.announce(de.node_signer("fra-1"), *de.status("fra-1", in_flight=2), 30)
    assert list(board.snapshot.candidates) == [de.node("fra-1")]
    assert board.statuses[de.node("fra-1")].in_flight == 2
    with pytest.raises(MeshError):
        board.announce(de.signer, *de.policy(), 30)
    assert board.due(*de.record("fra-1")) is False
    memory.reconnect()
    await board.wait_for(lambda _: board.connected, DEADLINE_S)
    assert board.due(*de.record("fra-1")), "the board has never had it"
    await board.publish(de.node_signer("fra-1"), *de.record("fra-1"), DAY_S)
    assert not board.due(*de.record("fra-1"))


async def test_a_record_is_due_when_new_changed_half_over_or_lost(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    signer = de.node_signer("fra-1")
    key, payload = de.record("fra-1", port=1)
    assert board.due(key, payload)
    await board.publish(signer, key, payload, 1000)
    assert not board.due(key, payload)
    assert board.due(*de.record("fra-1", port=2))
    clock.now += 501
    assert board.due(key, payload)
    await board.publish(signer, key, payload, 1000)
    assert not board.due(key, payload)
    memory.commit(str(key), None)
    await board.wait_for(lambda _: board.due(key, payload), DEADLINE_S)
    await board.publish(signer, key, payload, 1000)
    memory.overwrite(str(key), b"garbage")
    await board.wait_for(lambda _: board.due(key, payload), DEADLINE_S)


async def test_what_a_wiped_or_old_board_has_lost_is_put_back(
    board: Board, memory: MemoryBoard, de: Writer, fr: Writer
) -> None:
    old = de.seal(*de.facts("fra-1", cordoned=False), 1)
    for key, payload in (de.federation(fr.authority.bundle), de.policy(), de.facts("fra-1", cordoned=True)):
        await board.publish(de.signer, key, payload, DAY_S)
    facts = de.facts("fra-1")[0]
    await board.publish(de.signer, *de.facts("fra-1", cordoned=True), DAY_S)
    key, payload = fr.policy()
    memory.overwrite(str(key), fr.seal(key, payload))
    await board.wait_for(lambda s: len(s.policies) == 2, DEADLINE_S)
    policies = {str(record[0]): memory.get(str(record[0])) for record in (de.policy(), fr.policy())}
    for text in policies:
        memory.commit(text, None)
    memory.overwrite(str(facts), old)
    await board.wait_for(lambda _: board.due(*de.policy()) and str(facts) in board.refused, DEADLINE_S)
    assert await board.restore() == 2, "the policy that was deleted and the facts that went back"
    entry, before = memory.get(str(de.policy()[0])), policies[str(de.policy()[0])]
    assert entry is not None
    assert before is not None
    assert entry.value == before.value
    assert memory.get(str(key)) is None, "others' records are theirs to restore"
    assert not board.refused
    assert await board.restore() == 0


async def test_a_status_hangs_on_its_lease_and_its_generations_survive_a_lost_memory(
    memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    key, payload = de.status("fra-1")
    bundle = de.authority.bundle
    async with running_board(MemoryStore(memory), bundle, clock) as reader:
        for _ in range(2):
            store = MemoryStore(memory)
            async with running_board(store, bundle, clock) as node:
                lease = await store.lease(5)
                for _ in range(3):
                    await node.publish(de.node_signer("fra-1"), key, payload, 30, lease)
                await reader.wait_for(lambda _: bool(reader.statuses), DEADLINE_S)
                await lease.aclose()
                await reader.wait_for(lambda _: not reader.statuses, DEADLINE_S)
                with pytest.raises(MeshError) as lost:
                    await node.publish(de.node_signer("fra-1"), key, payload, 30, lease)
                assert lost.value.reason is Reason.STORE_CONFLICT
            assert not reader.refused
            clock.now += 1


async def test_generations_are_told_for_every_key(board: Board, de: Writer) -> None:
    key: RecordKey = de.policy()[0]
    assert board.generation(key) == 0
    await board.publish(de.signer, *de.policy(), DAY_S)
    assert board.generation(key) == 1
    held = board.held(key)
    assert held is not None
    assert held.payload == held.statement.payload[2:].decode()


async def test_a_watch_that_lags_behind_what_was_published_here_is_no_attack(
    board: Board, de: Writer
) -> None:
    heard: list[dict[str, Reason]] = []
    board.subscribe(lambda _: heard.append(dict(board.refused)))
    for number in range(20):
        await board.publish(de.signer, *de.heads({str(de.policy()[0]): number + 1}), DAY_S)
        await board.publish(de.signer, *de.policy(f"// {number}"), DAY_S)
    await board.wait_for(lambda s: s.policies[DE].generation == 20, DEADLINE_S)
    assert not any(heard)
    assert board.board_revision(str(de.policy()[0])) is not None
    assert not board.due(*de.policy("// 19"))


class LateListings(MemoryStore):
    """Its watches list at once and say so when they are told to, as over a slow connection."""

    def __init__(self, memory: MemoryBoard) -> None:
        super().__init__(memory)
        self.listed = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def watch(self, prefix: str) -> AsyncGenerator[WatchBatch]:
        async with contextlib.aclosing(super().watch(prefix)) as batches:
            async for batch in batches:
                if batch.kind is WatchKind.LISTING:
                    self.listed.set()
                    await self.answer.wait()
                yield batch


async def test_a_listing_that_is_older_than_what_was_published_meanwhile_is_no_attack(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, written: io.StringIO
) -> None:
    store = LateListings(memory)
    key, payload = de.record("fra-1")
    signer = de.node_signer("fra-1")
    memory.overwrite(str(key), de.seal(key, payload))
    async with running_board(store, de.authority.bundle, clock) as board:
        store.listed.clear()
        store.answer.clear()
        federation, others = de.federation(fr.authority.bundle)
        memory.overwrite(str(federation), de.seal(federation, others))  # has everything listed again
        async with asyncio.timeout(DEADLINE_S):
            await store.listed.wait()
        assert await board.publish(signer, key, payload, DAY_S) == 2
        new, policy = de.policy()
        await board.publish(de.signer, new, policy, DAY_S)
        heard: list[dict[str, Reason]] = []
        board.subscribe(lambda _: heard.append(dict(board.refused)))
        store.answer.set()
        known = [board.board_revision(str(each)) for each in (key, new)]
        memory.overwrite(str(de.policy()[0]), de.seal(*de.policy("// later"), 2))
        await board.wait_for(lambda s: s.policies[DE].generation == 2, DEADLINE_S)
        assert not any(heard)
        assert board.board_revision(str(key)) == known[0]
        assert not board.due(key, payload), "it is on the board already"
    assert "RECORD_ROLLED_BACK" not in written.getvalue()


async def test_what_a_node_has_outdone_itself_and_not_published_yet_is_no_attack(
    memory: MemoryBoard, de: Writer, clock: Clock, written: io.StringIO
) -> None:
    key, payload = de.record("fra-1")
    memory.overwrite(str(key), de.seal(key, payload))
    board = Board(MemoryStore(memory), DE, de.authority.bundle, clock)
    board.take(Entry(str(key), de.seal(key, payload), memory.revision))
    board.announce(de.node_signer("fra-1"), key, de.record("fra-1", 2)[1], DAY_S)
    running = asyncio.create_task(board.run())
    try:
        await board.wait_for(lambda _: board.connected, DEADLINE_S)
        assert board.refused == {str(key): Reason.RECORD_ROLLED_BACK}, "it is not what is in force"
        assert board.due(key, de.record("fra-1", 2)[1])
        assert '"level": "warning"' not in written.getvalue()
        assert await board.publish(de.node_signer("fra-1"), key, de.record("fra-1", 2)[1], DAY_S) == 3
        assert board.refused == {}
        memory.overwrite(str(key), de.seal(key, payload))
        await board.wait_for(lambda _: str(key) in board.refused, DEADLINE_S)
        assert '"level": "warning"' in written.getvalue(), "now somebody has put the old one back"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
