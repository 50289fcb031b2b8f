"""Whether an event loop still turns, asked from another one.

Nothing ticks while nobody asks. A question waits for a quarter of a second; one that has been open for
`STUCK_AFTER_S` means that the loop is stuck. So one long computation is not taken for a death, and a loop
that hangs is found by the second or third probe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

STUCK_AFTER_S = 20.0
PATIENCE_S = 0.25


class Pulse:
    """Of `watched`. Made and asked on another event loop; `delay_s` may be read from anywhere.

    `monotonic`: seconds.
    """

    def __init__(
        self,
        watched: asyncio.AbstractEventLoop,
        monotonic: Callable[[], float],
        *,
        stuck_after_s: float = STUCK_AFTER_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._watched = watched
        self._monotonic = monotonic
        self._stuck_after_s = stuck_after_s
        self._patience_s = patience_s
        self._asked_at: float | None = None
        self._answer: asyncio.Future[None] | None = None
        self._last_delay_s = 0.0

    @property
    def delay_s(self) -> float:
        """How long the newest question took to be answered, or has been open."""
        asked_at = self._asked_at
        return self._last_delay_s if asked_at is None else self._monotonic() - asked_at

    async def beats(self) -> bool:
        """Asks, unless a question is open, and waits a moment for the answer; False if it is stuck."""
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            self._asked_at = self._monotonic()
            with contextlib.suppress(RuntimeError):  # a closed loop never answers
                self._watched.call_soon_threadsafe(self._answered, self._answer)
        await asyncio.wait({self._answer}, timeout=self._patience_s)
        return self._answer.done() or self.delay_s < self._stuck_after_s

    def _answered(self, answer: asyncio.Future[None]) -> None:
        """On the watched loop."""
        delay_s = self.delay_s
        with contextlib.suppress(RuntimeError):  # whoever asked has gone
            answer.get_loop().call_soon_threadsafe(self._note, answer, delay_s)

    def _note(self, answer: asyncio.Future[None], delay_s: float) -> None:
        """Back on the loop that asked."""
        self._last_delay_s, self._asked_at = delay_s, None
        if not answer.done():
            answer.set_result(None)
