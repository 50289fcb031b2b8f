"""The gateway's one stream to one replica, shared by all its generations.

What the replica says is handed to the generation it concerns without a task or a queue per token:
unread news of a generation is merged into one piece, so a slow caller costs its own text and no
more. When the stream breaks, every generation on it fails with ENGINE_FAILED.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import grpc.aio

from mesh.core.errors import MeshError, Reason
from node.engine.base import FinishReason, Piece, Prompt, Sampling
from node.engine.replica_state import ReplicaState
from sovereign.engine.v1 import engine_pb2, engine_pb2_grpc

MAX_MESSAGE_BYTES = 16 << 20
_MOST_UNREAD = 16 << 20  # characters: far more than a context has room for
_FINISHES = frozenset(reason.value for reason in FinishReason)
_EXPLANATIONS = {
    Reason.PROMPT_TOO_LONG: "the prompt and one token of output must fit into the model's context",
    Reason.REQUEST_INVALID: "expected a request that the model can serve",
    Reason.OVERLOADED: "the engine has more to do than it can hold",
}


class Generation:
    """One generation's news that nobody has read yet."""

    __slots__ = ("_error", "_finish", "_prompt_tokens", "_text", "_tokens", "_waiter", "id", "over")

    def __init__(self, identity: int) -> None:
        self.id = identity
        self.over = False
        """The replica has said its last word about it."""
        self._text = ""
        self._tokens = 0
        self._prompt_tokens = 0
        self._finish: FinishReason | None = None
        self._error: MeshError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def tell(self, event: engine_pb2.Event) -> None:
        """News from the replica. After its last word nothing counts."""
        if self.over:
            return
        if len(self._text) + len(event.text) > _MOST_UNREAD:
            self.fail(MeshError(Reason.ENGINE_FAILED, "the replica says more than any model would"))
            return
        self._text += event.text
        self._tokens += event.tokens
        if event.finish:
            if event.finish not in _FINISHES:
                self.fail(_error(event.error))
                return
            self.over = True
            self._finish = FinishReason(event.finish)
            self._prompt_tokens = event.prompt_tokens
        self._wake()

    def fail(self, error: MeshError) -> None:
        """There will be no more; what was delivered before is still handed out."""
        if not self.over:
            self.over = True
            self._error = error
            self._wake()

    async def take(self) -> Piece:
        """All the news there is, once there is some. Raises what the generation failed with."""
        while not self._tokens and not self._text and self._finish is None:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = Piece(self._text, self._tokens, self._finish, self._prompt_tokens)
        self._text, self._tokens = "", 0
        return piece

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def local_channel(replica: ReplicaState) -> grpc.aio.Channel:
    """To a replica of this machine, over its Unix socket."""
    options = (
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),  # a new replica may have the address of an old one
    )
    return grpc.aio.insecure_channel(replica.target, options=options)


class ReplicaSession:
    """See the module. `on_broken` is called once, when the stream ends without being closed.

    The session owns the channel from here on.
    """

    def __init__(
        self,
        replica: ReplicaState,
        channel: grpc.aio.Channel,
        on_broken: Callable[[ReplicaSession], None],
    ) -> None:
        self.replica = replica
        self.leaving = False
        """It will end soon: to be asked only where nobody else is there."""
        self._on_broken = on_broken
        self._generations: dict[int, Generation] = {}
        self._next_id = 1
        self._commands: asyncio.Queue[engine_pb2.SessionRequest | None] = asyncio.Queue()
        self._channel = channel
        self._stub = engine_pb2_grpc.EngineStub(self._channel)
        self._reader = asyncio.ensure_future(self._read())

    @property
    def active(self) -> int:
        """Generations that are not over."""
        return len(self._generations)

    def begin(self, prompt: Prompt, sampling: Sampling) -> Generation:
        """Has the replica begin. Every generation that was begun must be ended with `end`."""
        generation = Generation(self._next_id)
        self._next_id += 1
        self._generations[generation.id] = generation
        command = engine_pb2.Generate(
            id=generation.id,
            prompt=prompt.text,
            messages=[
                engine_pb2.Message(role=message.role, content=message.content) for message in prompt.messages
            ],
            resume_text=prompt.resume_text,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=sampling.stop,
            ignore_eos=sampling.ignore_eos,
        )
        self._commands.put_nowait(engine_pb2.SessionRequest(generate=command))
        return generation

    def end(self, generation: Generation) -> None:
        """Nobody wants more of it: if it still runs, the replica is told to stop."""
        self._generations.pop(generation.id, None)
        if not generation.over:
            self._commands.put_nowait(engine_pb2.SessionRequest(cancel=generation.id))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text. Raises ENGINE_FAILED when the replica does not answer, or so many."""
        try:
            response = await self._stub.Embed(engine_pb2.EmbedRequest(texts=texts))
        except grpc.aio.AioRpcError as error:
            raise MeshError(Reason.ENGINE_FAILED, "the engine died under the request") from error
        if len(response.embeddings) != len(texts):
            raise MeshError(Reason.ENGINE_FAILED, "the replica gave another number of vectors")
        return [list(embedding.values) for embedding in response.embeddings]

    async def close(self) -> None:
        """Ends the stream; generations on it fail."""
        self._reader.cancel()
        self._commands.put_nowait(None)
        await asyncio.gather(self._reader, return_exceptions=True)
        self._fail_all()
        await self._channel.close(None)

    async def _read(self) -> None:
        try:
            async for response in self._stub.Session(self._send()):
                for event in response.events:
                    generation = self._generations.get(event.id)
                    if generation is not None:
                        generation.tell(event)
        except grpc.aio.AioRpcError:
            pass  # said below; gRPC's words would add nothing
        self._commands.put_nowait(None)  # or gRPC's task would wait for commands for ever
        self._fail_all()
        self._on_broken(self)

    async def _send(self) -> AsyncIterator[engine_pb2.SessionRequest]:
        while (command := await self._commands.get()) is not None:
            yield command

    def _fail_all(self) -> None:
        for generation in self._generations.values():
            generation.fail(MeshError(Reason.ENGINE_FAILED, "the engine died under the request"))


def _error(code: str) -> MeshError:
    reason = Reason.__members__.get(code, Reason.ENGINE_FAILED)
    return MeshError(reason, _EXPLANATIONS.get(reason, "the engine died under the request"))
