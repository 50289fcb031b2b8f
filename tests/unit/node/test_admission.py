"""Bounded concurrency, bounded queue, and nobody's place is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from mesh.core.errors import MeshError, Reason
from node.admission import Admission


def admission(slots: int = 1, queue: int = 1, queue_timeout_s: float = 5.0) -> Admission:
    return Admission(slots=slots, queue=queue, queue_timeout_s=queue_timeout_s, clock=lambda: 0.0)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_free_slot_is_taken_at_once_and_given_back():
    gate = admission()
    with await gate.enter():
        assert (gate.in_flight, gate.queued) == (1, 0)
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_a_full_queue_refuses_with_a_hint():
    gate = admission(slots=1, queue=0)
    with await gate.enter(), pytest.raises(MeshError) as caught:
        await gate.enter()
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s is not None
    assert 0.1 <= caught.value.retry_after_s <= 30.0


async def test_first_come_first_served():
    gate = admission(slots=1, queue=3)
    order: list[int] = []

    async def visit(number: int) -> None:
        with await gate.enter():
            order.append(number)

    first = await gate.enter()
    visits = [asyncio.create_task(visit(number)) for number in range(3)]
    await settle()
    assert gate.queued == 3
    first.__exit__(None, None, None)
    await asyncio.gather(*visits)
    assert order == [0, 1, 2]
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_waiting_has_an_end():
    gate = admission(slots=1, queue=1, queue_timeout_s=0.01)
    with await gate.enter():
        with pytest.raises(MeshError) as caught:
            await gate.enter()
        assert caught.value.reason is Reason.OVERLOADED
        assert gate.queued == 0


async def test_who_leaves_the_queue_leaves_no_gap():
    gate = admission(slots=1, queue=2)
    first = await gate.enter()
    gone = asyncio.create_task(gate.enter())
    stays = asyncio.create_task(gate.enter())
    await settle()
    gone.cancel()
    await settle()
    first.__exit__(None, None, None)
    with await asyncio.wait_for(stays, 1):
        assert gate.in_flight == 1
    assert gate.in_flight == 0


async def test_a_slot_that_comes_together_with_a_cancellation_goes_to_the_next():
    gate = admission(slots=1, queue=2)
    first = await gate.enter()
    gone = asyncio.create_task(gate.enter())
    stays = asyncio.create_task(gate.enter())
    await settle()
    first.__exit__(None, None, None)  # hands the slot to `gone`...
    gone.cancel()  # ...which leaves before it could notice
    with pytest.raises(asyncio.CancelledError):
        await gone
    with await asyncio.wait_for(stays, 1):
        assert gate.in_flight == 1
    assert gate.in_flight == 0


async def test_leaving_twice_is_harmless():
    gate = admission()
    turn = await gate.enter()
    turn.__exit__(None, None, None)
    turn.__exit__(None, None, None)
    assert gate.in_flight == 0


async def test_more_slots_let_waiting_ones_in():
    gate = admission(slots=0, queue=2)
    waiting = [asyncio.create_task(gate.enter()) for _ in range(2)]
    await settle()
    assert gate.queued == 2
    gate.resize(2)
    turns = await asyncio.gather(*waiting)
    assert gate.in_flight == 2
    for turn in turns:
        turn.__exit__(None, None, None)
    await asyncio.wait_for(gate.wait_idle(), 1)


async def test_idle_is_told_only_when_nothing_is_left():
    gate = admission(slots=1, queue=1)
    first = await gate.enter()
    idle = asyncio.create_task(gate.wait_idle())
    await settle()
    assert not idle.done()
    first.__exit__(None, None, None)
    await asyncio.wait_for(idle, 1)


async def test_the_hint_follows_how_long_service_takes():
    now = [0.0]
    gate = Admission(slots=1, queue=0, queue_timeout_s=1, clock=lambda: now[0])
    for _ in range(60):
        with await gate.enter():
            now[0] += 5.0
    with await gate.enter(), pytest.raises(MeshError) as caught:
        await gate.enter()
    assert caught.value.retry_after_s == pytest.approx(5.0, rel=0.05)
