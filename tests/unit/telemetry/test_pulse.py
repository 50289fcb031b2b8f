"""A loop that turns, one that is busy, one that is stuck, one that has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mesh.telemetry.pulse import Pulse


class Watched:
    """An event loop in a thread, which can be held up."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.go_on = threading.Event()

    def hold(self) -> None:
        held = threading.Event()

        def wait() -> None:
            held.set()
            self.go_on.wait(30)

        self.loop.call_soon_threadsafe(wait)
        assert held.wait(10)

    def end(self) -> None:
        self.go_on.set()
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.loop.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.end()


async def test_a_loop_that_turns_answers_at_once(watched: Watched):
    pulse = Pulse(watched.loop, lambda: 0.0, patience_s=10.0)
    assert await pulse.beats()
    assert await pulse.beats()
    assert pulse.delay_s == 0.0


async def test_a_busy_loop_is_alive_and_a_stuck_one_is_not(watched: Watched):
    now = 100.0
    pulse = Pulse(watched.loop, lambda: now, stuck_after_s=20.0, patience_s=0.01)
    watched.hold()
    assert await pulse.beats()
    now = 119.0
    assert await pulse.beats(), "the first question is open for 19 s"
    assert pulse.delay_s == 19.0
    now = 121.0
    assert not await pulse.beats()
    watched.go_on.set()
    patient = 0
    while not await pulse.beats():
        patient += 1
        assert patient < 1000
    assert pulse.delay_s in (0.0, 21.0)


async def test_a_loop_that_has_ended_is_stuck_in_time(watched: Watched):
    now = 0.0
    pulse = Pulse(watched.loop, lambda: now, stuck_after_s=20.0, patience_s=0.01)
    watched.end()
    assert await pulse.beats()
    now = 30.0
    assert not await pulse.beats()
