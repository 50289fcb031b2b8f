"""Admission: how many requests are served at once, how many may wait, and who is told to come back.

Overload answers OVERLOADED with a hint instead of queueing for ever: the queue is bounded in length and
in time. First come, first served. It decides in synchronous blocks and awaits only its own turn; it
knows nothing of permits or engines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
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
        self._waiting: deque[asyncio.Future[None]] = deque()
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

    async def enter(self) -> Turn:
        """Takes a slot, waiting in the queue if need be; OVERLOADED if the queue is full or too slow.

        The turn must be left, on every path: ``with await admission.enter(): ...``.
        """
        if self.in_flight < self._slots and not self._waiting:
            return self._begin()
        if len(self._waiting) >= self._queue_bound:
            raise self._overloaded("the node's queue is full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._note()
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(None)  # the slot came in the same moment: pass it on
            else:
                with contextlib.suppress(ValueError):  # already passed over
                    self._waiting.remove(turn)
                self._note()
            if isinstance(error, TimeoutError):
                raise self._overloaded(f"no slot became free within {self._queue_timeout_s:g} s") from None
            raise
        return Turn(self._leave, self._clock())

    async def wait_idle(self) -> None:
        """Waits until nothing is served and nothing waits."""
        await self._idle.wait()

    def _begin(self) -> Turn:
        self.in_flight += 1
        self._note()
        return Turn(self._leave, self._clock())

    def _leave(self, since: float | None) -> None:
        if since is not None:
            self._service_s += _SMOOTHING * (self._clock() - since - self._service_s)
        self.in_flight -= 1
        self._hand_over()
        self._note()

    def _note(self) -> None:
        if self.in_flight or self._waiting:
            self._idle.clear()
        else:
            self._idle.set()
        self._changed()

    def _hand_over(self) -> None:
        while self._waiting and self.in_flight < self._slots:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def _overloaded(self, message: str) -> MeshError:
        ahead = self.in_flight + len(self._waiting)
        hint = self._service_s * ahead / max(1, self._slots)
        return MeshError(Reason.OVERLOADED, message, {}, min(max(hint, _MIN_HINT_S), _MAX_HINT_S))


class Turn:
    """A slot that is held. A context manager; leaving twice is harmless."""

    __slots__ = ("_leave", "_left", "_since")

    def __init__(self, leave: Callable[[float | None], None], since: float) -> None:
        self._leave = leave
        self._since = since
        self._left = False

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._left:
            self._left = True
            self._leave(self._since)
