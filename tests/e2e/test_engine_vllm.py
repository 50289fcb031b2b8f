"""The real engine's lives and deaths: who is killed, what the caller sees, who comes back.

Ray and vLLM for real, the tiny model. Named after what is killed. Each states how fast.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.core.errors import MeshError, Reason
from node.engine.base import EngineState, FinishReason, Prompt, Sampling
from node.engine.remote import RemoteEngine
from node.engine.spec import EngineSpec
from tests.support.engines import MODEL, end_family, eventually, family_of, find, kill, running, tiny_spec

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

ENDLESS = Sampling(max_tokens=2000, ignore_eos=True)
CORE = "VLLM::EngineCore"
GATEWAY = """
import asyncio, sys
from pathlib import Path
from node.engine.base import EngineState
from node.engine.remote import RemoteEngine
from node.engine.spec import EngineSpec

async def main():
    engine = RemoteEngine(EngineSpec.from_json(sys.argv[1]), Path(sys.argv[2]))
    await engine.start()
    await engine.wait_state(EngineState.READY)
    print("ready", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def spec(folder: Path) -> EngineSpec:
    return tiny_spec(folder, embeddings=False)


@pytest.fixture(scope="module")
def home(folder: Path) -> Path:
    """The run directory of `engine`."""
    return folder / "engine"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(spec: EngineSpec, home: Path) -> AsyncIterator[RemoteEngine]:
    """One engine for all that are killed: each test leaves it healed."""
    async with running(spec, home) as started:
        yield started


async def text_of(engine: RemoteEngine, tokens: int = 8) -> str:
    pieces = [piece async for piece in engine.generate(MODEL, Prompt("One"), Sampling(max_tokens=tokens))]
    assert pieces[-1].finish is FinishReason.LENGTH
    return "".join(piece.text for piece in pieces)


async def consume(engine: RemoteEngine, begun: asyncio.Event) -> None:
    async for _ in engine.generate(MODEL, Prompt("One"), ENDLESS):
        begun.set()


async def broken_by(engine: RemoteEngine, pids: list[int]) -> float:
    """Kills while four streams run; returns the seconds until all have failed with ENGINE_FAILED."""
    begun = [asyncio.Event() for _ in range(4)]
    streams = [asyncio.create_task(consume(engine, event)) for event in begun]
    await asyncio.gather(*(event.wait() for event in begun))
    began = time.monotonic()
    kill(pids)
    done, _ = await asyncio.wait(streams, timeout=20)
    took = time.monotonic() - began
    assert len(done) == len(streams)
    for stream in streams:
        error = stream.exception()
        assert isinstance(error, MeshError)
        assert error.reason is Reason.ENGINE_FAILED
    return took


@pytest.mark.parametrize("victim", [CORE, "ray_vllm_server", "ray::ServeReplica", "raylet/raylet"])
async def test_engine_killed_under_load(engine: RemoteEngine, home: Path, victim: str) -> None:
    before = await text_of(engine)
    failed = asyncio.create_task(engine.wait_state(EngineState.FAILED))
    took = await broken_by(engine, find(home, victim))
    assert took < 5
    await asyncio.wait_for(failed, 5)
    with pytest.raises(MeshError) as refusal:
        await text_of(engine)
    assert refusal.value.reason is Reason.ENGINE_UNAVAILABLE
    began = time.monotonic()
    await asyncio.wait_for(engine.wait_state(EngineState.READY), 120)
    print(f"{victim}: streams failed after {took:.2f} s, served again after {time.monotonic() - began:.1f} s")
    assert await text_of(engine) == before


async def test_host_killed_while_the_gateway_lives(engine: RemoteEngine, home: Path) -> None:
    family = family_of(home)
    failed = asyncio.create_task(engine.wait_state(EngineState.FAILED))
    assert await broken_by(engine, [family.leader]) < 5
    await asyncio.wait_for(failed, 5)
    await eventually(lambda: not family.members(), 15, "nothing is left of the old host")
    await asyncio.wait_for(engine.wait_state(EngineState.READY), 120)
    assert family_of(home) != family
    assert await text_of(engine)


async def test_gateways_come_and_go(spec: EngineSpec, folder: Path, tmp_path: Path) -> None:
    """Killed and started again: adopted warm. Started with another spec: replaced. Gone: ended."""
    run_directory = tmp_path / "engine"
    gateway = start_gateway(spec, run_directory)
    try:
        await said_ready(gateway)
        before = set(family_of(run_directory).members())
        gateway.kill()
        gateway.wait()
        began = time.monotonic()
        second = RemoteEngine(spec, run_directory)
        await second.start()
        await asyncio.wait_for(second.wait_state(EngineState.READY), 10)
        assert await text_of(second)
        took = time.monotonic() - began
        print(f"a new gateway serves after {took:.2f} s")
        assert took < 2
        assert set(family_of(run_directory).members()) == before
        await second.leave()

        other = tiny_spec(folder, embeddings=False, capacity=3, orphan_grace_s=2.0)
        third = RemoteEngine(other, run_directory)
        await third.start()
        await asyncio.wait_for(third.wait_state(EngineState.READY), 120)
        assert third.capacity == 3
        family = family_of(run_directory)
        assert not before & set(family.members())
        await third.leave()
        await eventually(lambda: not family.members(), 15, "the orphaned host ends everything")
    finally:
        gateway.kill()
        end_family(run_directory)


async def test_gateway_and_host_killed_at_once(spec: EngineSpec, tmp_path: Path) -> None:
    run_directory = tmp_path / "engine"
    gateway = start_gateway(spec, run_directory)
    try:
        await said_ready(gateway)
        family = family_of(run_directory)
        gateway.kill()
        gateway.wait()
        kill([family.leader])
        took = await eventually(lambda: not family.members(), 10, "the guard ends Ray and vLLM")
        print(f"nothing was left after {took:.1f} s")
    finally:
        gateway.kill()
        end_family(run_directory)


async def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    engine = RemoteEngine(EngineSpec(str(tmp_path), "empty", embeddings=False), tmp_path / "engine")
    try:
        await engine.start()
        state = await asyncio.wait_for(engine.wait_state(EngineState.READY, EngineState.FAILED), 120)
        assert state is EngineState.FAILED
        assert "did not start" in engine.failure
    finally:
        await engine.aclose()
        end_family(tmp_path / "engine")


async def test_two_replicas_share_the_work(folder: Path, tmp_path: Path) -> None:
    async with running(tiny_spec(folder, embeddings=False, replicas=2), tmp_path / "engine") as engine:
        await eventually(lambda: engine.capacity == 32, 120, "both replicas serve")
        family = family_of(tmp_path / "engine")
        begun = [asyncio.Event() for _ in range(4)]
        streams = [asyncio.create_task(consume(engine, event)) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))
        assert [session.active for session in engine._sessions.values()] == [2, 2]
        kill(find(tmp_path / "engine", CORE)[:1])
        await eventually(lambda: sum(stream.done() for stream in streams) >= 2, 5, "half of them fail")
        assert engine.state is EngineState.READY, "the other replica goes on serving"
        assert await text_of(engine)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await eventually(lambda: engine.capacity == 32, 60, "the replica is back")
        assert engine._paths.short.stat().st_mode & 0o777 == 0o700
    assert family.members() == []
    assert not engine._paths.short.exists()


