"""Metrics and probes of the daemons as they run: processes with a configuration file, on a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.cli.main import run
from control.config_example import example_config
from mesh.ports import free_ports
from tests.support.etcd import fast_server
from tests.support.mesh import context
from tests.support.node_process import end, mesh_on_etcd, node_process, plan
from tests.support.scraping import get, scrape
from tests.support.waiting import DEADLINE_S

pytestmark = pytest.mark.slow

CLINICAL = context(["special-category"])
PROMPT = "Wilhelmine Zufallsname"
ROOT = Path(__file__).parents[2]


async def until_answered(port: int, path: str, status: int) -> str:
    """Asks until this is the answer."""
    async with asyncio.timeout(3 * DEADLINE_S):
        while True:
            with contextlib.suppress(ConnectionError):
                found, body = await get(port, path)
                if found == status:
                    return body
            await asyncio.sleep(0.02)


async def test_a_node_is_scraped_probed_and_drained(tmp_path: Path):
    (port,) = free_ports(1)
    settings = {"telemetry": {"listen": f"127.0.0.1:{port}"}}
    slow = (sys.executable, "-m", "bench.gateway_node", "--config", "{config}", "--per-token-s", "0.01")
    async with node_process(tmp_path, *slow, settings=settings) as node:
        clinic = node.mesh["DE"].caller("clinic-of-dr-quist")
        assert await get(port, "/livez") == (200, "ok\n")
        assert await get(port, "/readyz") == (200, "ok\n")
        placed = await clinic.place(CLINICAL, at=node)  # type: ignore[arg-type]
        permit = placed.targets[0].permit.SerializeToString()
        assert await clinic.chat(node, CLINICAL, PROMPT, permit=permit)  # type: ignore[arg-type]
        page = await scrape(port)
        flow = {"from": "DE", "to": "DE", "class": "special-category", "action": "infer"}
        assert page.value("sovereign_mesh_flows_total", **flow) == 1
        assert page.value("sovereign_mesh_evidence_entries") == 2
        assert page.value("sovereign_mesh_build_info") == 1
        assert page.value("process_resident_memory_bytes") > 1e6
        for word in (*PROMPT.split(), "quist", "care", "triage", str(tmp_path)):
            assert word not in page.text
        stream = clinic.stream(node, CLINICAL, permit=clinic.permit(  # type: ignore[arg-type]
            node.id, CLINICAL, by=node.mesh["DE"].identity.source("/control/test")
        ))  # fmt: skip
        await stream.until_token()
        node.process.send_signal(signal.SIGTERM)
        assert await until_answered(port, "/readyz", 503) == "it is draining\n"
        assert (await get(port, "/livez"))[0] == 200
        async with asyncio.timeout(DEADLINE_S):  # a page is shown for a moment longer
            while (page := await scrape(port)).value("sovereign_mesh_draining") != 1:
                pass
        assert page.value("sovereign_mesh_live_calls") == 1
        stream.cancel()
        assert await node.ended() == 0
        with pytest.raises(ConnectionError):
            await get(port, "/livez")


async def test_a_node_that_cannot_show_itself_does_not_start(tmp_path: Path):
    async with mesh_on_etcd(tmp_path, "DE") as (mesh, etcd):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            node = await plan(mesh, etcd, tmp_path, "DE", "fra-1", {"telemetry": {"listen": listen}})
            node.start()
            try:
                assert await node.ended() == 2
            finally:
                end(node)
        assert f"CONFIG_INVALID: telemetry.listen: cannot listen on {listen}" in node.log.read_text()


def started(home: Path, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A control plane of these settings."""
    config = home / "mesh-control.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "control.daemon", "--config", str(config)]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)


async def test_a_control_plane_is_scraped_and_probed(tmp_path: Path):
    home = tmp_path / "de"
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(["authority", "init", str(home), "--trust-domain", "de.mesh.example"]) == 0
    serving, enrolment, port = free_ports(3)
    async with fast_server(tmp_path / "etcd") as etcd:
        text = example_config(
            "de.mesh.example",
            listen=f"127.0.0.1:{serving}",
            enrolment=f"127.0.0.1:{enrolment}",
            board=etcd.endpoint,
        )
        settings = yaml.safe_load(text)
        settings["heads"] = {"interval_s": 0.2, "max_age_s": 5.0}
        settings["telemetry"] = {"listen": f"127.0.0.1:{port}"}
        process = started(home, settings)
        try:
            await until_answered(port, "/readyz", 200)
            assert await get(port, "/livez") == (200, "ok\n")
            async with asyncio.timeout(DEADLINE_S):
                while not (page := await scrape(port)).all("sovereign_mesh_heads_age_seconds"):
                    pass
            assert page.value("sovereign_mesh_board_connected") == 1
            assert page.value("sovereign_mesh_certificate_expiry_timestamp_seconds") > 0
            process.terminate()
            assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
        finally:
            process.kill()
            process.wait(DEADLINE_S)
