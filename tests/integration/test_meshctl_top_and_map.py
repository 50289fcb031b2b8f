"""meshctl top and map against a running control plane and real nodes of two authorities."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import grpc
import pytest

from control.cli.identity_files import write_identity, write_profile
from mesh.core.errors import Reason
from mesh.identity.names import dns_name_of
from mesh.identity.tls import dial
from mesh.rpc.status import from_rpc_error
from mesh.sdk.profile import ControlPlane, Profile
from sovereign.mesh.v1 import node_admin_pb2, node_admin_pb2_grpc
from tests.support.control import RunningControl, control_of
from tests.support.mesh import DEADLINE_S, Mesh, context, mesh_of
from tests.support.meshctl import in_thread

pytestmark = pytest.mark.slow

FRA = "spiffe://de.mesh.example/node/fra-1"


@dataclass
class Desk:
    """A DE administrator beside a node in DE, which counts, and one in FR."""

    mesh: Mesh
    control: RunningControl
    profile: Path

    async def run(self, *arguments: object) -> tuple[int, str, str]:
        return await in_thread(*arguments, "--profile", self.profile)

    async def json(self, *arguments: object) -> dict[str, Any]:
        code, out, err = await self.run(*arguments, "--output", "json")
        assert (code, err) == (0, "")
        return dict(json.loads(out))

    async def text(self, *arguments: object) -> str:
        code, out, err = await self.run(*arguments)
        assert (code, err) == (0, "")
        return out


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with contextlib.AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(mesh_of(tmp_path / "mesh", "DE", "FR"))
        home = mesh["DE"]
        await home.node("fra-1", telemetry=True, evidence=tmp_path / "fra-1-witness")
        await mesh["FR"].node("par-1")
        control = await stack.enter_async_context(
            control_of(home.identity.ca, mesh.board, tmp_path / "control")
        )
        await control.plane.board.wait_for(
            lambda snapshot: len(snapshot.candidates) == 2 and len(control.plane.board.statuses) == 2,
            DEADLINE_S,
        )
        profile = tmp_path / "admin"
        svid = home.identity.svid("/admin/first", now=time.time())
        write_identity(profile / "identity", svid.chain, svid.key, mesh.bundles, home.id("/admin/first"))
        endpoints = ControlPlane(endpoint=control.plane.endpoint, enrolment=control.plane.enrolment_endpoint)
        write_profile(profile, Profile(trust_domain=home.trust_domain, control=endpoints))
        yield Desk(mesh, control, profile)


async def serve_some(desk: Desk) -> None:
    caller, node = desk.mesh["DE"].caller("clinic"), desk.mesh["DE"].nodes["fra-1"]
    for _ in range(3):
        await caller.chat(node, context(["special-category"]))
    await node.idle()


async def test_top_shows_every_node_and_of_own_ones_what_they_did(desk: Desk) -> None:
    await serve_some(desk)
    kept = desk.mesh["DE"].nodes["fra-1"].runtime.last_minute
    assert kept is not None
    kept.read()
    found = await desk.json("top", "--once", "--sort", "name")
    nodes = {each["node"]: each for each in found["nodes"]}
    own, other = nodes[FRA], nodes["spiffe://fr.mesh.example/node/par-1"]
    assert (own["state"], other["state"]) == ("ready", "ready")
    assert own["last_minute"]["requests"] == 3
    assert own["last_minute"]["failed"] == 0
    assert own["last_minute"]["completion_tokens"] > 0
    assert 0 < own["last_minute"]["p50_s"] <= own["last_minute"]["p99_s"]
    assert other["last_minute"] is None
    assert "silent" not in other
    for node in nodes.values():
        assert 0 <= node["record_age_s"] < 60
        assert 0 < node["certificate_ends_in_s"] <= 86_400
    text = await desk.text("top", "--once")
    assert "board answers" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["NODE", "fra-1", "par-1"]
    # What is no terminal gets one table and the command ends.
    assert (await desk.text("top")).splitlines()[0] == text.splitlines()[0]


async def test_a_node_that_does_not_answer_is_said_to_be_silent(desk: Desk) -> None:
    await desk.mesh["DE"].nodes["fra-1"].runtime.server.stop(0)
    found = await desk.json("top", "--once")
    own = next(each for each in found["nodes"] if each["node"] == FRA)
    assert (own["silent"], own["last_minute"]) == ("UNREACHABLE", None)


async def ask(desk: Desk, country: str, path: str) -> node_admin_pb2.GetLastMinuteResponse:
    node = desk.mesh["DE"].nodes["fra-1"]
    source = desk.mesh[country].identity.source(path, desk.mesh.bundles)
    channel = dial(source, node.endpoint, node.id.trust_domain, dns_name_of(node.id))
    async with channel:
        stub: Any = node_admin_pb2_grpc.NodeAdminStub(channel)  # type: ignore[no-untyped-call]
        return await stub.GetLastMinute(node_admin_pb2.GetLastMinuteRequest())


@pytest.mark.parametrize(
    ("country", "path"),
    [("DE", "/client/clinic/desk"), ("DE", "/node/fra-2"), ("DE", "/control/main"), ("FR", "/admin/first")],
)
async def test_nobody_but_own_administrators_is_told(desk: Desk, country: str, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(desk, country, path)
    assert from_rpc_error(refused.value).reason is Reason.IDENTITY_NOT_ALLOWED


async def test_a_revoked_administrator_is_told_nothing(desk: Desk) -> None:
    assert (await ask(desk, "DE", "/admin/first")).measured
    await desk.mesh["DE"].revoke(desk.mesh["DE"].id("/admin/first"))
    node = desk.mesh["DE"].nodes["fra-1"]
    await node.runtime.board.wait_for(lambda s: bool(s.revocations), DEADLINE_S)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(desk, "DE", "/admin/first")
    assert from_rpc_error(refused.value).reason is Reason.IDENTITY_REVOKED


async def test_json_is_one_object_a_look_until_ctrl_c_whatever_happens(desk: Desk) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control.cli.main", "top", "--every", "0.2", "--output", "json",
        "--profile", desk.profile, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S * 3):
            looks = [json.loads(await process.stdout.readline()) for _ in range(3)]
            assert [len(look["nodes"]) for look in looks] == [2, 2, 2]
            assert looks[0]["at"] < looks[1]["at"] < looks[2]["at"]
            # A control plane that goes away for a while does not end the watch.
            await desk.control.plane._server.stop(0)
            while "error" not in (look := json.loads(await process.stdout.readline())):
                assert look["nodes"]
            assert look["error"]["reason"] == "UNREACHABLE"
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_on_a_terminal_the_table_is_live_until_ctrl_c(desk: Desk) -> None:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control.cli.main", "top", "--every", "0.2", "--profile", desk.profile,
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        async with asyncio.timeout(DEADLINE_S * 3):
            while shown.count(b"board answers") < 3:
                shown += await asyncio.to_thread(os.read, ours, 65_536)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert b"fra-1" in shown
        assert shown.count(b"\x1b[1A") > 2  # redrawn in its place
    finally:
        os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_map_shows_what_may_flow_and_what_did(desk: Desk, tmp_path: Path) -> None:
    await serve_some(desk)
    svg = tmp_path / "map.svg"
    found = await desk.json("map", "--svg", svg)
    pairs = {(pair["from"], pair["to"]): pair for pair in found["pairs"]}
    assert found["flows_read"]["unread"] == {}
    assert pairs["DE", "DE"]["classes"]["special-category"]["flows"] == {"infer": 3}
    assert pairs["DE", "DE"]["flows_not_permitted_now"] == 0
    assert pairs["DE", "FR"]["classes"]["internal"]["permitted"] != "no"
    assert pairs["DE", "FR"]["flows"] == 0
    assert svg.stat().st_mode & 0o777 == 0o600
    root = ElementTree.fromstring(svg.read_text())
    assert "Germany may send up to special-category to Germany" in "".join(root.itertext())
    code, _, err = await desk.run("map", "--svg", svg)
    assert (code, err.count("\n")) == (1, 1)  # nothing is overwritten
    text = await desk.text("map", "--svg", svg, "--force", "--class", "special-category")
    assert text.splitlines()[0].split() == ["FROM", "TO", "SPECIAL-CATEGORY"]
    assert "some 3" in text


async def test_what_flowed_and_may_no_longer_is_told(desk: Desk, tmp_path: Path) -> None:
    await serve_some(desk)
    closed = tmp_path / "closed.cedar"
    closed.write_text('@id("closed") forbid (principal, action, resource);')
    code, _, _ = await desk.run("policy", "apply", closed, "--no-diff")
    assert code == 0
    found = await desk.json("map")
    assert found["flows_not_permitted_now"] > 0
    assert "flows could not go that way now" in await desk.text("map")
    by_node = await desk.json("map", "--by", "node", "--action", "infer")
    pairs = {(pair["from"], pair["to"]): pair for pair in by_node["pairs"]}
    assert pairs["DE", FRA]["flows"] == found["flows_not_permitted_now"]


async def test_a_log_that_cannot_be_read_does_not_hide_the_rest(desk: Desk) -> None:
    await desk.mesh["DE"].node("fra-2")  # it shows nobody its log
    await desk.control.plane.board.wait_for(lambda s: len(s.candidates) == 3, DEADLINE_S)
    await serve_some(desk)
    found = await desk.json("map")
    assert list(found["flows_read"]["unread"]) == ["fra-2"]
    assert "the log of fra-2 could not be read" in await desk.text("map")


async def test_wrong_usage_says_so(desk: Desk, tmp_path: Path) -> None:
    for arguments in (
        ("--policies", "de=x.cedar"),
        ("--no-logs", "--node", "fra-1"),
        ("--from", "yesterday"),
    ):
        code, _, err = await desk.run("map", *arguments)
        assert (code, err.count("\n")) == (2, 1), arguments