async def test_the_engine_has_no_network(engine: RemoteEngine, home: Path) -> None:
    """I1: nothing that a library of the engine's does can carry a byte of a prompt away."""
    assert engine._said is not None
    if not engine._said.isolated:
        pytest.skip("this system permits no network namespaces")
    for pid in family_of(home).members():
        own = os.readlink(f"/proc/{pid}/ns/net")
        assert own != os.readlink("/proc/self/ns/net")
        assert devices_seen_by(pid) == ["lo"]


async def test_the_log_quotes_no_prompt(engine: RemoteEngine, home: Path) -> None:
    """I1: not through logs."""
    secret = "Zanzibarschmetterling"
    async for _ in engine.generate(MODEL, Prompt(secret), Sampling(max_tokens=4)):
        pass
    with pytest.raises(MeshError):
        async for _ in engine.generate(MODEL, Prompt(secret * 2000), Sampling(max_tokens=4)):
            pass
    begun = asyncio.Event()
    stream = asyncio.create_task(consume(engine, begun))
    await begun.wait()
    kill(find(home, CORE))
    await asyncio.gather(stream, return_exceptions=True)
    await asyncio.wait_for(engine.wait_state(EngineState.READY), 60)
    places = [home, engine._paths.short]
    for path in (path for place in places for path in place.rglob("*") if path.is_file()):
        assert secret.encode() not in path.read_bytes(), path


def devices_seen_by(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def start_gateway(spec: EngineSpec, run_directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", GATEWAY, spec.to_json(), str(run_directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


async def said_ready(gateway: subprocess.Popen[bytes]) -> None:
    assert gateway.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(gateway.stdout.readline), 240)
    assert line == b"ready\n"
