"""etcd is lost with all its data, and no control plane is there: one node's memory is enough (I5)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.client import PlacementRefused, Reason, RequestContext, collect
from tests.support.control import client_of
from tests.support.mesh import Mesh
from tests.support.node_process import START_S, NodeProcess, end, mesh_on_etcd, plan
from tests.support.waiting import until

pytestmark = pytest.mark.slow

NODES = (("DE", "fra-1"), ("FR", "par-1"), ("US", "iad-1"))
AT_HOME = RequestContext.of(["special-category"], "care/triage")
ABROAD = RequestContext.of(["internal"], "contracts/drafting", allowed_jurisdictions=["FR"])
SETTINGS = {"retrieval": {"enabled": False}}


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[dict[str, NodeProcess]]:
    """Three authorities with a node each; the control planes' part is played by tests/support/mesh.py."""
    async with contextlib.AsyncExitStack() as stack:
        mesh, etcd = await stack.enter_async_context(
            mesh_on_etcd(tmp_path, *(country for country, _ in NODES))
        )
        made = {}
        for country, name in NODES:
            made[name] = await plan(mesh, etcd, tmp_path, country, name, SETTINGS)
            made[name].start()
            stack.callback(end, made[name])
        for node in made.values():
            await node.ready()
        yield made


async def meshctl(*arguments: object) -> tuple[int, str, str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "control.cli.main", *map(str, arguments)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def restore(node: NodeProcess, *arguments: object) -> dict[str, Any]:
    code, out, err = await meshctl("board", "restore", "--config", node.config, *arguments, "-o", "json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


async def knows(node: NodeProcess, mesh: Mesh, *authorities: str) -> None:
    """Waits until the node has saved the latest of these authorities' records."""
    folder = node.directory / "state" / "board"

    def saved() -> bool:
        if not (folder / "records.json").exists():
            return False
        text = (folder / "records.json").read_text()
        return all(
            f'"{key}","seen":[{generation},' in text
            for country in authorities
            for key, generation in mesh[country].current().items()
        )

    await until(saved, START_S)


def forge(board: Path, node: NodeProcess) -> str:
    """Writes FR's policy as DE's own into the file, as somebody with the file could; the key."""
    theirs, ours = (f"/sovereign/v1/{td}.mesh.example/policy" for td in ("fr", "de"))
    lines = [json.loads(line) for line in (board / "records.json").read_text().splitlines()]
    envelopes = {line["key"]: line for line in lines if "key" in line}
    true = base64.b64decode(envelopes[theirs]["envelope"])
    envelopes[ours]["envelope"] = base64.b64encode(true.replace(theirs.encode(), ours.encode())).decode()
    (board / "records.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ours


@pytest.mark.timeout(180)
async def test_a_lost_board_comes_back_from_one_nodes_memory(tmp_path: Path, nodes: dict[str, NodeProcess]):
    mesh, etcd = nodes["fra-1"].mesh, nodes["fra-1"].etcd
    for authority in mesh.authorities.values():
        await authority.sign_heads()
    await knows(nodes["fra-1"], mesh, "DE", "FR", "US")
    memory, forged = tmp_path / "kept", tmp_path / "forged"
    # All at once: etcd with its data, and every node but for what fra-1 remembers. Nothing is signed by an
    # authority from here on, which is what it is like without control planes.
    for node in nodes.values():
        node.process.send_signal(signal.SIGTERM)
        await node.ended()
    shutil.copytree(nodes["fra-1"].directory / "state" / "board", memory)
    shutil.copytree(memory, forged)
    policy = forge(forged, nodes["fra-1"])
    for node in nodes.values():
        shutil.rmtree(node.directory / "state" / "board")
    etcd.kill()
    shutil.rmtree(etcd.data_dir)
    await etcd.start()

    found = await restore(nodes["fra-1"], "--from", forged)
    assert {each["key"]: each["reason"] for each in found["records"] if each["outcome"] == "refused"} == {
        policy: Reason.RECORD_SIGNATURE_INVALID.code
    }
    found = await restore(nodes["fra-1"], "--from", memory)
    assert [each["key"] for each in found["records"] if each["outcome"] == "put"] == [policy]
    assert found["counts"]["refused"] == found["counts"]["kept"] == found["counts"]["failed"] == 0
    code, out, err = await meshctl("board", "restore", "--config", nodes["fra-1"].config, "--from", memory)
    assert (code, err) == (0, "")
    assert "0 of " in out

    for node in nodes.values():
        node.start()
    for node in nodes.values():
        await node.ready()
    async with client_of(mesh, "DE/firm/desk") as client:
        async with asyncio.timeout(START_S):
            while True:
                # the node that places may hear of another one a moment later than we did
                with contextlib.suppress(PlacementRefused):
                    home = await collect(client.chat("scripted", "hello", context=AT_HOME))
                    abroad = await collect(client.chat("scripted", "hello", context=ABROAD))
                    break
    assert home.finished.node == nodes["fra-1"].id
    assert abroad.finished.node == nodes["par-1"].id
    code, _, err = await meshctl("board", "restore", "--config", nodes["fra-1"].config, "--board", "nowhere")
    assert (code, err.count("\n")) == (2, 1)
