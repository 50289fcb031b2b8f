"""The calls being served right now, so that they can be cut off.

A permission may end while its stream runs: the caller is revoked, a policy is withdrawn, records grow
stale. What was permitted when it began does not stay permitted (I1). This registry knows who calls and
what for, never what is said. Whoever serves a call registers it, and turns the cancellation that a cut
causes into the cut's own error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action, Principal, RequestContext
from mesh.identity.peer import Peer


@dataclass(slots=True, eq=False)
class LiveCall:
    """One call. `writing_since` is monotonic seconds while a message waits to be taken, else 0."""

    peer: Peer
    principal: Principal
    action: Action
    context: RequestContext
    model: str
    task: asyncio.Task[object]
    writing_since: float = 0.0
    cut_by: MeshError | None = field(default=None)

    def cut(self, error: MeshError) -> None:
        """Ends the call with this error; the first one counts."""
        if self.cut_by is None:
            self.cut_by = error
            self.task.cancel()


class LiveCalls:
    """All of them. One event loop."""

    def __init__(self) -> None:
        self._calls: set[LiveCall] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[LiveCall]:
        return iter(tuple(self._calls))

    def add(self, call: LiveCall) -> None:
        """Registers a call; `remove` it on every path."""
        self._calls.add(call)
        self._none.clear()

    def remove(self, call: LiveCall) -> None:
        """Forgets a call."""
        self._calls.discard(call)
        if not self._calls:
            self._none.set()

    async def wait_none(self) -> None:
        """Waits until there is none."""
        await self._none.wait()

    def review(self, objection: Callable[[LiveCall], MeshError | None]) -> int:
        """Cuts every call that `objection` has something against; how many."""
        cut = 0
        for call in self:
            error = objection(call)
            if error is not None:
                call.cut(error)
                cut += 1
        return cut

    def cut_stalled(self, now: float, timeout_s: float) -> int:
        """Cuts every call whose peer has not taken a message for `timeout_s`; how many."""
        return self.review(
            lambda call: (
                MeshError(Reason.PEER_TOO_SLOW, f"the caller took nothing for {timeout_s:g} s")
                if call.writing_since and now - call.writing_since > timeout_s
                else None
            )
        )
