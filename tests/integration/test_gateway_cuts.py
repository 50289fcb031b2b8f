"""Streams end when what permitted them does: revocation, withdrawn policies, stale records (I1, I4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action
from node.engine.scripted import Script
from tests.support.mesh import POLICIES, Mesh, Stream, context, mesh_of
from tests.support.waiting import until

PUBLIC = context(["public"])
CONFIDENTIAL = context(["confidential"])
TALKING = Script(per_token_s=0.01)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR") as made:
        await made["DE"].node("fra-1", script=Script(per_token_s=0.01))
        await made["FR"].node("par-1", script=Script(per_token_s=0.01))
        yield made


async def cut_within(stream: Stream, seconds: float) -> MeshError:
    began = time.monotonic()
    error = await stream.ends_with()
    assert time.monotonic() - began < seconds
    return error


@pytest.mark.slow
async def test_a_revoked_caller_is_cut_off_within_a_second(mesh: Mesh):
    node = mesh["DE"].nodes["fra-1"]
    revoked, other = mesh["DE"].caller("clinic"), mesh["DE"].caller("firm")
    cut, goes_on = revoked.stream(node, PUBLIC), other.stream(node, PUBLIC)
    await cut.until_token()
    await goes_on.until_token()
    await mesh["DE"].revoke(revoked.id)
    assert (await cut_within(cut, 1.0)).reason is Reason.IDENTITY_REVOKED
    await until(lambda: node.engine.active == 1)
    assert await goes_on.until_token()
    goes_on.cancel()
    cuts = [entry for entry in node.entries if entry["kind"] == "cut"]
    assert [entry["reason"] for entry in cuts] == [Reason.IDENTITY_REVOKED.code]
    assert cuts[0]["id"] in {entry["id"] for entry in node.entries if entry["kind"] == "serve"}


@pytest.mark.slow
async def test_revoking_one_certificate_spares_the_others_of_that_name(mesh: Mesh):
    node = mesh["DE"].nodes["fra-1"]
    old, new = mesh["DE"].caller("clinic"), mesh["DE"].caller("clinic")
    cut, goes_on = old.stream(node, PUBLIC), new.stream(node, PUBLIC)
    await cut.until_token()
    await goes_on.until_token()
    await mesh["DE"].revoke(serials=[old.source.svid.serial])
    assert (await cut_within(cut, 1.0)).reason is Reason.IDENTITY_REVOKED
    assert await goes_on.until_token()
    goes_on.cancel()


@pytest.mark.slow
async def test_who_waits_in_the_queue_is_cut_off_too(mesh: Mesh):
    node = await mesh["DE"].node("fra-2", capacity=1, script=Script(per_token_s=0.01))
    running, waiting = mesh["DE"].caller("firm"), mesh["DE"].caller("clinic")
    stream = running.stream(node, PUBLIC)
    await stream.until_token()
    queued = asyncio.create_task(waiting.chat(node, PUBLIC))
    await until(lambda: node.runtime.admission.queued == 1)
    await mesh["DE"].revoke(waiting.id)
    with pytest.raises(MeshError) as caught:
        await queued
    assert caught.value.reason is Reason.IDENTITY_REVOKED
    assert node.engine.seen == 1
    stream.cancel()


@pytest.mark.slow
async def test_a_withdrawn_policy_ends_streams_that_it_permitted_i1(mesh: Mesh):
    node = mesh["FR"].nodes["par-1"]
    firm = mesh["DE"].caller("firm")
    await mesh.settled()
    confidential, public = firm.stream(node, CONFIDENTIAL), firm.stream(node, PUBLIC)
    await confidential.until_token()
    await public.until_token()
    strict = (POLICIES / "de.cedar").read_text().replace('["internal", "confidential"]', '["internal"]')
    await mesh["DE"].apply_policy(strict)
    assert (await cut_within(confidential, 1.0)).reason is Reason.POLICY_SENDER_DENIES
    assert await public.until_token()  # still permitted, so not disturbed
    public.cancel()


@pytest.mark.slow
async def test_the_receivers_authority_can_end_it_as_well_i3(mesh: Mesh):
    node = mesh["FR"].nodes["par-1"]
    firm = mesh["DE"].caller("firm")
    await mesh.settled()
    stream = firm.stream(node, CONFIDENTIAL)
    await stream.until_token()
    await mesh["FR"].apply_policy('@id("home") permit (principal in Jurisdiction::"FR", action, resource);')
    assert (await cut_within(stream, 1.0)).reason is Reason.POLICY_RECEIVER_DENIES


@pytest.mark.slow
async def test_a_dropped_federation_ends_what_crosses_it(mesh: Mesh):
    node = mesh["FR"].nodes["par-1"]
    firm = mesh["DE"].caller("firm")
    await mesh.settled()
    stream = firm.stream(node, CONFIDENTIAL)
    await stream.until_token()
    await mesh["FR"].federate([])
    assert (await cut_within(stream, 1.0)).reason.is_policy


@pytest.mark.slow
async def test_a_cordon_lets_what_runs_finish(mesh: Mesh):
    node = mesh["DE"].nodes["fra-1"]
    clinic = mesh["DE"].caller("clinic")
    stream = clinic.stream(node, PUBLIC, max_tokens=40)
    await stream.until_token()
    await mesh["DE"].state_facts("fra-1", cordoned=True)
    await mesh.settled(node)
    while (event := await stream.next()) is not None:
        last = event
    assert last.finished.completion_tokens == 40


@pytest.mark.slow
async def test_records_that_grow_stale_end_what_crosses_the_border_i4(tmp_path: Path):
    ahead = [0.0]
    async with mesh_of(tmp_path, "DE", "FR", clock=lambda: time.time() + ahead[0]) as mesh:
        home = await mesh["DE"].node("fra-1", script=TALKING)
        away = await mesh["FR"].node("par-1", script=TALKING)
        firm = mesh["DE"].caller("firm")
        await mesh.settled()
        crossing, staying = firm.stream(away, CONFIDENTIAL), firm.stream(home, CONFIDENTIAL)
        await crossing.until_token()
        await staying.until_token()
        ahead[0] = 90.0
        assert (await cut_within(crossing, 3.0)).reason is Reason.RECORDS_STALE
        assert await staying.until_token()
        staying.cancel()


@pytest.mark.slow
async def test_a_certificate_that_runs_out_ends_its_streams(tmp_path: Path):
    ahead = [0.0]
    async with mesh_of(tmp_path, "DE", clock=lambda: time.time() + ahead[0]) as mesh:
        node = await mesh["DE"].node("fra-1", script=TALKING)
        clinic = mesh["DE"].caller("clinic", ttl_s=600)
        stream = clinic.stream(node, PUBLIC)
        await stream.until_token()
        ahead[0] = 700.0
        assert (await cut_within(stream, 3.0)).reason is Reason.IDENTITY_EXPIRED
        with pytest.raises(MeshError) as caught:
            await clinic.chat(node, PUBLIC, permit=clinic.permit(node, PUBLIC, action=Action.INFER))
        assert caught.value.reason is Reason.IDENTITY_EXPIRED
