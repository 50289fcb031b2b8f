"""The gateway's side of the real engine, against a host and replicas that a test directs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from node.engine.base import EngineState, Prompt, Sampling
from node.engine.remote import RemoteEngine
from node.engine.scripted import Script, ScriptedEngine
from node.engine.spec import EngineSpec
from tests.support.engines import eventually
from tests.support.fake_host import FakeHost

MODEL = "m"
SPEC = EngineSpec("/models/m", MODEL, capacity=4)
PROMPT = Prompt("hello")
LONG = Sampling(max_tokens=4000, ignore_eos=True)
SLOW = Script(per_token_s=3600)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[FakeHost]:
    async with FakeHost(SPEC, tmp_path / "engine") as host:
        yield host


@pytest.fixture
async def engine(host: FakeHost, tmp_path: Path) -> AsyncIterator[RemoteEngine]:
    engine = RemoteEngine(SPEC, tmp_path / "engine")
    await engine.start()
    yield engine
    await engine.aclose()


def scripted(script: Script | None = None) -> ScriptedEngine:
    return ScriptedEngine(MODEL, capacity=SPEC.capacity, script=script)


async def state(engine: RemoteEngine, wanted: EngineState) -> None:
    async with asyncio.timeout(10):
        await engine.wait_state(wanted)


async def say(engine: RemoteEngine, sampling: Sampling | None = None) -> str:
    sampling = sampling or Sampling(max_tokens=5)
    return "".join([piece.text async for piece in engine.generate(MODEL, PROMPT, sampling)])


async def listen(engine: RemoteEngine, begun: asyncio.Event) -> None:
    async for _ in engine.generate(MODEL, PROMPT, LONG):
        begun.set()


async def begin(engine: RemoteEngine) -> asyncio.Task[None]:
    begun = asyncio.Event()
    stream = asyncio.create_task(listen(engine, begun))
    async with asyncio.timeout(10):
        await begun.wait()
    return stream


async def failed(stream: asyncio.Task[None]) -> Reason:
    with pytest.raises(MeshError) as failure:
        async with asyncio.timeout(10):
            await stream
    return failure.value.reason


async def test_is_ready_when_a_replica_is(host: FakeHost, engine: RemoteEngine) -> None:
    await eventually(lambda: bool(host.gateways), 10, "it found the host")
    assert (engine.state, engine.models) == (EngineState.STARTING, ())
    behind = scripted()
    await host.add("one", behind)
    await state(engine, EngineState.READY)
    assert engine.models == behind.models
    assert await say(engine)


@pytest.mark.parametrize("tell_first", [True, False], ids=["host first", "stream first"])
async def test_a_lost_replica_fails_its_streams(
    host: FakeHost, engine: RemoteEngine, tell_first: bool
) -> None:
    await host.add("one", scripted(SLOW))
    await state(engine, EngineState.READY)
    stream = await begin(engine)
    await host.lose("one", tell_first=tell_first)
    assert await failed(stream) is Reason.ENGINE_FAILED
    await state(engine, EngineState.FAILED)
    with pytest.raises(MeshError) as refusal:
        await say(engine)
    assert refusal.value.reason is Reason.ENGINE_UNAVAILABLE
    assert engine.models, "what it serves is known, also while it heals"
    await host.add("two", scripted())
    await state(engine, EngineState.READY)
    assert await say(engine)


async def test_another_replica_goes_on(host: FakeHost, engine: RemoteEngine) -> None:
    await host.add("one", scripted(SLOW))
    await state(engine, EngineState.READY)
    stream = await begin(engine)
    await host.add("two", scripted())
    await eventually(lambda: engine.capacity == 8, 10, "both are known")
    assert await say(engine), "the idle one serves"
    await host.lose("one")
    assert await failed(stream) is Reason.ENGINE_FAILED
    assert engine.state is EngineState.READY
    assert await say(engine)


async def test_the_least_busy_replica_serves(host: FakeHost, engine: RemoteEngine) -> None:
    behind = [scripted(Script(per_token_s=3600)) for _ in range(2)]
    for number, each in enumerate(behind):
        await host.add(f"replica-{number}", each)
    await eventually(lambda: engine.capacity == 8, 10, "both are known")
    streams = [await begin(engine) for _ in range(6)]
    assert [each.active for each in behind] == [3, 3]
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await eventually(lambda: [each.active for each in behind] == [0, 0], 0.5, "all are freed")
    assert [each.cancelled for each in behind] == [3, 3]


async def test_closing_a_stream_cancels_the_generation(host: FakeHost, engine: RemoteEngine) -> None:
    behind = scripted(Script(first_token_s=3600))
    await host.add("one", behind)
    await state(engine, EngineState.READY)
    before_the_first_token = asyncio.create_task(say(engine))
    await eventually(lambda: behind.active == 1, 10, "it runs")
    before_the_first_token.cancel()
    await eventually(lambda: behind.cancelled == 1, 0.5, "it is freed")
    behind.script.first_token_s = 0
    async with aclosing(engine.generate(MODEL, PROMPT, LONG)) as pieces:  # type: ignore[type-var]
        async for _ in pieces:
            break
    await eventually(lambda: behind.cancelled == 2 and behind.active == 0, 0.5, "it is freed")


async def test_a_caller_that_reads_nothing_holds_one_piece(host: FakeHost, engine: RemoteEngine) -> None:
    behind = scripted()
    await host.add("one", behind)
    await state(engine, EngineState.READY)
    pieces = engine.generate(MODEL, PROMPT, Sampling(max_tokens=2000, ignore_eos=True))
    first = await anext(pieces)
    await eventually(lambda: behind.finished == 1, 10, "the replica is through")
    assert await say(engine), "nobody else waits for the one who does not read"
    rest = [piece async for piece in pieces]
    assert first.tokens + sum(piece.tokens for piece in rest) == 2000
    assert len(rest) < 10


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("PROMPT_TOO_LONG", Reason.PROMPT_TOO_LONG),
        ("REQUEST_INVALID", Reason.REQUEST_INVALID),
        ("OVERLOADED", Reason.OVERLOADED),
        ("ENGINE_FAILED", Reason.ENGINE_FAILED),
        ("never heard of", Reason.ENGINE_FAILED),
    ],
)
async def test_reasons_of_the_replica_arrive(
    host: FakeHost, engine: RemoteEngine, code: str, reason: Reason
) -> None:
    replica = await host.add("one", scripted())
    replica.refuse_with = code
    await state(engine, EngineState.READY)
    with pytest.raises(MeshError) as refusal:
        await say(engine)
    assert refusal.value.reason is reason


async def test_why_it_does_not_start_is_told(host: FakeHost, engine: RemoteEngine) -> None:
    await eventually(lambda: bool(host.gateways), 10, "it found the host")
    host.error = "the engine did not start: ValueError"
    host.tell()
    await state(engine, EngineState.FAILED)
    assert engine.failure == "the engine did not start: ValueError"


async def test_closing_stops_the_host_and_leaving_does_not(host: FakeHost, tmp_path: Path) -> None:
    await host.add("one", scripted())
    first, second = (RemoteEngine(SPEC, tmp_path / "engine") for _ in range(2))
    await first.start()
    await state(first, EngineState.READY)
    assert await say(first)
    await first.leave()
    assert first.state is EngineState.STOPPED
    assert not host.stopped.is_set()
    await second.start()
    await state(second, EngineState.READY)
    assert await say(second)
    assert host.replicas["one"].sessions == 2
    await second.aclose()
    assert host.stopped.is_set()
    assert not host.paths.short.exists()


async def test_a_broken_stream_to_a_living_replica_is_mended(host: FakeHost, engine: RemoteEngine) -> None:
    replica = await host.add("one", scripted(SLOW))
    await state(engine, EngineState.READY)
    stream = await begin(engine)
    await replica.stop()
    assert await failed(stream) is Reason.ENGINE_FAILED
    replica.engine.script.per_token_s = 0
    await replica.start()
    await eventually(lambda: engine.state is EngineState.READY and replica.sessions > 1, 10, "it is back")
    assert await say(engine)


async def test_a_directory_it_cannot_use_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    engine = RemoteEngine(SPEC, tmp_path / "file" / "engine")
    await engine.start()
    await state(engine, EngineState.FAILED)
    assert "cannot be started" in engine.failure
    await engine.aclose()


async def test_a_replica_with_another_model_than_the_pinned_one_is_not_used(tmp_path: Path) -> None:
    pinned = replace(SPEC, model_digest=f"sha256:{'0' * 64}")
    async with FakeHost(pinned, tmp_path / "engine") as host:
        engine = RemoteEngine(pinned, tmp_path / "engine")
        await engine.start()
        await host.add("one", scripted())
        await eventually(lambda: "MODEL_DIGEST_MISMATCH" in engine.failure, 10, "it is refused")
        assert engine.state is not EngineState.READY
        await engine.aclose()
