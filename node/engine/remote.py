"""The real engine, as a gateway sees it: vLLM under Ray Serve, in other processes.

Imports neither, so a gateway stays small. The host (ray_host) owns Ray and outlives this process for
a while; this engine adopts it or starts it, keeps one session to each of its replicas, sends each
request to the least busy one, and follows them as they die and are replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Model, Task
from node.engine.base import EngineState, Piece, Prompt, Sampling
from node.engine.host_link import HostLink, HostState, ReplicaState, end_leftovers
from node.engine.host_paths import HostPaths
from node.engine.lifecycle import Lifecycle
from node.engine.replica_session import ReplicaSession
from node.engine.spec import EngineSpec

_LOG = logging.getLogger("node.engine.remote")
_RETRY_S = 0.2
_TROUBLE_RETRY_S = 5.0  # a full disk, a directory of somebody else's: nothing that passes quickly


class RemoteEngine:
    """See the module. Use from one event loop.

    `run_directory` is where the engine keeps its log (engine.log) and caches; one engine per
    directory. Starting takes as long as loading the model; adopting a warm host about a second.
    """

    def __init__(self, spec: EngineSpec, run_directory: Path) -> None:
        self._spec, self._paths = spec, HostPaths.of(run_directory)
        self._life = Lifecycle()
        self._sessions: dict[str, ReplicaSession] = {}
        self._said: HostState | None = None
        self._models: tuple[Model, ...] = ()
        self._link: HostLink | None = None
        self._trouble = ""
        self._following: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> EngineState:
        """READY while at least one replica is connected."""
        return self._life.state

    @property
    def models(self) -> tuple[Model, ...]:
        """What the replicas serve; empty until ready once."""
        return self._models

    @property
    def capacity(self) -> int:
        """Generations at once, over all replicas that are there; that of one when none is."""
        return sum(session.replica.capacity for session in self._sessions.values()) or self._spec.capacity

    @property
    def replicas(self) -> tuple[ReplicaState, ...]:
        """The replicas that are connected."""
        return tuple(session.replica for session in self._sessions.values())

    @property
    def failure(self) -> str:
        """Why the engine does not start, where that is known; for logs."""
        return self._trouble or ("" if self._said is None else self._said.error)

    async def start(self) -> None:
        """Finds the host or starts one, in the background."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def wait_state(self, *states: EngineState) -> EngineState:
        """Waits until the engine is in one of the states."""
        return await self._life.wait(*states)

    async def generate(self, model: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Piece]:
        """As the port says. What is left unread between two turns arrives as one piece."""
        session = self._session_for(model, Task.GENERATE)
        generation = session.begin(prompt, sampling)
        try:
            while True:
                piece = await generation.take()
                yield piece
                if piece.finish is not None:
                    return
        finally:
            session.end(generation)

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        """As the port says."""
        return await self._session_for(model, Task.EMBED).embed(texts)

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
        sessions = [self._sessions.pop(name) for name in list(self._sessions)]
        await asyncio.gather(*(session.close() for session in sessions), *self._closings)
        return self._link

    def _session_for(self, model: str, task: Task) -> ReplicaSession:
        """The least busy replica. Raises ENGINE_UNAVAILABLE or MODEL_UNKNOWN."""
        if self.state is not EngineState.READY:
            raise MeshError(Reason.ENGINE_UNAVAILABLE, f"the engine is {self.state}", retry_after_s=1.0)
        able = [
            session
            for session in self._sessions.values()
            if any(known.name == model and task in known.tasks for known in session.replica.models)
        ]
        if not able:
            raise MeshError(Reason.MODEL_UNKNOWN, f"no model of this name can {task.value} here")
        return min(able, key=lambda session: session.active / session.replica.capacity)

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
            self._settle()
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
                self._sessions[name] = ReplicaSession(replica, self._broken)
                self._models = replica.models
        self._settle()

    def _settle(self) -> None:
        """Moves to the state that what is there amounts to."""
        if self.state is EngineState.STOPPED:
            return
        if self._sessions:
            self._life.move(EngineState.READY)
        elif self._models or (self._said is not None and self._said.failed):
            self._life.move(EngineState.FAILED)

    def _drop(self, name: str) -> None:
        closing = asyncio.ensure_future(self._sessions.pop(name).close())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def _broken(self, session: ReplicaSession) -> None:
        """A stream ended. Mostly its replica did; if the host still lists it, try again."""
        name = session.replica.name
        if self._sessions.get(name) is session:
            self._drop(name)
            self._settle()
            asyncio.get_running_loop().call_later(_RETRY_S, self._look_again)

    def _look_again(self) -> None:
        if self._said is not None and self.state is not EngineState.STOPPED:
            self._apply(self._said)
