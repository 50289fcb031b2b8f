"""What the scripted engine offers beyond the port: its script, and its counts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from mesh.core.errors import MeshError, Reason
from node.engine.base import EngineState, FinishReason, Piece, Prompt, Sampling
from node.engine.scripted import Script, ScriptedEngine
from tests.support.engines import eventually

PROMPT = Prompt("hello there")


async def ready(script: Script | None = None, **options: int) -> ScriptedEngine:
    engine = ScriptedEngine("m", script=script, **options)
    await engine.start()
    return engine


async def say(engine: ScriptedEngine, sampling: Sampling | None = None) -> str:
    sampling = sampling or Sampling(max_tokens=5)
    return "".join([piece.text async for piece in engine.generate("m", PROMPT, sampling)])


async def test_says_exactly_the_words_of_its_script() -> None:
    engine = await ready(Script(words=("one ", "two ", "three")))
    pieces = [piece async for piece in engine.generate("m", PROMPT, Sampling())]
    assert [piece.text for piece in pieces] == ["one ", "two ", "three"]
    assert pieces[-1].finish is FinishReason.STOP
    resumed = Prompt("hello there", resume_text="one two ")
    assert [piece.text async for piece in engine.generate("m", resumed, Sampling())] == ["three"]


async def test_the_prompt_and_the_seed_decide_what_it_says() -> None:
    engine, other = await ready(), await ready()
    assert await say(engine) == await say(other)
    assert await say(engine) != await say(engine, Sampling(max_tokens=5, seed=7))


async def test_counts_what_reaches_it() -> None:
    engine = await ready()
    await say(engine)
    await engine.embed("scripted-embedding", ["text"])
    with pytest.raises(MeshError):
        await engine.embed("other", ["text"])
    assert (engine.seen, engine.finished, engine.cancelled, engine.active) == (3, 1, 0, 0)
    assert list(engine.prompts) == [PROMPT]


async def test_counts_who_left() -> None:
    engine = await ready()
    async with aclosing(engine.generate("m", PROMPT, Sampling())) as pieces:
        async for _ in pieces:
            assert engine.active == 1
            break
    assert (engine.active, engine.cancelled) == (0, 1)


async def test_fails_after_so_many_tokens() -> None:
    engine = await ready(Script(fail_after_tokens=2))
    heard: list[Piece] = []

    async def listen() -> None:
        async for piece in engine.generate("m", PROMPT, Sampling()):
            heard.append(piece)

    with pytest.raises(MeshError) as failure:
        await listen()
    assert failure.value.reason is Reason.ENGINE_FAILED
    assert len(heard) == 2
    assert engine.state is EngineState.READY, "one generation failed, not the engine"


async def test_dies_under_its_requests_and_comes_back() -> None:
    engine = await ready(Script(first_token_s=3600))
    stream = asyncio.create_task(say(engine))
    await eventually(lambda: engine.active == 1, 5, "it runs")
    engine.die()
    with pytest.raises(MeshError) as failure:
        await stream
    assert failure.value.reason is Reason.ENGINE_FAILED
    assert engine.state is EngineState.FAILED
    with pytest.raises(MeshError) as refusal:
        await say(engine)
    assert refusal.value.reason is Reason.ENGINE_UNAVAILABLE
    engine.script.first_token_s = 0
    engine.revive()
    assert await say(engine)


async def test_runs_no_more_than_its_capacity() -> None:
    engine = await ready(Script(first_token_s=3600), capacity=2)
    streams = [asyncio.create_task(say(engine)) for _ in range(5)]
    await eventually(lambda: engine.active + engine.waiting == 5, 5, "all have come")
    assert (engine.active, engine.waiting) == (2, 3)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    assert (engine.active, engine.waiting) == (0, 0)


async def test_takes_its_time_to_start() -> None:
    engine = await ready(Script(start_s=0.01))
    assert (engine.state, engine.models) == (EngineState.STARTING, ())
    await engine.wait_state(EngineState.READY)
    assert len(engine.models) == 2
    await engine.aclose()
    assert engine.state is EngineState.STOPPED
