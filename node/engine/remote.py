"""The real engine, as a gateway sees it: vLLM under this node's own Ray Serve, in other processes.

Imports neither, so a gateway stays small. The host (ray_host) owns Ray and outlives this process for
a while; this engine adopts it or starts it, and follows its replicas as they die and are replaced.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from mesh.core.errors import MeshError
from node.engine.base import EngineState
from node.engine.host_link import HostLink, HostState, end_leftovers
from node.engine.host_paths import HostPaths
from node.engine.pooled import PooledEngine
from node.engine.replica_session import local_channel
from node.engine.replica_state import ReplicaState
from node.engine.spec import EngineSpec

_LOG = logging.getLogger("node.engine.remote")
_RETRY_S = 0.2
_TROUBLE_RETRY_S = 5.0  # a full disk, a directory of somebody else's: nothing that passes quickly


class RemoteEngine(PooledEngine):
    """See the module. Use from one event loop.

    `run_directory` is where the engine keeps its log (engine.log) and caches; one engine per
    directory. Starting takes as long as loading the model; adopting a warm host about a second.
    """

    def __init__(self, spec: EngineSpec, run_directory: Path) -> None:
        super().__init__(spec.capacity, spec.model_digest)
        self._spec, self._paths = spec, HostPaths.of(run_directory)
        self._said: HostState | None = None
        self._link: HostLink | None = None
        self._trouble = ""
        self._following: asyncio.Task[None] | None = None

    @property
    def failure(self) -> str:
        """Why the engine does not start, where that is known; for logs."""
        return self._trouble or ("" if self._said is None else self._said.error)

    async def start(self) -> None:
        """Finds the host or starts one, in the background."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """Stops the host and everything below it."""
        link = await self._end()
        if link is not None:
            await link.stop_host()
            link.close()
        if self._following is not None:
            await end_leftovers(self._paths)

    async def leave(self) -> None:
        """Ends this engine but not its host, which waits for another gateway to adopt it."""
        link = await self._end()
        if link is not None:
            link.close()

    async def _end(self) -> HostLink | None:
        """Ends what is of this process; the line to the host is left to the caller."""
        self._life.move(EngineState.STOPPED)
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._close_sessions()
        return self._link

    async def _follow(self) -> None:
        """Keeps a host, for as long as this engine is not closed."""
        while True:
            try:
                self._link = await HostLink.attach(self._spec, self._paths)
                self._trouble = ""
            except (OSError, MeshError) as error:
                _LOG.error("the engine's host cannot be started: %s", error)
                self._trouble = f"the engine's host cannot be started: {error}"
                self._life.move(EngineState.FAILED)
                await asyncio.sleep(_TROUBLE_RETRY_S)
                continue
            try:
                while (said := await self._link.next_state()) is not None:
                    self._apply(said)
            finally:
                if self.state is not EngineState.STOPPED:  # aclose still has a word for the host
                    self._link.close()
            _LOG.error("the engine's host is gone; starting another")
            self._said = None
            for name in list(self._sessions):
                self._drop(name)
            self._settle(failed=False)
            await end_leftovers(self._paths)

    def _apply(self, said: HostState) -> None:
        if said.error and (self._said is None or self._said.error != said.error):
            _LOG.error("%s", said.error)
        self._said = said
        listed = {replica.name: replica for replica in said.replicas}
        for name in [name for name in self._sessions if name not in listed]:
            self._drop(name)
        for name, replica in listed.items():
            if name not in self._sessions:
                self._admit(name, replica)
        self._settle(failed=said.failed)

    def _admit(self, name: str, replica: ReplicaState) -> None:
        try:
            self._require_pinned(replica)
        except MeshError as error:  # its host and itself looked before it loaded anything
            _LOG.error("replica %s is not used: %s", name, error)
            self._trouble = str(error)
        else:
            self._add(name, replica, local_channel(replica))

    def _lost(self, name: str) -> None:
        """If the host still lists it, try again."""
        asyncio.get_running_loop().call_later(_RETRY_S, self._look_again)

    def _look_again(self) -> None:
        if self._said is not None and self.state is not EngineState.STOPPED:
            self._apply(self._said)
