"""NodeAdmin: what administrators of this node's own authority may know of how it is doing.

Nothing about any single request, and nothing about tenants, is in it (I1). Whoever else calls is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from mesh.core.errors import MeshError, Reason
from mesh.core.last_minute import Minute
from mesh.core.snapshot import Snapshot
from mesh.identity.source import SvidSource
from mesh.rpc.callers import ADMIN, caller_of
from mesh.telemetry.last_minute import LastMinuteKeeper
from sovereign.mesh.v1 import node_admin_pb2, node_admin_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.NodeAdmin"

_Context = grpc.aio.ServicerContext[Any, Any]


class NodeAdminService(node_admin_pb2_grpc.NodeAdminServicer):
    """`kept` is None where nothing is measured. `clock`: Unix seconds."""

    def __init__(
        self,
        kept: LastMinuteKeeper | None,
        source: SvidSource,
        snapshot: Callable[[], Snapshot],
        clock: Callable[[], float],
    ) -> None:
        self._kept = kept
        self._source = source
        self._snapshot = snapshot
        self._clock = clock

    async def GetLastMinute(
        self, request: node_admin_pb2.GetLastMinuteRequest, context: _Context
    ) -> node_admin_pb2.GetLastMinuteResponse:
        """Sums of the last minute. Raises IDENTITY_NOT_ALLOWED for anybody but an own administrator."""
        peer = caller_of(context, self._source.bundles, self._snapshot(), self._clock(), (ADMIN,))
        if peer.id.trust_domain != self._source.id.trust_domain:
            raise MeshError(
                Reason.IDENTITY_NOT_ALLOWED, "expected an administrator of this node's own authority"
            )
        if self._kept is None:
            return node_admin_pb2.GetLastMinuteResponse(measured=False)
        return _answer(self._kept.now())


def _answer(minute: Minute | None) -> node_admin_pb2.GetLastMinuteResponse:
    if minute is None:
        return node_admin_pb2.GetLastMinuteResponse(measured=True)
    return node_admin_pb2.GetLastMinuteResponse(
        measured=True,
        window_seconds=minute.window_s,
        requests=minute.requests,
        failed=minute.failed,
        refused=minute.refused,
        prompt_tokens=minute.prompt_tokens,
        completion_tokens=minute.completion_tokens,
        p50_seconds=minute.p50_s,
        p99_seconds=minute.p99_s,
    )
