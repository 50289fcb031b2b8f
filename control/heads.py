"""The authority's word on which of its records are current, signed anew every few seconds.

This is the timestamp role of The Update Framework: nodes of other authorities rely on this authority's
records across a border only while its latest word is young, so a board that is down or withholds runs
out of time by itself (I4, I5). The same loop keeps the authority's records alive: it signs anew what is
past half of its life, and puts back what the board has lost.

Rules it keeps: nothing is signed before the board has been listed, or a keeper without memory would
call old records current. A record is published first and named in the heads then, so that no node
waits for what it cannot have yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh.board import Board
from mesh.codec.records import heads_to_payload
from mesh.core.errors import MeshError, Reason
from mesh.core.records import CLOCK_TOLERANCE_S, COVERED_BY_HEADS, NAMED, RecordKey, RecordType
from mesh.core.snapshot import Heads
from mesh.identity.signing import Signer

_log = logging.getLogger(__name__)

RECORD_LIFE_S = 30 * 86_400.0
_RETRY_S = 1.0


class HeadsKeeper:
    """Publishes one authority's records and heads. `signer` gives its record signer of now.

    `interval_s` is how often heads are signed; `max_age_s` how old they may be for cross-border use, and
    therefore how long the mesh rides out a board that is away. Several intervals, or one late signature
    closes the borders.
    """

    def __init__(
        self,
        board: Board,
        trust_domain: str,
        signer: Callable[[], Signer],
        clock: Callable[[], float],
        *,
        interval_s: float = 5.0,
        max_age_s: float = 60.0,
    ) -> None:
        if not 0 < 2 * interval_s <= max_age_s:
            raise MeshError(Reason.CONFIG_INVALID, "heads: expected a maximum age of two intervals or more")
        self._board = board
        self._key = RecordKey(trust_domain, RecordType.HEADS)
        self._signer = signer
        self._clock = clock
        self._interval_s = interval_s
        self._max_age_s = max_age_s
        # Held around every read, change and publication of a record, the keeper's own renewals included:
        # signing an old payload anew must not undo a change that is under way.
        self.changing = asyncio.Lock()

    async def publish(self, key: RecordKey, payload: bytes, life_s: float = RECORD_LIFE_S) -> int:
        """Publishes one of the authority's records and names it in the heads; its generation.

        Raises what Board.publish raises. Where only the heads fail, the record is published all the same
        and the next heads name it.
        """
        generation = await self._board.publish(self._signer(), key, payload, life_s)
        try:
            await self.sign()
        except MeshError as error:
            _log.warning("heads are late: %s", error)
        return generation

    async def sign(self) -> None:
        """Signs and publishes the heads of now. Raises STORE_UNAVAILABLE."""
        if not self._board.connected:
            raise MeshError(Reason.STORE_UNAVAILABLE, "the board is away")
        heads = Heads(self._clock(), self._max_age_s, self._generations())
        life_s = self._max_age_s + CLOCK_TOLERANCE_S
        await self._board.publish(self._signer(), self._key, heads_to_payload(heads), life_s)

    async def run(self) -> None:
        """Signs for ever, until cancelled."""
        while True:
            pause = self._interval_s
            try:
                await self._renew()
                await self.sign()
            except MeshError as error:
                _log.warning("heads are late: %s", error)
                pause = min(pause, _RETRY_S)
            await asyncio.sleep(pause)

    def _generations(self) -> dict[str, int]:
        in_force = (key for key in self._board.own() if key.type in COVERED_BY_HEADS)
        # A policy, a revocation list and the like stay named when they are no longer in force: that they
        # were not renewed must close the borders, not go unnoticed. A node's facts may end in peace.
        single = (RecordKey(self._key.trust_domain, kind) for kind in COVERED_BY_HEADS - NAMED)
        found = {str(key): self._board.generation(key) for key in (*in_force, *single)}
        return {key: generation for key, generation in sorted(found.items()) if generation}

    async def _renew(self) -> None:
        if not self._board.connected:
            return
        restored = await self._board.restore()
        if restored:
            _log.warning("%d records had gone from the board and were put back", restored)
        for key in self._board.own():
            async with self.changing:
                held = self._board.held(key) if key.type in COVERED_BY_HEADS else None
                if held is None or self._clock() < (held.statement.not_before + held.statement.not_after) / 2:
                    continue
                await self._board.publish(self._signer(), key, held.statement.payload, RECORD_LIFE_S)
