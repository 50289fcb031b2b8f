"""Control planes and SDK clients on top of a mesh in one process (tests/support/mesh.py)."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from control.plane import ControlPlane, Parts
from mesh.client import MeshClient
from mesh.evidence import MemoryDecisionLog
from mesh.identity.ca import CertificateAuthority
from mesh.ids import id_maker
from mesh.sdk.placers import Server
from mesh.store.base import RecordStore
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.mesh import Mesh

DEADLINE_S = 10.0


class RunningControl:
    """A control plane with what a test wants to look at."""

    def __init__(self, plane: ControlPlane, actions: MemoryDecisionLog, decisions: MemoryDecisionLog) -> None:
        self.plane = plane
        self.actions = actions
        self.decisions = decisions

    @property
    def server(self) -> Server:
        return Server(self.plane.id, self.plane.endpoint)


@contextlib.asynccontextmanager
async def control_of(
    ca: CertificateAuthority,
    board: MemoryBoard,
    directory: Path,
    *,
    clock: Callable[[], float] = time.time,
    **options: Any,
) -> AsyncIterator[RunningControl]:
    """A running control plane on a memory board, connected to it."""
    store: RecordStore = MemoryStore(board)
    actions, decisions = MemoryDecisionLog(), MemoryDecisionLog()
    plane = ControlPlane(
        Parts(
            ca=ca,
            store=store,
            decisions=decisions,
            actions=actions,
            state_directory=directory,
            clock=clock,
            random=random.random,
            new_id=id_maker(clock),
            heads_interval_s=0.2,
            heads_max_age_s=60.0,
            **options,
        )
    )
    try:
        await plane.start()
        await plane.board.wait_for(lambda _: plane.board.connected, DEADLINE_S)
        yield RunningControl(plane, actions, decisions)
    finally:
        await plane.stop(0)


def client_of(mesh: Mesh, identity: str, *servers: Server, silence_s: float = 10.0) -> MeshClient:
    """An SDK client: "DE/clinic" is /client/clinic of the DE authority. Asks its home nodes and `servers`."""
    country, _, path = identity.partition("/")
    authority = mesh[country]
    nodes = [Server(node.id, node.endpoint) for node in authority.nodes.values()]
    source = authority.identity.source(f"/client/{path}", mesh.bundles)
    return MeshClient(source, [*nodes, *servers], clock=mesh.clock, silence_s=silence_s)
