"""What every engine promises, held against each implementation of the port.

The scripted engine runs always, and so do the gateway's sides of the real one, with scripted replicas
behind them: on this machine's sockets, and across a network with mutual TLS. The whole real one (vLLM
under Ray, on the tiny model) runs where `vllm` tests run. A test that needs to see inside belongs to
that engine's own tests.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Task
from node.engine.base import Engine, EngineState, FinishReason, Message, Piece, Prompt, Sampling
from node.engine.remote import RemoteEngine
from node.engine.scripted import Script, ScriptedEngine
from node.engine.spec import EngineSpec
from tests.support.engines import MODEL, running, tiny_spec
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_host import FakeHost

CAPACITY = 4
EMBEDDING_MODEL = "all-MiniLM-L6-v2"
LONG = Sampling(max_tokens=1500, ignore_eos=True)
PROMPT = Prompt("The patient")

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
real = pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.slow])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["scripted", "remote", "cluster", real])
async def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Engine]:
    if request.param == "vllm":
        folder = tmp_path_factory.mktemp("contract")
        async with running(tiny_spec(folder, capacity=CAPACITY), folder / "engine") as started:
            yield started
        return
    scripted = ScriptedEngine(
        MODEL,
        embedding_model=EMBEDDING_MODEL,
        capacity=CAPACITY,
        context_tokens=2048,
        script=Script(answer_tokens=10_000),
    )
    if request.param == "remote":
        run_directory = tmp_path_factory.mktemp("remote") / "engine"
        spec = EngineSpec("/models/m", MODEL, capacity=CAPACITY)
        async with FakeHost(spec, run_directory) as host:
            await host.add("one", scripted)
            remote = RemoteEngine(spec, run_directory)
            await remote.start()
            await remote.wait_state(EngineState.READY)
            yield remote
            await remote.aclose()
        return
    if request.param == "cluster":
        cluster = FakeCluster(tmp_path_factory.mktemp("cluster"))
        await cluster.add(scripted)
        shared = cluster.engine(model_name=MODEL, capacity=CAPACITY)
        await shared.start()
        await shared.wait_state(EngineState.READY)
        yield shared
        await shared.aclose()
        await cluster.aclose()
        return
    await scripted.start()
    yield scripted
    await scripted.aclose()


async def pieces_of(engine: Engine, prompt: Prompt, sampling: Sampling) -> list[Piece]:
    return [piece async for piece in engine.generate(MODEL, prompt, sampling)]


async def text_of(engine: Engine, prompt: Prompt, sampling: Sampling) -> str:
    return "".join(piece.text for piece in await pieces_of(engine, prompt, sampling))


async def refusal_of(engine: Engine, prompt: Prompt, sampling: Sampling, model: str = MODEL) -> Reason:
    with pytest.raises(MeshError) as refusal:
        async for _ in engine.generate(model, prompt, sampling):
            pass
    return refusal.value.reason


async def test_states_what_it_serves(engine: Engine) -> None:
    assert engine.state is EngineState.READY
    assert await engine.wait_state(EngineState.READY) is EngineState.READY
    assert engine.capacity == CAPACITY
    tasks = {model.name: model.tasks for model in engine.models}
    assert tasks == {MODEL: {Task.GENERATE}, EMBEDDING_MODEL: {Task.EMBED}}
    for model in engine.models:
        assert model.digest.startswith("sha256:")
        assert len(model.digest) == 71


async def test_streams_pieces_that_add_up(engine: Engine) -> None:
    pieces = await pieces_of(engine, PROMPT, Sampling(max_tokens=300, ignore_eos=True))
    assert len(pieces) > 1
    assert sum(piece.tokens for piece in pieces) == 300
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish is FinishReason.LENGTH
    assert pieces[-1].prompt_tokens >= 2
    assert pieces[0].tokens < 10, "the first token is not held back for many others"


async def test_repeats_itself_at_temperature_zero(engine: Engine) -> None:
    sampling = Sampling(max_tokens=24)
    assert await text_of(engine, PROMPT, sampling) == await text_of(engine, PROMPT, sampling)


async def test_a_seed_repeats_what_was_drawn(engine: Engine) -> None:
    sampling = Sampling(max_tokens=24, temperature=1.0, seed=2**64 - 1)
    assert await text_of(engine, PROMPT, sampling) == await text_of(engine, PROMPT, sampling)


async def test_a_conversation_is_not_its_last_words(engine: Engine) -> None:
    sampling = Sampling(max_tokens=8)
    conversation = Prompt(messages=(Message("system", "Be brief."), Message("user", "The patient")))
    assert await text_of(engine, conversation, sampling) != await text_of(engine, PROMPT, sampling)


@pytest.mark.parametrize(
    "prompt", [PROMPT, Prompt(messages=(Message("user", "Tell me about the patient"),))], ids=["text", "chat"]
)
async def test_resumes_where_it_was_broken_off(engine: Engine, prompt: Prompt) -> None:
    pieces = await pieces_of(engine, prompt, Sampling(max_tokens=60, ignore_eos=True))
    whole = "".join(piece.text for piece in pieces)
    at = len(pieces) // 2
    heard = "".join(piece.text for piece in pieces[:at])
    left = 60 - sum(piece.tokens for piece in pieces[:at])
    resumed = Prompt(prompt.text, prompt.messages, resume_text=heard)
    assert heard + await text_of(engine, resumed, Sampling(max_tokens=left, ignore_eos=True)) == whole


async def test_stops_before_a_stop_string(engine: Engine) -> None:
    words = (await text_of(engine, PROMPT, Sampling(max_tokens=12))).split()
    pieces = await pieces_of(engine, PROMPT, Sampling(max_tokens=12, stop=("never said", words[4])))
    text = "".join(piece.text for piece in pieces)
    assert pieces[-1].finish is FinishReason.STOP
    assert text.split() == words[:4]


async def test_output_ends_with_the_context(engine: Engine) -> None:
    context_tokens = next(model.context_tokens for model in engine.models if model.name == MODEL)
    pieces = await pieces_of(engine, PROMPT, Sampling(max_tokens=100_000, ignore_eos=True))
    assert pieces[-1].finish is FinishReason.LENGTH
    assert sum(piece.tokens for piece in pieces) + pieces[-1].prompt_tokens == context_tokens


async def test_refuses_a_prompt_that_is_too_long(engine: Engine) -> None:
    prompt = Prompt("patient " * 5000)
    assert await refusal_of(engine, prompt, Sampling()) is Reason.PROMPT_TOO_LONG
    resumed = Prompt("patient", resume_text="patient " * 5000)
    assert await refusal_of(engine, resumed, Sampling()) is Reason.PROMPT_TOO_LONG


async def test_refuses_a_model_it_does_not_serve(engine: Engine) -> None:
    assert await refusal_of(engine, PROMPT, Sampling(), model="another") is Reason.MODEL_UNKNOWN
    assert await refusal_of(engine, PROMPT, Sampling(), model=EMBEDDING_MODEL) is Reason.MODEL_UNKNOWN
    with pytest.raises(MeshError) as refusal:
        await engine.embed(MODEL, ["text"])
    assert refusal.value.reason is Reason.MODEL_UNKNOWN


async def test_sixteen_at_once_each_get_their_own(engine: Engine) -> None:
    prompts = [Prompt(f"Number {number} is") for number in range(16)]
    sampling = Sampling(max_tokens=32, ignore_eos=True)
    alone = [await text_of(engine, prompt, sampling) for prompt in prompts[:3]]
    together = await asyncio.gather(*(pieces_of(engine, prompt, sampling) for prompt in prompts))
    assert [sum(piece.tokens for piece in pieces) for pieces in together] == [32] * 16
    assert ["".join(piece.text for piece in pieces) for pieces in together[:3]] == alone


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_leaving_frees_the_place(engine: Engine, how: str) -> None:
    """With every place taken by long generations, a newcomer waits; once they are left, it does not."""
    started = [asyncio.Event() for _ in range(CAPACITY)]
    leave = asyncio.Event()

    async def occupy(event: asyncio.Event) -> None:
        async with aclosing(engine.generate(MODEL, PROMPT, LONG)) as pieces:  # type: ignore[type-var]
            async for _ in pieces:
                event.set()
                if leave.is_set():
                    return

    occupants = [asyncio.create_task(occupy(event)) for event in started]
    await asyncio.gather(*(event.wait() for event in started))
    if how == "closed":
        leave.set()
    else:
        for occupant in occupants:
            occupant.cancel()
    await asyncio.gather(*occupants, return_exceptions=True)
    async with asyncio.timeout(0.5):
        assert await pieces_of(engine, PROMPT, Sampling(max_tokens=1))


async def test_a_reader_that_pauses_loses_nothing(engine: Engine) -> None:
    sampling = Sampling(max_tokens=200, ignore_eos=True)
    tokens, text = 0, ""
    async for piece in engine.generate(MODEL, PROMPT, sampling):
        if not tokens:
            await text_of(engine, PROMPT, sampling)  # meanwhile the replica goes on
        tokens, text = tokens + piece.tokens, text + piece.text
    assert tokens == 200
    assert text == await text_of(engine, PROMPT, sampling)


async def test_embeds_as_unit_vectors_in_order(engine: Engine) -> None:
    texts = ["the cat sat on the mat", "the cat lay on the mat", "tax law of " * 40, "x", "Übermaß"] * 10
    vectors = await engine.embed(EMBEDDING_MODEL, texts)
    assert len(vectors) == len(texts)
    assert {len(vector) for vector in vectors} == {384}
    for vector in vectors:
        assert math.isclose(math.fsum(value * value for value in vector), 1.0, abs_tol=1e-5)
    assert max(abs(a - b) for a, b in zip(vectors[0], vectors[5], strict=True)) < 1e-5
    near = math.fsum(a * b for a, b in zip(vectors[0], vectors[1], strict=True))
    far = math.fsum(a * b for a, b in zip(vectors[0], vectors[2], strict=True))
    assert near > far
    assert await engine.embed(EMBEDDING_MODEL, []) == []


@pytest.mark.parametrize("kind", ["scripted", "vllm"])
async def test_serves_nothing_before_it_is_ready(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine: Engine
    if kind == "scripted":
        engine = ScriptedEngine(MODEL)
    else:
        folder = tmp_path_factory.mktemp("unstarted")
        engine = RemoteEngine(tiny_spec(folder), folder / "engine")
    assert engine.state is EngineState.STARTING
    assert engine.models == ()
    assert await refusal_of(engine, PROMPT, Sampling()) is Reason.ENGINE_UNAVAILABLE
    await engine.aclose()
    assert engine.state is EngineState.STOPPED
    assert await refusal_of(engine, PROMPT, Sampling()) is Reason.ENGINE_UNAVAILABLE
