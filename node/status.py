"""Tells the board what this node is and how it is.

Two records, both signed by the node itself: what it serves and where (`nodes/<name>`, when it changes
and when the certificate that signed it is renewed) and how busy it is (`status/<name>`, under a lease,
on every change and once per heartbeat; changes close together are told as one). When the process dies
the lease runs out and the others know. A board that is away is tried again at the next heartbeat and
disturbs nothing else (I4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh import codec
from mesh.board import Board
from mesh.core.errors import MeshError
from mesh.core.records import RecordKey, RecordType
from mesh.core.types import NodeRecord, NodeStatus
from mesh.identity.source import SvidSource
from mesh.store.base import Lease, RecordStore

# The node record outlives restarts of the node; the signing certificate ends it sooner (I5).
RECORD_TTL_S = 86_400.0
# A status is told anew every heartbeat; it may be this many heartbeats late before it is void.
_STATUS_TTL_HEARTBEATS = 20

_LOG = logging.getLogger(__name__)


class StatusPublisher:
    """Runs beside the server. `record` is None while there is nothing to serve yet."""

    def __init__(
        self,
        board: Board,
        store: RecordStore,
        source: SvidSource,
        *,
        record: Callable[[], NodeRecord | None],
        status: Callable[[], NodeStatus],
        heartbeat_s: float,
        coalesce_s: float,
        lease_s: float,
    ) -> None:
        self._board = board
        self._store = store
        self._source = source
        self._record = record
        self._status = status
        self._heartbeat_s = heartbeat_s
        self._coalesce_s = coalesce_s
        self._lease_s = lease_s
        self._wake = asyncio.Event()
        self._lease: Lease | None = None
        # The record and the serial that signed it: as announced here, and as told to the board.
        self._announced: tuple[bytes, str] | None = None
        self._told: tuple[bytes, str] | None = None
        self._troubled = False

    def changed(self) -> None:
        """Something may have changed; cheap, may be called for every request."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; `aclose` afterwards."""
        while True:
            self._wake.clear()
            try:
                await self._tell()
            except MeshError as error:
                if not self._troubled:
                    _LOG.warning("the board does not take this node's status: %s", error)
                self._troubled = True
                await asyncio.sleep(self._heartbeat_s)
                continue
            if self._troubled:
                _LOG.info("the board takes this node's status again")
            self._troubled = False
            await asyncio.sleep(self._coalesce_s)
            try:
                async with asyncio.timeout(self._heartbeat_s - self._coalesce_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _tell(self) -> None:
        node, signer = self._source.id, self._source.signer
        status_key = RecordKey(node.trust_domain, RecordType.STATUS, node.name)
        status = codec.status_to_payload(self._status())
        ttl_s = _STATUS_TTL_HEARTBEATS * self._heartbeat_s
        record_key = RecordKey(node.trust_domain, RecordType.NODE, node.name)
        record = self._record()
        payload = codec.node_record_to_payload(record) if record is not None else b""
        version = (payload, self._source.svid.serial)
        # First what is in force here, whether the board is there or not: a node can serve its own (I4).
        if payload and self._announced != version:
            self._board.announce(signer, record_key, payload, RECORD_TTL_S)
            self._announced = version
        if not self._board.connected:
            self._board.announce(signer, status_key, status, ttl_s)
        if payload and (self._told != version or self._board.due(record_key, payload)):
            await self._board.publish(signer, record_key, payload, RECORD_TTL_S)
            self._told = version
        if self._lease is None or self._lease.lost:
            self._lease = await self._store.lease(self._lease_s)
        await self._board.publish(signer, status_key, status, ttl_s, self._lease)

    async def aclose(self) -> None:
        """Takes the status off the board, so that nobody has to wait for the lease to run out."""
        if self._lease is not None:
            lease, self._lease = self._lease, None
            try:
                async with asyncio.timeout(1.0):
                    await lease.aclose()
            except (MeshError, TimeoutError):
                _LOG.info("the status stays on the board until its lease runs out")
