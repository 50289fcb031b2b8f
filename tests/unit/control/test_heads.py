"""The keeper of an authority's heads: what it names, when it signs, what it keeps alive (I4, I5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control.heads import RECORD_LIFE_S, HeadsKeeper
from mesh.board import Board
from mesh.core.errors import MeshError, Reason
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.boards import DAY_S, DE, Clock, Writer, running_board
from tests.support.identities import AuthorityForTests

DEADLINE_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def de(tmp_path: Path, clock: Clock) -> Writer:
    return Writer(AuthorityForTests(tmp_path, DE), clock)


@pytest.fixture
def memory() -> MemoryBoard:
    return MemoryBoard()


@pytest.fixture
async def board(memory: MemoryBoard, de: Writer, clock: Clock) -> AsyncIterator[Board]:
    async with running_board(MemoryStore(memory), de.authority.bundle, clock) as board:
        yield board


def keeper(board: Board, de: Writer, clock: Clock, interval_s: float = 0.01) -> HeadsKeeper:
    return HeadsKeeper(board, DE, lambda: de.signer, clock, interval_s=interval_s, max_age_s=60)


@asynccontextmanager
async def running(keeper: HeadsKeeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.run())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_record_is_named_in_the_heads_as_soon_as_it_is_published(
    board: Board, de: Writer, clock: Clock
) -> None:
    heads = keeper(board, de, clock)
    for generation in (1, 2):
        assert await heads.publish(*de.policy()) == generation
        assert board.snapshot.heads[DE].generations == {str(de.policy()[0]): generation}
        assert board.snapshot.stale_reason(DE, clock()) == ""


async def test_nodes_see_the_record_before_the_heads_that_name_it(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    heads = keeper(board, de, clock)
    async with running_board(MemoryStore(memory), de.authority.bundle, clock) as node:
        await heads.publish(*de.policy())
        await node.wait_for(lambda s: DE in s.heads, DEADLINE_S)
        stale: list[str] = []
        node.subscribe(lambda s: stale.append(s.stale_reason(DE, clock())))
        for generation in range(2, 8):
            await heads.publish(*de.policy(f"// {generation}"))
        await node.wait_for(lambda s: s.heads[DE].generations[str(de.policy()[0])] == 7, DEADLINE_S)
        assert set(stale) == {""}


async def test_it_names_what_is_in_force_and_never_forgets_what_must_be_renewed(
    board: Board, de: Writer, clock: Clock
) -> None:
    heads = keeper(board, de, clock)
    await heads.publish(*de.policy(), 60)
    await heads.publish(*de.facts("fra-1"), 60)
    await heads.publish(*de.facts("fra-2"))
    await board.publish(de.node_signer("fra-2"), *de.record("fra-2"), DAY_S)
    clock.now += 61
    board.tick()
    await heads.sign()
    named = board.snapshot.heads[DE].generations
    assert named == {str(de.policy()[0]): 1, str(de.facts("fra-2")[0]): 1}
    assert "has not arrived" in board.snapshot.stale_reason(DE, clock()), "the policy was not renewed"


async def test_heads_go_on_being_signed(board: Board, de: Writer, clock: Clock) -> None:
    async with running(keeper(board, de, clock)):
        for _ in range(3):
            clock.now += 30
            now = clock()
            await board.wait_for(
                lambda s, now=now: DE in s.heads and s.heads[DE].signed_at == now, DEADLINE_S
            )


async def test_a_board_that_is_away_makes_them_late_and_nothing_worse(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    heads = keeper(board, de, clock)
    async with running(heads):
        await board.wait_for(lambda s: DE in s.heads, DEADLINE_S)
        memory.disconnect()
        await board.wait_for(lambda _: not board.connected, DEADLINE_S)
        with pytest.raises(MeshError) as away:
            await heads.sign()
        assert away.value.reason is Reason.STORE_UNAVAILABLE
        clock.now += 61
        assert "old" in board.snapshot.stale_reason(DE, clock())
        memory.reconnect()
        await board.wait_for(lambda s: s.stale_reason(DE, clock()) == "", DEADLINE_S)


async def test_i5_nothing_is_called_current_before_the_board_was_listed(
    memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    unlisted = Board(MemoryStore(memory), DE, de.authority.bundle, clock)
    with pytest.raises(MeshError) as refused:
        await keeper(unlisted, de, clock).sign()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert not memory.under("/")


async def test_records_are_signed_anew_when_half_of_their_life_is_over(
    board: Board, de: Writer, clock: Clock
) -> None:
    heads = keeper(board, de, clock)
    await heads.publish(*de.policy("// the one"))
    await heads.publish(*de.facts("fra-1"))
    clock.now += RECORD_LIFE_S / 2 + 1
    async with running(heads):
        snapshot = await board.wait_for(
            lambda s: DE in s.heads and set(s.heads[DE].generations.values()) == {2}, DEADLINE_S
        )
    assert snapshot.policies[DE].cedar == "// the one"
    assert set(board.facts) == {de.node("fra-1")}
    assert snapshot.stale_reason(DE, clock()) == ""


async def test_what_the_board_has_lost_is_put_back(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock
) -> None:
    heads = keeper(board, de, clock)
    await heads.publish(*de.policy())
    key = str(de.policy()[0])
    memory.commit(key, None)
    await board.wait_for(lambda _: board.board_revision(key) == (0, False), DEADLINE_S)
    async with running(heads):
        await board.wait_for(lambda _: (board.board_revision(key) or (0, False))[1], DEADLINE_S)
    assert memory.get(key) is not None
    assert board.snapshot.policies[DE].generation == 1


def test_a_maximum_age_that_one_late_signature_would_exceed_is_refused(de: Writer, clock: Clock) -> None:
    board = Board(MemoryStore(), DE, de.authority.bundle, clock)
    with pytest.raises(MeshError) as refused:
        HeadsKeeper(board, DE, lambda: de.signer, clock, interval_s=5, max_age_s=9)
    assert refused.value.reason is Reason.CONFIG_INVALID
