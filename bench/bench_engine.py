"""What everything around vLLM costs: tokens/s and CPU per token, against AsyncLLM called directly.

    python -m bench.bench_engine [--quick] [--json FILE]

One real node on the tiny model. Rounds of three kinds alternate; in each, 16 callers have 64 tokens
generated four times over, one request after the other:

- direct: AsyncLLM called inside the replica, nothing of ours in between;
- session: this process to the replica over its Unix socket, as a gateway does;
- whole: a client (this process), mutual TLS, the gateway with policy, permit and decision log, the
  replica.

Further rounds have 512 tokens generated once: the difference tells what a request costs from what a
token costs.

CPU is what the scheduler charged (nanoseconds, all threads). "Outside the engine" leaves out vLLM's
engine core, a process of its own that does the same work in all three; it counts the replica process
around it, the gateway and, where the row says so, the client.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from bench.charged import cpu_s
from bench.report import Row, command
from node.engine.base import Message, Prompt, Sampling
from node.engine.process_family import children_of
from node.engine.ray_vllm_direct import METHOD
from node.engine.remote import RemoteEngine
from sovereign.mesh.v1 import inference_pb2
from tests.support.engines import MODEL, running, tiny_spec
from tests.support.mesh import Caller, context
from tests.support.node_process import NodeProcess, node_process

STREAMS = 16
REQUESTS, TOKENS = 4, 64
LONG_TOKENS = 512
PROMPT = "The patient has"
ASKED = context(["special-category"])


@dataclass
class Kind:
    """One kind of round and what its rounds added up to."""

    run: Callable[[], Awaitable[int]]
    processes: dict[str, int]  # name to pid
    prepare: Callable[[], None] = lambda: None
    tokens: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)

    async def round(self, counted: bool) -> None:
        self.prepare()
        before = {name: cpu_s(pid) for name, pid in self.processes.items()}
        began = time.perf_counter()
        tokens = await self.run()
        if counted:
            self.seconds += time.perf_counter() - began
            self.tokens += tokens
            for name, pid in self.processes.items():
                self.cpu[name] = self.cpu.get(name, 0.0) + cpu_s(pid) - before[name]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    def us_per_token(self, *names: str) -> float:
        return 1e6 * sum(self.cpu[name] for name in names) / self.tokens


def direct_round(socket: str, requests: int, tokens: int) -> Callable[[], Awaitable[int]]:
    wanted = {"streams": STREAMS, "requests": requests, "tokens": tokens, "prompt": PROMPT}
    body = json.dumps(wanted).encode()

    async def run() -> int:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            answer = await channel.unary_unary(METHOD, None, None)(body)
        return int(json.loads(answer)["tokens"])

    return run


def session_round(engine: RemoteEngine) -> Callable[[], Awaitable[int]]:
    sampling = Sampling(max_tokens=TOKENS, ignore_eos=True)

    async def one(number: int) -> int:
        tokens = 0
        for turn in range(REQUESTS):
            prompt = Prompt(messages=(Message("user", f"{PROMPT} {number} {turn}"),))
            tokens += sum([piece.tokens async for piece in engine.generate(MODEL, prompt, sampling)])
        return tokens

    async def run() -> int:
        return sum(await asyncio.gather(*(one(number) for number in range(STREAMS))))

    return run


def whole_round(
    node: NodeProcess, caller: Caller, placer: Any, requests: int, tokens: int
) -> tuple[Callable[[], Awaitable[int]], Callable[[], None]]:
    to: Any = node
    stub = caller.inference(to)

    def request(number: int, turn: int) -> inference_pb2.ChatRequest:
        return caller.chat_request(
            ASKED,
            caller.permit(to, ASKED, by=placer, model=MODEL),
            f"{PROMPT} {number} {turn}",
            model=MODEL,
            max_tokens=tokens,
            ignore_eos=True,
        )

    async def one(wanted: list[inference_pb2.ChatRequest]) -> int:
        count = 0
        for each in wanted:
            count += sum([event.delta.tokens async for event in stub.Chat(each)])
        return count

    def prepare() -> None:
        """Signs the permits of the next round; a placer does that, and it is not what is measured."""
        for number in range(STREAMS):
            waiting.append([request(number, turn) for turn in range(requests)])

    async def run() -> int:
        ready = [waiting.pop() for _ in range(STREAMS)]
        return sum(await asyncio.gather(*(one(wanted) for wanted in ready)))

    waiting: list[list[inference_pb2.ChatRequest]] = []
    return run, prepare


async def measure(quick: bool) -> list[Row]:
    """Every row; a minute or two, most of it for starting."""
    rounds = 2 if quick else 12
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = tiny_spec(folder, embeddings=False, bench=True)
        (folder / "spec.json").write_text(spec.to_json())
        gateway = (sys.executable, "-m", "bench.engine_node", "--config", "{config}")
        adopted = ("--spec", str(folder / "spec.json"), "--engine-directory", str(folder / "engine"))
        began = time.perf_counter()
        async with running(spec, folder / "engine") as engine:
            start_s = time.perf_counter() - began
            async with node_process(folder / "node", *gateway, *adopted) as node:
                kinds = kinds_of(engine, node)
                for number in range(rounds + 1):
                    for name, kind in kinds.items():
                        if "long" not in name or number % 2 == 0:
                            await kind.round(counted=number > 0 or rounds < 3)
    return [*rows_of(kinds), Row("start of the engine", start_s, "s")]


def kinds_of(engine: RemoteEngine, node: NodeProcess) -> dict[str, Kind]:
    replica = engine.replicas[0]
    (core,) = children_of(replica.pid)
    inside = {"replica": replica.pid, "core": core}
    around = {**inside, "gateway": node.process.pid, "client": os.getpid()}
    authority = node.mesh["DE"]
    caller = authority.caller("clinic")
    placer = authority.identity.source("/control/bench")
    whole, prepare = whole_round(node, caller, placer, REQUESTS, TOKENS)
    long, prepare_long = whole_round(node, caller, placer, 1, LONG_TOKENS)
    return {
        "direct": Kind(direct_round(replica.socket, REQUESTS, TOKENS), inside),
        "session": Kind(session_round(engine), {**inside, "client": os.getpid()}),
        "whole": Kind(whole, around, prepare),
        "direct, long": Kind(direct_round(replica.socket, 1, LONG_TOKENS), inside),
        "whole, long": Kind(long, around, prepare_long),
    }


def rows_of(kinds: dict[str, Kind]) -> list[Row]:
    direct, session, whole = kinds["direct"], kinds["session"], kinds["whole"]
    long, own_long = kinds["whole, long"], kinds["direct, long"].us_per_token("replica")
    own = direct.us_per_token("replica")
    served_long = long.us_per_token("replica", "gateway")
    # us per token = a + b / tokens, so b, the cost of a request, follows from two lengths
    spread = 1 / TOKENS - 1 / LONG_TOKENS
    served = whole.us_per_token("replica", "gateway")
    with_client = whole.us_per_token("replica", "gateway", "client")
    return [
        Row("tokens/s, whole path over direct", whole.rate / direct.rate, "×", 0.90, at_least=True),
        Row("CPU per token outside the engine, whole path over direct", served / own, "×", 1.3),
        Row("the same with the client's own CPU", with_client / own, "×"),
        Row("the same, answers of 512 tokens", served_long / own_long, "×"),
        Row(
            "tokens/s, whole path over direct, answers of 512 tokens",
            long.rate / kinds["direct, long"].rate,
            "×",
        ),
        Row(
            "CPU of a request, whatever its length",
            (served - served_long) / spread,
            "µs",
        ),
        Row("tokens/s, whole path", whole.rate, "1/s", against=direct.rate),
        Row("tokens/s, session over direct", session.rate / direct.rate, "×"),
        Row("CPU per token: replica, whole path", whole.us_per_token("replica"), "µs", against=own),
        Row("CPU per token: gateway", whole.us_per_token("gateway"), "µs"),
        Row("CPU per token: client", whole.us_per_token("client"), "µs"),
        Row("CPU per token: replica, session", session.us_per_token("replica"), "µs", against=own),
        Row("CPU per token: gateway's part of a session", session.us_per_token("client"), "µs"),
        Row(
            "CPU per token: engine core, whole path",
            whole.us_per_token("core"),
            "µs",
            against=direct.us_per_token("core"),
        ),
    ]


if __name__ == "__main__":
    sys.exit(command(__doc__, lambda quick: asyncio.run(measure(quick))))
