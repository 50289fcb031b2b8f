"""The table of an engine's life: every move that it has, and that it has no other."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from node.engine.base import EngineState
from node.engine.lifecycle import TRANSITIONS, IllegalTransitionError, Lifecycle

PATHS = {
    EngineState.STARTING: (),
    EngineState.READY: (EngineState.READY,),
    EngineState.FAILED: (EngineState.FAILED,),
    EngineState.STOPPED: (EngineState.STOPPED,),
}


@pytest.mark.parametrize(("before", "after"), list(product(EngineState, EngineState)))
def test_moves_along_the_table_only(before: EngineState, after: EngineState) -> None:
    life = Lifecycle()
    for step in PATHS[before]:
        life.move(step)
    if after is before:
        assert life.move(after) is False
    elif after in TRANSITIONS[before]:
        assert life.move(after) is True
        assert life.state is after
    else:
        with pytest.raises(IllegalTransitionError):
            life.move(after)
        assert life.state is before


async def test_whoever_waits_learns_of_a_state_that_lasted_a_moment() -> None:
    life = Lifecycle()
    waiter = asyncio.create_task(life.wait(EngineState.FAILED, EngineState.STOPPED))
    await asyncio.sleep(0)
    life.move(EngineState.READY)
    life.move(EngineState.FAILED)
    life.move(EngineState.READY)
    assert await waiter is EngineState.FAILED


async def test_a_waiter_that_leaves_is_forgotten() -> None:
    life = Lifecycle()
    waiter = asyncio.create_task(life.wait(EngineState.READY))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert not life._waiters
    life.move(EngineState.READY)
