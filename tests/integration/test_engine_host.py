"""The engine's host as a process: who holds it, what it starts again, and that it leaves nothing.

Real processes, real signals; sleepers in the place of Ray (tests/support/family_of_sleepers.py). The
same deaths under a real Ray and vLLM are in tests/e2e/test_engine_vllm.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.engine import ray_host
from node.engine.host_link import HostLink
from node.engine.host_paths import HostPaths, python_module
from node.engine.model_files import folder_digest
from node.engine.process_family import Family, children_of
from node.engine.spec import EngineSpec
from tests.support.engines import end_family, eventually, family_of
from tests.support.family_of_sleepers import AS_HOST, CLUSTER

pytestmark = pytest.mark.slow
SPEC = EngineSpec("/models/m", "m", orphan_grace_s=60)
GROWN = 6  # host, guard, cluster, its child, the orphan's place, the replica: at least

StartHost = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "engine"
    end_family(tmp_path / "engine")


@pytest.fixture
def start(home: Path) -> Iterator[StartHost]:
    started: list[subprocess.Popen[bytes]] = []

    def start(spec: EngineSpec = SPEC) -> subprocess.Popen[bytes]:
        paths = HostPaths.of(home)
        paths.make()
        paths.spec.write_text(spec.to_json())
        command = python_module(CLUSTER, AS_HOST, str(home))
        with paths.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@asynccontextmanager
async def gateway(home: Path, spec: EngineSpec = SPEC) -> AsyncIterator[HostLink]:
    async with asyncio.timeout(20):
        paths = HostPaths.of(home)
        await eventually(paths.socket.exists, 20, "the host listens")
        link = await HostLink.attach(spec, paths)
    try:
        yield link
    finally:
        link.close()


async def replica_of(link: HostLink) -> Any:
    """Listens until there is a replica."""
    async with asyncio.timeout(20):
        while (said := await link.next_state()) is not None:
            if said.replicas:
                return said.replicas[0]
    raise AssertionError("the host ended")


async def without_replica(link: HostLink) -> Any:
    async with asyncio.timeout(20):
        while (said := await link.next_state()) is not None:
            if not said.replicas:
                return said
    raise AssertionError("the host ended")


async def gone(family: Family, home: Path) -> None:
    await eventually(lambda: not family.members(), 10, "nobody is left")
    await eventually(lambda: not HostPaths.of(home).short.exists(), 10, "nor a socket")


async def test_tells_its_gateway_of_replicas_that_come_and_go(start: StartHost, home: Path) -> None:
    start()
    async with gateway(home) as link:
        first = await replica_of(link)
        os.kill(first.pid, signal.SIGKILL)
        said = await without_replica(link)
        assert said.failed, "it was ready once, so this is no start"


async def test_strays_are_ended(start: StartHost, home: Path) -> None:
    """Whoever lost its parent has lost its purpose."""
    start()
    async with gateway(home) as link:
        first = await replica_of(link)
        family = family_of(home)
        (cluster,) = [pid for pid in children_of(family.leader) if children_of(pid)]
        (parent,) = [pid for pid in children_of(cluster) if first.pid in children_of(pid)]
        os.kill(parent, signal.SIGKILL)
        await without_replica(link)
        await eventually(lambda: first.pid not in family.members(), 5, "the orphaned replica is ended")


async def test_a_cluster_that_ends_is_started_again(start: StartHost, home: Path) -> None:
    start()
    async with gateway(home) as link:
        first = await replica_of(link)
        family = family_of(home)
        before = set(family.members())
        (cluster,) = [pid for pid in children_of(family.leader) if children_of(pid)]
        os.kill(cluster, signal.SIGKILL)
        await without_replica(link)
        second = await replica_of(link)
        assert second.pid != first.pid
        left = before & set(family.members())
        assert len(left) == 2, "the host and its guard; nobody of the old cluster"


async def test_nothing_is_started_for_a_model_that_is_not_the_pinned_one(
    start: StartHost, home: Path, tmp_path: Path
) -> None:
    """Until it is corrected: then the same host goes on."""
    model, cache = tmp_path / "model", tmp_path / "digests.json"
    model.mkdir()
    (model / "weights").write_text("right")
    spec = EngineSpec(str(model), "m", model_digest=folder_digest(model, cache), orphan_grace_s=60)
    (model / "weights").write_text("wrong")
    start(spec)
    async with gateway(home, spec) as link:
        async with asyncio.timeout(20):
            while (said := await link.next_state()) is not None and not said.failed:
                pass
        assert said is not None
        assert said.error.startswith("MODEL_DIGEST_MISMATCH: ")
        assert len(family_of(home).members()) == 2, "the host and its guard"
        assert "nothing is loaded: MODEL_DIGEST_MISMATCH" in HostPaths.of(home).log.read_text()
        (model / "weights").write_text("right")
        await replica_of(link)


async def test_stops_when_told(start: StartHost, home: Path) -> None:
    process = start()
    async with gateway(home) as link:
        await replica_of(link)
        family = family_of(home)
        assert len(family.members()) >= GROWN - 1
        await link.stop_host()
        assert set(family.members()) <= {process.pid}, "when the line closes, all is done"
    assert process.wait(10) == 0
    await gone(family, home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_on_a_signal(start: StartHost, home: Path, number: signal.Signals) -> None:
    process = start()
    async with gateway(home) as link:
        await replica_of(link)
        family = family_of(home)
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, 10) == 0
        await gone(family, home)


async def test_killed_it_leaves_nothing_either(start: StartHost, home: Path) -> None:
    process = start()
    async with gateway(home) as link:
        await replica_of(link)
        family = family_of(home)
        process.kill()
        process.wait()
        await gone(family, home)


async def test_outlives_its_gateway_but_not_for_ever(start: StartHost, home: Path) -> None:
    spec = EngineSpec("/models/m", "m", orphan_grace_s=1.0)
    process = start(spec)
    async with gateway(home, spec) as link:
        first = await replica_of(link)
        family = family_of(home)
    async with gateway(home, spec) as link:
        assert (await replica_of(link)).pid == first.pid, "adopted as it was"
        await asyncio.sleep(1.5)  # longer than the grace: a held host does not end
        assert first.pid in family.members()
    assert await asyncio.to_thread(process.wait, 10) == 0
    await gone(family, home)


async def test_a_second_host_does_not_get_in(start: StartHost, home: Path) -> None:
    start()
    async with gateway(home) as link:
        first = await replica_of(link)
        second = start()
        assert await asyncio.to_thread(second.wait, 10) == ray_host.LOCKED
        assert first.pid in family_of(home).members()


async def test_what_a_dead_host_left_is_ended_by_the_next(start: StartHost, home: Path) -> None:
    """The guard was killed with the host: a double failure. The next host sweeps."""
    process = start()
    async with gateway(home) as link:
        first = await replica_of(link)
        old = family_of(home)
        for pid in [old.leader, *[pid for pid in children_of(old.leader) if not children_of(pid)]]:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert first.pid in old.members()
    start()
    await eventually(lambda: not old.members(), 10, "the next host ends them")


async def test_garbage_on_its_socket_disturbs_nobody(start: StartHost, home: Path) -> None:
    start()
    async with gateway(home) as link:
        first = await replica_of(link)
        for rubbish in (
            b"\n",
            b"[]\n",
            b"{\n",
            b"\xff\xfe\n",
            json.dumps({"replica": 1}).encode() + b"\n",
            b"x" * 2**21,
        ):
            reader, writer = await asyncio.open_unix_connection(str(HostPaths.of(home).socket))
            writer.write(rubbish)
            with contextlib.suppress(ConnectionResetError):
                async with asyncio.timeout(10):
                    await reader.read()
            writer.close()
        assert first.pid in family_of(home).members()
        async with gateway(home) as another:
            assert (await replica_of(another)).pid == first.pid


def test_a_socket_directory_of_somebody_else_is_refused(home: Path) -> None:
    from mesh.core.errors import MeshError, Reason

    paths = HostPaths.of(home)
    paths.make()
    paths.short.chmod(0o755)
    with pytest.raises(MeshError) as refusal:
        paths.make()
    assert refusal.value.reason is Reason.CONFIG_INVALID
    paths.short.rmdir()
    paths.short.symlink_to("/tmp")
    with pytest.raises(MeshError):
        paths.make()
    paths.short.unlink()
