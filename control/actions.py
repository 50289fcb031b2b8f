"""The log of what administrators and joining machines had the control plane do.

Two entries an action, under one id: what is about to be done, durable before it is done (an action
that cannot be recorded does not happen), and how it ended. No secrets: names, digests, generations.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.evidence import DecisionLog

Outcome = dict[str, object]


class ActionLog:
    """Writes actions to a durable log. `clock`: Unix seconds."""

    def __init__(self, log: DecisionLog, clock: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._log = log
        self._clock = clock
        self._new_id = new_id

    @asynccontextmanager
    async def action(
        self, what: str, by: SpiffeId | None, serial: str, **facts: object
    ) -> AsyncIterator[Outcome]:
        """Around an action: fill the outcome that it yields. `by` is None for a machine without a name.

        Raises EVIDENCE_UNAVAILABLE before the action if it cannot be recorded.
        """
        number = self._new_id()
        head: dict[str, object] = {"kind": "action", "id": number, "action": what}
        who = {"by": str(by) if by is not None else "", "serial": serial}
        await self._log.record({**head, "at": self._clock(), **who, **facts, "state": "begun"})
        outcome: Outcome = {}
        try:
            yield outcome
        except MeshError as error:
            await self._log.record(
                {**head, "at": self._clock(), "state": "failed", "reason": error.reason.code}
            )
            raise
        except BaseException:
            await self._log.record(
                {**head, "at": self._clock(), "state": "failed", "reason": Reason.INTERNAL.code}
            )
            raise
        await self._log.record({**head, "at": self._clock(), "state": "done", **outcome})
