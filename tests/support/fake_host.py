"""An engine host and its replicas without Ray and vLLM, in the test's own process.

It speaks what node/engine/ray_host.py and the replicas speak, on the same sockets, so that RemoteEngine
adopts it. Behind each replica is a ScriptedEngine, so a test decides what it says and when it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from mesh.core.errors import MeshError
from node.engine.base import Message, Prompt, Sampling
from node.engine.host_paths import HostPaths
from node.engine.outbox import Outbox
from node.engine.scripted import ScriptedEngine
from node.engine.spec import EngineSpec
from sovereign.engine.v1 import engine_pb2, engine_pb2_grpc


class FakeReplica(engine_pb2_grpc.EngineServicer):
    """Serves a ScriptedEngine on a socket. `sessions` counts the streams it was asked for."""

    def __init__(self, name: str, engine: ScriptedEngine, socket: Path) -> None:
        self.name, self.engine, self.sessions = name, engine, 0
        self.refuse_with: str = ""
        """A reason code that every generation ends with."""
        self.hangs_up = False
        """Every session ends as soon as it has begun."""
        self._socket = socket
        self._server: Any = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        engine_pb2_grpc.add_EngineServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    @property
    def described(self) -> dict[str, Any]:
        models = [
            {
                "name": model.name,
                "digest": model.digest,
                "context_tokens": model.context_tokens,
                "tasks": sorted(task.value for task in model.tasks),
            }
            for model in self.engine.models
        ]
        return {
            "name": self.name,
            "pid": 1,
            "socket": str(self._socket),
            "capacity": self.engine.capacity,
            "models": models,
        }

    async def Session(self, request_iterator: AsyncIterator[Any], context: Any) -> None:
        self.sessions += 1
        if self.hangs_up:
            return
        outbox = Outbox(0.0)
        running: dict[int, asyncio.Task[None]] = {}

        async def read() -> None:
            async for request in request_iterator:
                if request.HasField("generate"):
                    command = request.generate
                    running[command.id] = asyncio.create_task(self._generate(command, outbox))
                elif request.cancel in running:
                    running[request.cancel].cancel()

        reader = asyncio.create_task(read())
        try:
            while True:
                await context.write(engine_pb2.SessionResponse(events=await outbox.take()))
        finally:
            for task in (reader, *running.values()):
                task.cancel()
            await asyncio.gather(reader, *running.values(), return_exceptions=True)

    async def Embed(self, request: engine_pb2.EmbedRequest, context: Any) -> engine_pb2.EmbedResponse:
        vectors = await self.engine.embed(self.engine.models[1].name, list(request.texts))
        return engine_pb2.EmbedResponse(embeddings=[engine_pb2.Embedding(values=each) for each in vectors])

    async def _generate(self, command: engine_pb2.Generate, outbox: Outbox) -> None:
        prompt = Prompt(
            command.prompt,
            tuple(Message(message.role, message.content) for message in command.messages),
            command.resume_text,
        )
        sampling = Sampling(
            command.max_tokens,
            command.temperature,
            command.top_p,
            command.seed if command.HasField("seed") else None,
            tuple(command.stop),
            command.ignore_eos,
        )
        try:
            if self.refuse_with:
                outbox.put(engine_pb2.Event(id=command.id, finish="error", error=self.refuse_with))
                return
            async for piece in self.engine.generate(self.engine.models[0].name, prompt, sampling):
                event = engine_pb2.Event(id=command.id, text=piece.text, tokens=piece.tokens)
                if piece.finish is not None:
                    event.finish, event.prompt_tokens = piece.finish.value, piece.prompt_tokens
                outbox.put(event, urgent=True)
        except MeshError as error:
            outbox.put(engine_pb2.Event(id=command.id, finish="error", error=error.reason.code))


class FakeHost:
    """The host of one run directory. Use as an async context manager."""

    def __init__(self, spec: EngineSpec, run_directory: Path) -> None:
        self.spec, self.paths = spec, HostPaths.of(run_directory)
        self.replicas: dict[str, FakeReplica] = {}
        self.error = ""
        self.stopped = asyncio.Event()
        self.gateways: set[asyncio.StreamWriter] = set()
        self._was_ready = False
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeHost:
        self.paths.make()
        self.paths.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, str(self.paths.socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        for replica in list(self.replicas.values()):
            await replica.stop()
        await self.vanish()
        shutil.rmtree(self.paths.short, ignore_errors=True)

    async def add(self, name: str, engine: ScriptedEngine) -> FakeReplica:
        """A replica comes up."""
        replica = FakeReplica(name, engine, self.paths.replica_socket(name))
        await engine.start()
        await replica.start()
        self.replicas[name], self._was_ready = replica, True
        self.tell()
        return replica

    async def lose(self, name: str, *, tell_first: bool = True) -> None:
        """A replica goes: its processes, and then, or before, the host's knowledge of it."""
        replica = self.replicas.pop(name)
        if tell_first:
            self.tell()
        await replica.stop()
        self.tell()

    async def vanish(self) -> None:
        """The host itself goes."""
        if self._server is not None:
            self._server.close()
        for writer in list(self.gateways):
            writer.close()

    def tell(self) -> None:
        for writer in self.gateways:
            writer.write(self._line())

    def _line(self) -> bytes:
        failed = self._was_ready or bool(self.error)
        said = {
            "spec": self.spec.digest,
            "state": "ready" if self.replicas else "failed" if failed else "starting",
            "replicas": [replica.described for replica in self.replicas.values()],
            "error": self.error,
            "isolated": False,
        }
        return json.dumps(said).encode() + b"\n"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while line := await reader.readline():
                said = json.loads(line)
                if "gateway" in said:
                    self.gateways.add(writer)
                    writer.write(self._line())
                if said.get("stop"):
                    self.stopped.set()
                    break
        self.gateways.discard(writer)
        writer.close()
