"""One asker's flood delays itself and not the others, and no slot or place is ever lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from mesh.core.errors import MeshError, Reason
from node.admission import Admission, Turn


def admission(slots: int, queue: int) -> Admission:
    return Admission(slots=slots, queue=queue, queue_timeout_s=60.0, clock=lambda: 0.0)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def fill(gate: Admission, asker: str, count: int) -> list[asyncio.Task[Turn]]:
    tasks = [asyncio.create_task(gate.enter(asker)) for _ in range(count)]
    await settle()
    return tasks


async def end(*tasks: asyncio.Task[Turn]) -> None:
    for task in tasks:
        task.cancel()
    for turn in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(turn, Turn):
            turn.__exit__(None, None, None)
    await settle()


async def test_whoever_is_alone_may_use_all_of_it():
    gate = admission(slots=2, queue=2)
    flood = await fill(gate, "flood", 5)
    assert (gate.in_flight, gate.queued) == (2, 2)
    assert [task.done() for task in flood] == [True, True, False, False, True]
    with pytest.raises(MeshError):
        flood[4].result()
    await end(*flood[:4])
    assert (gate.in_flight, gate.queued) == (0, 0)


async def test_the_next_slot_is_for_who_holds_the_fewest():
    gate = admission(slots=2, queue=8)
    flood = await fill(gate, "flood", 8)
    (clinic,) = await fill(gate, "clinic", 1)
    flood[0].result().__exit__(None, None, None)
    await settle()
    assert clinic.done()
    assert not flood[2].done()
    await end(clinic, *flood[1:])


async def test_a_full_queue_makes_room_for_who_asks_for_little():
    gate = admission(slots=1, queue=3)
    flood = await fill(gate, "flood", 4)
    (clinic,) = await fill(gate, "clinic", 1)
    with pytest.raises(MeshError) as caught:
        flood[3].result()  # the latest of the flood had to go
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s
    assert not clinic.done()
    # a second flood gets its half and no more: nobody displaces anybody in turn
    others = await fill(gate, "clinic", 3)
    refused = [task for task in others if task.done()]
    assert len(refused) == 2
    for task in refused:
        assert isinstance(task.exception(), MeshError)
    assert gate.queued == 3
    await end(clinic, *flood[:3], *(task for task in others if task not in refused))
    assert (gate.in_flight, gate.queued) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_whoever_comes_and_goes(seed: int):
    chance = random.Random(seed)
    gate = admission(slots=3, queue=5)
    tasks: list[asyncio.Task[Turn]] = []
    for _ in range(400):
        if tasks and chance.random() < 0.5:
            task = tasks.pop(chance.randrange(len(tasks)))
            if chance.random() < 0.5:
                task.cancel()
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().__exit__(None, None, None)
            elif not task.done():
                task.add_done_callback(
                    lambda done: (
                        done.cancelled() or done.exception() or done.result().__exit__(None, None, None)
                    )
                )
        else:
            tasks.append(asyncio.create_task(gate.enter(chance.choice("abc"))))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        assert 0 <= gate.in_flight <= 3
        assert 0 <= gate.queued <= 5
    while tasks:
        await end(*tasks)
        tasks = [task for task in tasks if not task.done()]
    await settle()
    assert (gate.in_flight, gate.queued) == (0, 0)
    assert not gate._in_hand
    assert not gate._holding
    assert gate._waiting == []
