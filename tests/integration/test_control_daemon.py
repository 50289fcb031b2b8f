"""`mesh-control` as operators run it: a process with a configuration file, etcd, signals, logs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.cli.main import run
from control.config_example import example_config
from mesh.evidence.offline import read_entries
from mesh.ports import free_ports
from mesh.sdk.profile import ControlPlane, Profile
from mesh.store.etcd_server import EtcdServer
from tests.support.etcd import fast_server
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "examples" / "policies" / "de.cedar"
DEADLINE_S = 30.0

pytestmark = pytest.mark.slow


class Daemon:
    """A founded authority whose control plane runs as a process on a real etcd."""

    def __init__(self, home: Path, etcd: EtcdServer) -> None:
        self.home = home
        self.etcd = etcd
        self.config = home / "mesh-control.yaml"
        self.log = home / "mesh-control.log"
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        mesh, enrolment = (f"127.0.0.1:{port}" for port in free_ports(2))
        text = example_config("de.mesh.example", listen=mesh, enrolment=enrolment, board=self.etcd.endpoint)
        settings = yaml.safe_load(text)
        settings["heads"] = {"interval_s": 0.2, "max_age_s": 5.0}
        settings["bootstrap"] = {"policy": str(POLICY)}
        settings["log"] = {"format": "json"}
        self.config.write_text(yaml.safe_dump(settings))
        profile = Profile.load(self.home / "admin")
        plane = ControlPlane(endpoint=mesh, enrolment=enrolment)
        profile.model_copy(update={"control": plane, "identity": Path("identity")}).save(self.home / "admin")

    def start(self) -> None:
        command = [sys.executable, "-m", "control.daemon", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )

    async def meshctl(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        """Exit code, and the JSON of standard output or of the error."""
        command = [sys.executable, "-m", "control.cli.main", *map(str, arguments), "-o", "json"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, "--profile", str(self.home / "admin")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=DEADLINE_S,
        )
        return done.returncode, json.loads(done.stdout or done.stderr)

    async def until(self, condition: Any, *arguments: object) -> dict[str, Any]:
        """Asks until the answer is as wanted."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()
                code, found = await self.meshctl(*arguments)
                if code == 0 and condition(found):
                    return found

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), DEADLINE_S)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    home = tmp_path / "de"
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(["authority", "init", str(home), "--trust-domain", "de.mesh.example"]) == 0
    async with fast_server(tmp_path / "etcd") as etcd:
        found = Daemon(home, etcd)
        found.configure()
        try:
            yield found
        finally:
            if found.process is not None and found.process.poll() is None:
                found.process.kill()
                found.process.wait(DEADLINE_S)


async def test_it_publishes_serves_survives_etcd_and_goes(daemon: Daemon):
    daemon.start()
    await daemon.until(lambda s: s["fresh"] == ["de.mesh.example"], "status")
    shown = await daemon.until(lambda p: p["generation"] == 1, "policy", "show")
    assert shown["cedar"] == POLICY.read_text()
    daemon.etcd.kill()
    await daemon.until(lambda s: not s["board_connected"], "status")
    code, error = await daemon.meshctl("policy", "apply", POLICY)
    assert (code, error["error"]["reason"]) == (1, "STORE_UNAVAILABLE")
    await daemon.etcd.start()
    await daemon.until(lambda s: s["board_connected"] and s["fresh"], "status")
    code, _ = await daemon.meshctl("policy", "apply", POLICY)
    assert code == 0
    assert await daemon.end(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    assert not [line for line in lines if line["level"] in ("error", "critical")]
    *_, last = read_entries(daemon.home / "state/evidence/actions")
    assert json.loads(last)["state"] == "done"
    checkpoint = (daemon.home / "state/evidence/actions/checkpoint").read_text()
    assert checkpoint.startswith("de.mesh.example/control/main/actions\n")


async def test_killed_it_starts_again_without_etcd_and_knows_what_it_knew(daemon: Daemon):
    daemon.start()
    before = await daemon.until(lambda p: p["generation"] == 1, "policy", "show")
    saved = daemon.home / "state" / "board" / "records.json"
    await until(lambda: saved.exists() and "policy" in saved.read_text())
    await daemon.end(signal.SIGKILL)
    daemon.etcd.kill()
    daemon.start()
    assert await daemon.until(lambda p: p["generation"] == 1, "policy", "show") == before
    await daemon.etcd.start()
    await daemon.until(lambda s: s["board_connected"] and s["fresh"], "status")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: [nowhere]\n", "listen.0: expected host:port"),
        ("colour: red\n", "colour: no such setting"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_configuration_that_does_not_hold(tmp_path: Path, text: str, said: str):
    config = tmp_path / "mesh-control.yaml"
    config.write_text(text)
    command = [sys.executable, "-m", "control.daemon", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_has_founded_the_authority(tmp_path: Path):
    config = tmp_path / "mesh-control.yaml"
    config.write_text(example_config("de.mesh.example", listen="127.0.0.1:1", enrolment="127.0.0.1:2"))
    command = [sys.executable, "-m", "control.daemon", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "root.key" in done.stderr
