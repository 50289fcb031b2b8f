"""`mesh-node` as operators run it: a process with a configuration file, etcd, signals, logs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.core.errors import Reason
from tests.support.mesh import context
from tests.support.node_process import node_process
from tests.support.waiting import DEADLINE_S, until

CLINICAL = context(["special-category"])
PROMPT = "Wilhelmine Zufallsname"


@pytest.mark.slow
async def test_it_serves_drains_and_goes(tmp_path: Path):
    async with node_process(tmp_path) as node:
        clinic = node.mesh["DE"].caller("clinic")
        placed = await clinic.place(CLINICAL)
        permit = placed.targets[0].permit.SerializeToString()
        assert await clinic.chat(node, CLINICAL, PROMPT, permit=permit)
        node.process.send_signal(signal.SIGTERM)
        assert await node.ended() == 0
        kinds = [(entry["kind"], entry.get("outcome")) for entry in node.decisions]
        assert kinds == [("place", None), ("serve", "served")]
        board = node.mesh["DE"].board
        await board.wait_for(lambda _: node.id not in board.statuses, 10)
        assert any("draining" in line["message"] for line in node.lines)
        told = node.log.read_text() + str(node.decisions)
        assert not [word for word in PROMPT.split() if word in told]


@pytest.mark.slow
async def test_killed_and_started_again_without_etcd_it_serves_its_own_i4(tmp_path: Path):
    async with node_process(tmp_path) as node:
        clinic = node.mesh["DE"].caller("clinic")
        saved = node.directory / "state" / "board" / "records.json"
        await until(
            lambda: saved.exists() and all(kind in saved.read_text() for kind in ("nodes/", "policy"))
        )
        node.process.kill()
        await node.ended()
        node.etcd.kill()
        node.start()
        await until(lambda: sum("serves on" in line["message"] for line in node.lines) == 2)
        async with asyncio.timeout(DEADLINE_S):
            while not (placed := await clinic.place(CLINICAL)).targets:
                assert placed.decision.refused[0].reason == Reason.NODE_NOT_READY.code
        permit = placed.targets[0].permit.SerializeToString()
        assert await clinic.chat(node, CLINICAL, permit=permit)
        # and when etcd is back, the node tells it again by itself
        await node.etcd.start()
        await node.ready()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen: [nowhere]\n", "listen.0: expected host:port"),
        ("colour: red\n", "colour: no such setting"),
    ],
)
def test_a_configuration_that_does_not_hold(tmp_path: Path, text: str, said: str):
    config = tmp_path / "mesh-node.yaml"
    config.write_text(text)
    command = [sys.executable, "-m", "node.daemon", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 2
    assert Reason.CONFIG_INVALID.code in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_nobody_has_enrolled_it(tmp_path: Path):
    config = tmp_path / "mesh-node.yaml"
    config.write_text(
        "listen: ['127.0.0.1:1']\nstate_directory: s\nidentity: {directory: i}\n"
        "board: {endpoints: ['127.0.0.1:1']}\nengine: {kind: scripted}\n"
    )
    command = [sys.executable, "-m", "node.daemon", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 1
    assert "mesh-node: " in done.stderr
    assert "Traceback" not in done.stderr
