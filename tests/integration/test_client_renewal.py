"""Certificates of callers: renewed while calls go on, and by meshctl on the way."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.cli.identity_files import write_identity
from control.cli.main import run
from mesh.client import MeshClient, RequestContext, Sampling, collect
from mesh.identity.svid import load_svid
from mesh.sdk.placers import Server
from mesh.sdk.profile import ControlPlane, Profile
from tests.support.control import RunningControl, control_of
from tests.support.mesh import Mesh, mesh_of
from tests.support.waiting import until

SPECIAL = RequestContext.of(["special-category"], "care/triage")

pytestmark = pytest.mark.slow


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR") as mesh:
        await mesh["DE"].node("fra-1")
        yield mesh


@pytest.fixture
async def control(mesh: Mesh, tmp_path: Path) -> AsyncIterator[RunningControl]:
    async with control_of(mesh["DE"].identity.ca, mesh.board, tmp_path / "control") as control:
        yield control


async def test_calls_go_on_while_the_certificate_is_renewed(mesh: Mesh, control: RunningControl):
    """Story step 11: a stream under way ends well, later calls use the new certificate, FR is learnt."""
    source = mesh["DE"].identity.source("/client/clinic")
    node = mesh["DE"].nodes["fra-1"]
    node.engine.script.per_token_s = 0.01
    assert set(source.bundles) == {"de.mesh.example"}
    async with MeshClient(source, [Server(node.id, node.endpoint)], control=control.server) as client:
        long = Sampling(max_tokens=60, ignore_eos=True)
        streaming = asyncio.create_task(collect(client.chat("scripted", "x", context=SPECIAL, sampling=long)))
        await until(lambda: node.engine.active == 1)
        old = source.svid.serial
        source.request_renewal()
        await until(lambda: source.svid.serial != old)
        assert set(source.bundles) == {"de.mesh.example", "fr.mesh.example"}
        again = await collect(client.chat("scripted", "y", context=SPECIAL))
        assert again.finished.node == node.id
        assert (await streaming).finished.completion_tokens == 60
    serials = {entry["serial"] for entry in node.entries if entry["kind"] == "place"}
    assert serials == {old, source.svid.serial}


async def test_meshctl_renews_a_certificate_that_is_half_used_up(
    mesh: Mesh, control: RunningControl, tmp_path: Path
):
    authority = mesh["DE"].identity
    profile = tmp_path / "profile"
    svid = authority.svid("/admin/first", 3600, time.time() - 2000)
    write_identity(profile / "identity", svid.chain, svid.key, [authority.bundle], svid.id)
    plane = ControlPlane(endpoint=control.plane.endpoint)
    Profile(trust_domain="de.mesh.example", control=plane).save(profile)

    def status() -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            return run(["status", "--profile", str(profile)])

    assert await asyncio.gather(*(asyncio.to_thread(status) for _ in range(4))) == [0, 0, 0, 0]
    renewed = load_svid(profile / "identity")
    assert renewed.id == svid.id
    assert renewed.serial != svid.serial
    assert await asyncio.to_thread(status) == 0
    assert load_svid(profile / "identity").serial == renewed.serial


async def test_meshctl_says_what_to_do_about_an_expired_one(mesh: Mesh, tmp_path: Path):
    authority = mesh["DE"].identity
    profile = tmp_path / "profile"
    svid = authority.svid("/client/clinic", 3600, time.time() - 3598)
    write_identity(profile / "identity", svid.chain, svid.key, [authority.bundle], svid.id)
    Profile(trust_domain="de.mesh.example", control=ControlPlane(endpoint="127.0.0.1:1")).save(profile)
    await until(lambda: time.time() > svid.not_after)
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        assert await asyncio.to_thread(run, ["status", "--profile", str(profile)]) == 1
    assert "IDENTITY_EXPIRED" in error.getvalue()
    assert error.getvalue().count("\n") == 1
