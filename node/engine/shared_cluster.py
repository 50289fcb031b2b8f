"""An engine whose replicas live in a Ray cluster that somebody else runs, such as KubeRay's.

There Ray Serve places, counts and heals the replicas (ray_app.py is what it deploys), and each of them
listens in its own pod. This engine speaks to no part of Ray: it looks up the names that it was given,
dials every address behind them, and keeps a session to each replica that proves to be one and serves
the right model. It looks again every few seconds and whenever a session breaks, so replicas may come
and go; they outlive this process, and the next gateway finds them warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import grpc
import grpc.aio

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Task
from node.engine.base import EngineState
from node.engine.pooled import PooledEngine
from node.engine.replica_network import REPLICA_NAME, TlsFiles, dial
from node.engine.replica_state import ReplicaState, from_message
from sovereign.engine.v1 import engine_pb2, engine_pb2_grpc

_LOG = logging.getLogger("node.engine.shared_cluster")
_ANSWER_S = 5.0
_MOST_REPLICAS = 256

LookUp = Callable[[str], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True)
class ReplicaAccess:
    """Where replicas are looked for (host:port each), how to prove oneself, and what they must prove."""

    addresses: tuple[str, ...]
    files: TlsFiles
    replica_name: str = REPLICA_NAME


async def look_up(address: str) -> set[str]:
    """All addresses behind a name, as gRPC dials them. Raises OSError."""
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    targets = set()
    for family, _, _, _, where in found:
        if family == socket.AF_INET6:
            targets.add(f"ipv6:[{where[0]!s}]:{port}")
        elif family == socket.AF_INET:
            targets.add(f"ipv4:{where[0]!s}:{port}")
    return targets


class SharedClusterEngine(PooledEngine):
    """See the module. `look_up` replaces the system's resolver in tests."""

    def __init__(
        self,
        access: ReplicaAccess,
        model_name: str,
        *,
        capacity: int = 16,
        model_digest: str = "",
        look_up: LookUp = look_up,
        look_every_s: float = 2.0,
    ) -> None:
        super().__init__(capacity, model_digest)
        self._access, self._model_name = access, model_name
        self._look_up, self._look_every_s = look_up, look_every_s
        self._behind: dict[str, set[str]] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._troubles: dict[str, str] = {}
        self._woken = asyncio.Event()
        self._wake_from = 0.0
        self._following: asyncio.Task[None] | None = None

    @property
    def failure(self) -> str:
        """Why replicas that were found are not used; for logs."""
        return "; ".join(f"{target}: {trouble}" for target, trouble in self._troubles.items())

    async def start(self) -> None:
        """Begins to look for replicas. Raises CONFIG_INVALID where the certificate's files do not hold."""
        if self._following is None:
            self._access.files.read()
            self._following = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """Leaves. The replicas stay where they are: they belong to the cluster."""
        self._life.move(EngineState.STOPPED)
        tasks = [*self._dialling.values(), *([self._following] if self._following else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_sessions()

    async def _follow(self) -> None:
        while True:
            self._wake_from = asyncio.get_running_loop().time() + self._look_every_s
            await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._woken.wait()
            self._woken.clear()

    async def _look(self) -> None:
        for address in self._access.addresses:
            # A name with nobody behind it and a resolver that does not answer look the same: what was
            # there before is kept, and its connections say whether it lives.
            with contextlib.suppress(OSError):
                self._behind[address] = await self._look_up(address)
        listed = sorted(set().union(*self._behind.values()))[:_MOST_REPLICAS]
        for target in listed:
            if target not in self._sessions and target not in self._dialling:
                task = asyncio.create_task(self._dial(target))
                self._dialling[target] = task
                task.add_done_callback(partial(self._dialled, target))
        self._troubles = {target: text for target, text in self._troubles.items() if target in listed}
        self._let_go(set(listed))

    def _let_go(self, listed: set[str]) -> None:
        """What is no longer listed is on its way out: nothing new for it, as long as there are others."""
        for target, session in self._sessions.items():
            session.leaving = target not in listed
        if all(session.leaving for session in self._sessions.values()):
            return
        gone = [
            target for target, session in self._sessions.items() if session.leaving and not session.active
        ]
        for target in gone:
            self._drop(target)
        self._settle(failed=False)

    def _dialled(self, target: str, task: asyncio.Task[None]) -> None:
        del self._dialling[target]
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a mistake of ours: for the loop's exception handler to say

    async def _dial(self, target: str) -> None:
        channel: grpc.aio.Channel | None = None
        try:
            channel = dial(target, self._access.files, self._access.replica_name)
            stub = engine_pb2_grpc.EngineStub(channel)
            said = await stub.Describe(engine_pb2.DescribeRequest(), timeout=_ANSWER_S)
            replica = from_message(said, target)
            self._require_ours(replica)
        except (MeshError, ValueError, grpc.aio.AioRpcError) as error:
            self._refuse(target, _explained(error))
        else:
            self._troubles.pop(target, None)
            self._add(target, replica, channel)
            channel = None
            _LOG.info("replica %s at %s serves", replica.name, target)
        finally:
            if channel is not None:
                await channel.close(None)

    def _require_ours(self, replica: ReplicaState) -> None:
        names = {model.name for model in replica.models if Task.GENERATE in model.tasks}
        if self._model_name not in names:
            raise MeshError(Reason.MODEL_UNKNOWN, f"a replica serves another model than {self._model_name}")
        self._require_pinned(replica)

    def _refuse(self, target: str, error: MeshError) -> None:
        if self._troubles.get(target) != str(error):
            _LOG.warning("no replica is used at %s: %s", target, error)
        self._troubles[target] = str(error)
        # One that is not there yet may be coming up; one that is there and not ours will not change.
        self._settle(failed=error.reason is not Reason.UNREACHABLE)

    def _lost(self, name: str) -> None:
        _LOG.warning("the replica at %s is gone", name)
        # One that breaks off whenever it is dialled must not set the pace.
        if asyncio.get_running_loop().time() >= self._wake_from:
            self._woken.set()


def _explained(error: Exception) -> MeshError:
    if isinstance(error, MeshError):
        return error
    if not isinstance(error, grpc.aio.AioRpcError):
        return MeshError(Reason.PEER_MISBEHAVED, "what is there does not describe itself as a replica does")
    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
        return MeshError(Reason.IDENTITY_NOT_ALLOWED, "the replica lets in another name than ours")
    details = error.details() or ""
    # gRPC has no code of its own for it. What is misjudged here is only named wrongly.
    if "handshake failed" in details or "Verification Check failed" in details:
        return MeshError(Reason.IDENTITY_UNTRUSTED, "no TLS: not of our authority, or of another name")
    return MeshError(Reason.UNREACHABLE, f"nobody answers ({error.code().name})")
