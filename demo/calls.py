"""Calls as the story makes them: streams with a stopwatch, sixteen at once, a steady load, rogue calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc

from demo.telling import Served
from mesh import codec
from mesh.client import FailedOver, Finished, MeshClient, Mode, Placed, Sampling, Started, Token
from mesh.core.errors import MeshError
from mesh.core.placement import Decision
from mesh.core.types import RequestContext
from mesh.identity.source import SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import envelope_pb2, inference_pb2, inference_pb2_grpc


@dataclass
class Stream:
    """One request under way, as its caller sees it."""

    decision: Decision | None = None
    started: Started | None = None
    text: str = ""
    tokens: int = 0
    first_token_s: float = 0.0
    failovers: list[FailedOver] = field(default_factory=list)
    finished: Finished | None = None
    progressed: asyncio.Event = field(default_factory=asyncio.Event)

    def served(self, seconds: float) -> Served:
        """For telling."""
        node = str(self.finished.node if self.finished else self.started.node if self.started else "nowhere")
        moves = [(str(f.from_node), str(f.to_node), f.mode.value, f.reason.code) for f in self.failovers]
        return Served(node, self.text, self.tokens, self.first_token_s, seconds, moves)


async def follow(
    client: MeshClient,
    model: str,
    prompt: str,
    context: RequestContext,
    tokens: int,
    into: Stream | None = None,
) -> tuple[Stream, Served]:
    """Reads a chat to its end; raises what the SDK raises. `into` can be watched meanwhile."""
    stream = into or Stream()
    begun = time.monotonic()
    sampling = Sampling(max_tokens=tokens, ignore_eos=True)
    async with aclosing(client.chat(model, prompt, context=context, sampling=sampling)) as events:
        async for event in events:
            if isinstance(event, Placed):
                stream.decision = event.decision
            elif isinstance(event, Started):
                stream.started = event
            elif isinstance(event, Token):
                if not stream.tokens:
                    stream.first_token_s = time.monotonic() - begun
                stream.text += event.text
                stream.tokens += event.tokens
            elif isinstance(event, FailedOver):
                stream.failovers.append(event)
                if event.mode is Mode.RESTARTED:
                    stream.text, stream.tokens = "", 0
            elif isinstance(event, Finished):
                stream.finished = event
            stream.progressed.set()
    return stream, stream.served(time.monotonic() - begun)


@dataclass
class Load:
    """A steady load: what came of each of its calls."""

    served: list[tuple[float, str]] = field(default_factory=list)  # when it was placed (monotonic), and where
    failures: list[tuple[float, str]] = field(default_factory=list)


@asynccontextmanager
async def steady_load(
    client: MeshClient, model: str, context: RequestContext, *, workers: int = 4, tokens: int = 8
) -> AsyncIterator[Load]:
    """Keeps short requests going until the block is left; those under way are read to their end."""
    load = Load()
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            begun = time.monotonic()
            try:
                stream, _ = await follow(
                    client, model, "One more page of the draft, please.", context, tokens
                )
                load.served.append((begun, str(stream.finished.node) if stream.finished else ""))
            except MeshError as error:
                load.failures.append((begun, error.reason.code))
                await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def rogue_chat(
    source: SvidSource,
    endpoint: str,
    dns_name: str,
    model: str,
    prompt: str,
    context: RequestContext,
    permit: bytes | None,
) -> str:
    """Sends a prompt without asking anybody, with whatever permit there is; the refusal's reason code.

    What the SDK cannot be made to do: it sends to `Permitted` targets only.
    """
    pool = ChannelPool(source)
    try:
        trust_domain = dns_name.split(".", 2)[2]
        channel = pool.channel(endpoint, dns_name=dns_name, trust_domain=trust_domain)
        admission = inference_pb2.Admission(context=codec.context_to_pb(context))
        if permit is not None:
            admission.permit.CopyFrom(envelope_pb2.Envelope.FromString(permit))
        request = inference_pb2.ChatRequest(
            admission=admission,
            model=model,
            messages=[inference_pb2.ChatMessage(role="user", content=prompt)],
            sampling=inference_pb2.Sampling(max_tokens=4),
        )
        try:
            async for _ in inference_pb2_grpc.InferenceStub(channel).Chat(request, timeout=20):
                return "SERVED"
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason.code
        return "ENDED"
    finally:
        await pool.aclose()


async def until(check: Callable[[], bool], timeout_s: float) -> bool:
    """Waits for something that this process will see happen."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def narrowed(context: RequestContext, *countries: str) -> RequestContext:
    """The same context, narrowed by the caller to these countries (I3: never widened)."""
    return replace(context, narrowing=replace(context.narrowing, allowed_jurisdictions=frozenset(countries)))
