"""Admission: how many requests are served at once, how many may wait, and who is told to come back.

Overload answers OVERLOADED with a hint instead of queueing for ever: the queue is bounded in length and
in time. Whoever is alone may use all of it. Among several askers a free slot goes to the one that holds
the fewest, first come, first served; and where the queue is full, somebody who asks for little takes the
place of the latest request of whoever has the most in hand: a flood of one tenant's, or of another
authority's clients, delays itself and not the others.

It decides in synchronous blocks and awaits only its own turn; it knows nothing of permits or engines.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from mesh.core.errors import MeshError, Reason

# Weight of the newest service time in the running mean behind the retry hint.
_SMOOTHING = 0.1
_MIN_HINT_S = 0.1
_MAX_HINT_S = 30.0


class Admission:
    """A bounded number of slots and a bounded queue for them.

    `clock` is monotonic, in seconds. `changed` is called after every change of the counts.
    """

    def __init__(
        self,
        *,
        slots: int,
        queue: int,
        queue_timeout_s: float,
        clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._slots = slots
        self._queue_bound = queue
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._changed = changed
        self._waiting: list[_Waiting] = []
        self._holding: Counter[str] = Counter()  # slots, by asker
        self._in_hand: Counter[str] = Counter()  # slots and places in the queue, by asker
        self._service_s = 1.0
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    @property
    def slots(self) -> int:
        """Requests served at once."""
        return self._slots

    def resize(self, slots: int) -> None:
        """Follows the engine's capacity; nobody in a slot is disturbed."""
        self._slots = slots
        self._hand_over()
        self._note()

    async def enter(self, asker: str = "") -> Turn:
        """Takes a slot, waiting in the queue if need be; OVERLOADED if the queue is full or too slow.

        `asker` is who shares one share. The turn must be left, on every path:
        ``with await admission.enter(): ...``.
        """
        if self.in_flight < self._slots and not self._waiting:
            self._in_hand[asker] += 1
            self._begin(asker)
            self._note()
            return Turn(self._leave, self._clock(), asker)
        if len(self._waiting) >= self._queue_bound:
            self._make_room(asker)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = _Waiting(asker, turn)
        self._waiting.append(place)
        self._in_hand[asker] += 1
        self._note()
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await turn
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self._drop(asker)
                self._note()
            elif not place.displaced:
                self._leave(None, asker)  # the slot came in the same moment: pass it on
            elif not turn.cancelled():
                turn.exception()  # told, or of no interest to a caller that left
            if isinstance(error, TimeoutError):
                raise self._overloaded(f"no slot became free within {self._queue_timeout_s:g} s") from None
            raise
        return Turn(self._leave, self._clock(), asker)

    def _make_room(self, asker: str) -> None:
        """Displaces the latest of whoever has the most in hand, or raises OVERLOADED if that is the asker."""
        most = max((self._in_hand[place.asker] for place in self._waiting), default=0)
        if self._in_hand[asker] + 1 >= most:
            raise self._overloaded("the node's queue is full")
        place = next(p for p in reversed(self._waiting) if self._in_hand[p.asker] == most)
        self._waiting.remove(place)
        self._drop(place.asker)
        place.displaced = True
        if not place.turn.done():
            place.turn.set_exception(self._overloaded("the node's queue is full, mostly with your requests"))

    async def wait_idle(self) -> None:
        """Waits until nothing is served and nothing waits."""
        await self._idle.wait()

    def _begin(self, asker: str) -> None:
        self.in_flight += 1
        self._holding[asker] += 1

    def _leave(self, since: float | None, asker: str) -> None:
        if since is not None:
            self._service_s += _SMOOTHING * (self._clock() - since - self._service_s)
        self.in_flight -= 1
        self._holding[asker] -= 1
        if not self._holding[asker]:
            del self._holding[asker]
        self._drop(asker)
        self._hand_over()
        self._note()

    def _drop(self, asker: str) -> None:
        self._in_hand[asker] -= 1
        if not self._in_hand[asker]:
            del self._in_hand[asker]

    def _note(self) -> None:
        if self.in_flight or self._waiting:
            self._idle.clear()
        else:
            self._idle.set()
        self._changed()

    def _hand_over(self) -> None:
        while self._waiting and self.in_flight < self._slots:
            # The earliest of those who hold the fewest: min() keeps to the order of arrival.
            place = min(self._waiting, key=lambda waiting: self._holding[waiting.asker])
            self._waiting.remove(place)
            self._begin(place.asker)
            if place.turn.done():  # cancelled, and not yet awake: `enter` gives the slot back
                continue
            place.turn.set_result(None)

    def _overloaded(self, message: str) -> MeshError:
        ahead = self.in_flight + len(self._waiting)
        hint = self._service_s * ahead / max(1, self._slots)
        return MeshError(Reason.OVERLOADED, message, {}, min(max(hint, _MIN_HINT_S), _MAX_HINT_S))


@dataclass(slots=True, eq=False)
class _Waiting:
    """A place in the queue."""

    asker: str
    turn: asyncio.Future[None]
    displaced: bool = False


class Turn:
    """A slot that is held. A context manager; leaving twice is harmless."""

    __slots__ = ("_asker", "_leave", "_left", "_since")

    def __init__(self, leave: Callable[[float | None, str], None], since: float, asker: str) -> None:
        self._leave = leave
        self._asker = asker
        self._since = since
        self._left = False

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._left:
            self._left = True
            self._leave(self._since, self._asker)
