"""What a replica has to tell a gateway: how often, gathered and merged until it is sent.

Two rules keep the cost of a token small and memory bounded, whatever the reader does:

- What becomes ready within `gap_s` of the last message waits for the next; first tokens and endings
  are urgent and take along what is there.
- News of one generation that has not been sent yet is merged into one event. So a reader that stops
  costs at most one event per generation, of at most its max_tokens tokens.

Pure but for waiting: time comes from the loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sovereign.engine.v1 import engine_pb2


class Beat:
    """A beat that all generations of a replica share, so that their news travels together.

    `interval_s` is asked for each beat. One strikes early when `ended` says that a generation has come
    to its end, which is looked at every `look_s`: an answer's last word waits for nothing. There are
    beats as long as somebody waits for one.
    """

    def __init__(
        self, interval_s: Callable[[], float], ended: Callable[[], bool], look_s: float = 0.005
    ) -> None:
        self._interval_s, self._ended, self._look_s = interval_s, ended, look_s
        self._next: asyncio.Event | None = None
        self._due = 0.0

    async def wait(self) -> None:
        """Until the next beat."""
        if self._next is None:
            self._next = asyncio.Event()
            loop = asyncio.get_running_loop()
            self._due = loop.time() + self._interval_s()
            loop.call_later(self._look_s, self._look)
        await self._next.wait()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._next is None:
            return
        if self._ended() or loop.time() >= self._due:
            self._next.set()
            self._next = None
        else:
            loop.call_later(self._look_s, self._look)


class Outbox:
    """Of one session; used from one event loop."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._events: dict[int, engine_pb2.Event] = {}
        self._urgent = False
        self._sent_at = 0.0
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def put(self, event: engine_pb2.Event, *, urgent: bool = False) -> None:
        """Adds an event; `urgent` if somebody waits for exactly this."""
        earlier = self._events.get(event.id)
        if earlier is None:
            self._events[event.id] = event
        else:
            earlier.text += event.text
            earlier.tokens += event.tokens
            earlier.finish = event.finish
            earlier.error = event.error
            earlier.prompt_tokens = event.prompt_tokens
        self._urgent = self._urgent or urgent
        self._rouse()

    def forget(self, generation: int) -> None:
        """Drops what was not sent of a generation that nobody wants any more."""
        self._events.pop(generation, None)

    async def take(self) -> list[engine_pb2.Event]:
        """Waits until there is something to send and time to send it; never empty."""
        loop = asyncio.get_running_loop()
        while not self._events or not self._due(loop.time()):
            self._wake = loop.create_future()
            self._rouse()
            try:
                await self._wake
            finally:
                self._wake = None
        events = list(self._events.values())
        self._events = {}
        self._urgent = False
        self._sent_at = loop.time()
        return events

    def _due(self, now: float) -> bool:
        return self._urgent or now >= self._sent_at + self._gap_s

    def _rouse(self) -> None:
        """Wakes the taker: after this turn of the loop if it is time, else when it will be."""
        if self._wake is None or not self._events:
            return
        loop = asyncio.get_running_loop()
        if self._due(loop.time()):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            # Not at once: the other tokens of this step are delivered later in this very turn.
            loop.call_soon(self._wake_up)
        elif self._timer is None:
            self._timer = loop.call_at(self._sent_at + self._gap_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
