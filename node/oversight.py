"""Watches over the calls being served, and ends those that may not go on.

Three things end a call: its caller was revoked or its certificate ran out; the node, asked again on its
newest records, would no longer take it (I1: output is payload, too); its caller stopped reading. The
first two are looked at whenever records change, and the passing of time, which makes records stale
(I4), once a second while anything runs. A cordon ends nothing: what is under way finishes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.core.errors import MeshError
from mesh.core.placement import Placer
from mesh.core.snapshot import Snapshot
from mesh.core.types import SpiffeId
from mesh.rpc.callers import require_still
from mesh.rpc.placement_service import View
from node.live_calls import LiveCall, LiveCalls

_TICK_S = 1.0

_LOG = logging.getLogger(__name__)


class Oversight:
    """For one node. `clock` is Unix seconds, `monotonic` that of LiveCall.writing_since."""

    def __init__(
        self,
        live: LiveCalls,
        view: View,
        placer: Placer,
        node: SpiffeId,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        write_timeout_s: float,
    ) -> None:
        self._live = live
        self._view = view
        self._placer = placer
        self._node = node
        self._clock = clock
        self._monotonic = monotonic
        self._write_timeout_s = write_timeout_s

    def review(self, snapshot: Snapshot) -> int:
        """Asks anew about every call; cuts those that are no longer permitted, and says how many."""
        now = self._clock()
        cut = self._live.review(lambda call: self._objection(call, snapshot, now))
        if cut:
            _LOG.warning("cut %d calls that are no longer permitted", cut)
        return cut

    def _objection(self, call: LiveCall, snapshot: Snapshot, now: float) -> MeshError | None:
        try:
            require_still(call.peer, snapshot, now)
            decision = self._placer.judge_here(
                snapshot,
                self._node,
                principal=call.principal,
                action=call.action,
                context=call.context,
                model=call.model,
                now=now,
                decision_id="",
            )
        except MeshError as error:
            return error
        if decision.permitted or not decision.refused[0].reason.is_policy:
            return None
        return decision.refusal()

    async def run(self) -> None:
        """Until cancelled."""
        tick = min(_TICK_S, self._write_timeout_s / 4)
        while True:
            await asyncio.sleep(tick)
            if len(self._live):
                cut = self._live.cut_stalled(self._monotonic(), self._write_timeout_s)
                if cut:
                    _LOG.warning("cut %d calls whose callers stopped reading", cut)
                self.review(self._view.snapshot)
