"""What engines have in common whose replicas are in other processes: one session to each.

Sends each request to the least busy replica and follows their coming and going; a subclass knows how
replicas are found. Imports neither Ray nor vLLM, so a gateway stays small.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import grpc.aio

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Model, Task
from node.engine.base import EngineState, Piece, Prompt, Sampling
from node.engine.lifecycle import Lifecycle
from node.engine.replica_session import ReplicaSession
from node.engine.replica_state import ReplicaState


class PooledEngine:
    """See the module. Use from one event loop.

    `capacity` is told until a replica says its own. A replica that does not serve the model of digest
    `model_digest`, where that is not empty, must not be added.
    """

    def __init__(self, capacity: int, model_digest: str) -> None:
        self._capacity, self._model_digest = capacity, model_digest
        self._life = Lifecycle()
        self._sessions: dict[str, ReplicaSession] = {}
        self._models: tuple[Model, ...] = ()
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
        return sum(session.replica.capacity for session in self._sessions.values()) or self._capacity

    @property
    def replicas(self) -> tuple[ReplicaState, ...]:
        """The replicas that are connected."""
        return tuple(session.replica for session in self._sessions.values())

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
        return min(able, key=lambda session: (session.leaving, session.active / session.replica.capacity))

    def _require_pinned(self, replica: ReplicaState) -> None:
        """Raises MODEL_DIGEST_MISMATCH where it generates with another model than this node may serve."""
        if not self._model_digest:
            return
        generating = {model.digest for model in replica.models if Task.GENERATE in model.tasks}
        if generating != {self._model_digest}:
            raise MeshError(
                Reason.MODEL_DIGEST_MISMATCH,
                f"a replica serves another model than {self._model_digest}, the only one that may be served",
            )

    def _add(self, name: str, replica: ReplicaState, channel: grpc.aio.Channel) -> None:
        self._sessions[name] = ReplicaSession(replica, channel, partial(self._ended, name))
        self._models = replica.models
        self._settle(failed=False)

    def _drop(self, name: str) -> None:
        closing = asyncio.ensure_future(self._sessions.pop(name).close())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def _settle(self, *, failed: bool) -> None:
        """Moves to the state that what is there amounts to. `failed`: there will be none without a change."""
        if self.state is EngineState.STOPPED:
            return
        if self._sessions:
            self._life.move(EngineState.READY)
        elif self._models or failed:
            self._life.move(EngineState.FAILED)

    def _ended(self, name: str, session: ReplicaSession) -> None:
        """A stream ended. Mostly its replica did."""
        if self._sessions.get(name) is session:
            self._drop(name)
            self._settle(failed=False)
            self._lost(name)

    def _lost(self, name: str) -> None:
        """A replica that nobody dropped is gone; it may be there again soon."""
        raise NotImplementedError

    async def _close_sessions(self) -> None:
        sessions = [self._sessions.pop(name) for name in list(self._sessions)]
        await asyncio.gather(*(session.close() for session in sessions), *self._closings)
