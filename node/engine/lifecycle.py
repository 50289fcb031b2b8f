"""The life of an engine, as one transition table, and waiting for a state.

Every implementation of the port keeps its state here, so that they cannot differ in what may follow
what. An illegal move is a broken invariant: it raises and changes nothing. What makes an engine move
is its implementation's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from node.engine.base import EngineState

TRANSITIONS: Mapping[EngineState, frozenset[EngineState]] = {
    # ready, gave up on starting, or told to stop
    EngineState.STARTING: frozenset({EngineState.READY, EngineState.FAILED, EngineState.STOPPED}),
    EngineState.READY: frozenset({EngineState.FAILED, EngineState.STOPPED}),
    # healed in place, being started from nothing, or told to stop
    EngineState.FAILED: frozenset({EngineState.READY, EngineState.STARTING, EngineState.STOPPED}),
    EngineState.STOPPED: frozenset(),
}


class IllegalTransitionError(RuntimeError):
    """A move that the table does not have."""


class Lifecycle:
    """A state that moves along the table and can be awaited. Belongs to one event loop."""

    def __init__(self) -> None:
        self._state = EngineState.STARTING
        self._waiters: set[tuple[frozenset[EngineState], asyncio.Future[EngineState]]] = set()

    @property
    def state(self) -> EngineState:
        """Where it is now."""
        return self._state

    def move(self, to: EngineState) -> bool:
        """Moves; True if that was a change. Raises IllegalTransitionError, changing nothing."""
        if to is self._state:
            return False
        if to not in TRANSITIONS[self._state]:
            raise IllegalTransitionError(f"an engine does not go from {self._state} to {to}")
        self._state = to
        for entry in tuple(self._waiters):
            wanted, future = entry
            if to in wanted:
                self._waiters.discard(entry)
                if not future.done():
                    future.set_result(to)
        return True

    async def wait(self, *states: EngineState) -> EngineState:
        """The first of `states` that it is in, or comes into, even if only for a moment."""
        if self._state in states:
            return self._state
        entry = (frozenset(states), asyncio.get_running_loop().create_future())
        self._waiters.add(entry)
        try:
            return await entry[1]
        finally:
            self._waiters.discard(entry)
