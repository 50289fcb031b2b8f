"""Permitted nodes that misbehave: the SDK bounds and checks what they answer, and moves on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.client import (
    Event,
    FailedOver,
    Finished,
    MeshClient,
    MeshError,
    Mode,
    Reason,
    RequestContext,
    Sampling,
    Token,
    collect,
)
from sovereign.mesh.v1 import inference_pb2
from tests.support.control import client_of
from tests.support.fake_node import FakeNode, delta, fake_node, finished
from tests.support.mesh import Mesh, Node, mesh_of

CONFIDENTIAL = RequestContext.of(["confidential"], "contracts/review")
SHORT = Sampling(max_tokens=8, ignore_eos=True)
DEADLINE_S = 20.0

pytestmark = pytest.mark.slow


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR") as mesh:
        await mesh["DE"].node("fra-1")
        yield mesh


@pytest.fixture
def honest(mesh: Mesh) -> Node:
    return mesh["DE"].nodes["fra-1"]


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[MeshClient]:
    async with client_of(mesh, "DE/firm", silence_s=0.5) as client:
        yield client


async def events_of(client: MeshClient, sampling: Sampling = SHORT) -> list[Event]:
    async with asyncio.timeout(DEADLINE_S):
        stream = client.chat("scripted", "a contract", context=CONFIDENTIAL, sampling=sampling)
        return [event async for event in stream]


async def endless(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    while True:
        yield delta("x")


async def endless_without_tokens(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    while True:
        yield delta("", 0)


async def huge_text(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    yield delta("x" * 1_000_000)


async def text_before_start(node: FakeNode) -> AsyncIterator[Any]:
    yield delta("x")


async def as_somebody_else(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started("spiffe://de.mesh.example/node/other")


async def started_twice(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    yield node.started()


async def no_end(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    yield delta("x")


async def an_end_that_does_not_fit(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    yield delta("x")
    yield finished(10_000)


async def unknown_reason(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    yield finished(0, "because")


async def nothing_inside(node: FakeNode) -> AsyncIterator[Any]:
    yield inference_pb2.ChatResponse()


async def silent(node: FakeNode) -> AsyncIterator[Any]:
    yield node.started()
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    "misbehave",
    [
        endless,
        endless_without_tokens,
        huge_text,
        text_before_start,
        as_somebody_else,
        started_twice,
        no_end,
        an_end_that_does_not_fit,
        unknown_reason,
        nothing_inside,
        silent,
    ],
)
async def test_a_node_that_breaks_the_protocol_is_left_for_an_honest_one(
    mesh: Mesh, honest: Node, client: MeshClient, misbehave: Callable[[FakeNode], AsyncIterator[Any]]
):
    async with fake_node(mesh, "DE", "a-odd") as odd:
        odd.chat = lambda _request: misbehave(odd)
        seen = await events_of(client)
    (moved,) = [event for event in seen if isinstance(event, FailedOver)]
    assert moved.from_node == odd.id
    assert moved.to_node == honest.id
    assert moved.reason is Reason.NODE_LOST
    assert moved.kept_tokens == 0
    assert isinstance(seen[-1], Finished)
    after = seen[seen.index(moved) :]
    assert (
        sum(e.tokens for e in after if isinstance(e, Token)) == SHORT.max_tokens == seen[-1].completion_tokens
    )
    # Nothing that broke a bound reached the caller.
    before = [e for e in seen[: seen.index(moved)] if isinstance(e, Token)]
    assert sum(e.tokens for e in before) <= SHORT.max_tokens
    assert all(len(e.text) < 10_000 for e in before)


async def test_another_model_next_means_that_the_text_is_discarded(
    mesh: Mesh, honest: Node, client: MeshClient
):
    """The digests differ, so what was delivered does not fit: the caller is told to discard it."""

    async def dies(odd: FakeNode) -> AsyncIterator[Any]:
        yield odd.started()
        for word in ("one ", "two ", "three "):
            yield delta(word)
        raise ConnectionResetError

    async with fake_node(mesh, "DE", "a-odd") as odd:
        odd.chat = lambda _request: dies(odd)
        stream = client.chat("scripted", "a contract", context=CONFIDENTIAL, sampling=SHORT)
        done = await collect(stream)
    (moved,) = done.failovers
    assert moved.mode is Mode.RESTARTED
    assert (moved.kept_tokens, moved.discarded_tokens) == (0, 3)
    assert "two" not in done.text
    assert honest.engine.prompts[-1].resume_text == ""
    assert done.finished.completion_tokens == SHORT.max_tokens


async def test_the_last_token_came_and_then_the_node_was_lost(mesh: Mesh, client: MeshClient):
    async def dies_late(odd: FakeNode) -> AsyncIterator[Any]:
        yield odd.started()
        for _ in range(SHORT.max_tokens):
            yield delta("x")
        raise ConnectionResetError

    async with fake_node(mesh, "DE", "a-odd") as odd:
        odd.chat = lambda _request: dies_late(odd)
        done = await collect(client.chat("scripted", "x", context=CONFIDENTIAL, sampling=SHORT))
    assert done.failovers == ()
    assert done.finished.reason == "length"
    assert done.text == "x" * SHORT.max_tokens


async def test_I1_whoever_shows_another_name_gets_no_payload(mesh: Mesh, honest: Node, client: MeshClient):
    """A FR node that took over the DE node's address has a certificate, and not that one."""
    impostor = mesh["FR"].identity.source("/node/par-9", mesh.bundles)
    async with fake_node(mesh, "DE", "a-odd", served_as=impostor) as odd:
        done = await collect(client.chat("scripted", "x", context=CONFIDENTIAL, sampling=SHORT))
        assert odd.seen == 0
    assert done.finished.node == honest.id
    assert done.failovers[0].reason in (Reason.IDENTITY_UNTRUSTED, Reason.UNREACHABLE)


async def test_I1_nor_does_another_node_of_the_same_authority(mesh: Mesh, honest: Node, client: MeshClient):
    impostor = mesh["DE"].identity.source("/node/odd-2", mesh.bundles)
    async with fake_node(mesh, "DE", "a-odd", served_as=impostor) as odd:
        done = await collect(client.chat("scripted", "x", context=CONFIDENTIAL, sampling=SHORT))
        assert odd.seen == 0
    assert done.finished.node == honest.id


def vectors(*found: list[float]) -> Callable[[FakeNode], Any]:
    def answer(odd: FakeNode) -> Any:
        return inference_pb2.EmbedResponse(
            embeddings=[inference_pb2.Embedding(values=v) for v in found], model_digest="x", node=str(odd.id)
        )

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        vectors(),
        vectors([1.0]),
        vectors([1.0], [1.0], [1.0]),
        vectors([1.0, 0.0], [1.0]),
        vectors([], []),
        vectors([math.nan, 0.0], [1.0, 0.0]),
        vectors([math.inf, 0.0], [1.0, 0.0]),
        vectors([0.5, 0.0], [1.0, 0.0]),
        lambda odd: inference_pb2.EmbedResponse(node="spiffe://de.mesh.example/node/other"),
    ],
)
async def test_malformed_embeddings_are_not_handed_on(
    mesh: Mesh, honest: Node, client: MeshClient, answer: Callable[[FakeNode], Any]
):
    async with fake_node(mesh, "DE", "a-odd") as odd:
        odd.embed = lambda _request: answer(odd)
        found = await client.embed(["eins", "zwei"], context=CONFIDENTIAL)
        assert odd.seen == 1
    assert found.node == honest.id
    assert len(found.vectors) == 2


async def test_when_nobody_honest_is_left_the_error_says_who_was_tried(
    mesh: Mesh, honest: Node, client: MeshClient
):
    honest.engine.die()
    async with fake_node(mesh, "DE", "a-odd") as odd:
        odd.chat = lambda _request: no_end(odd)
        with pytest.raises(MeshError) as failure:
            await events_of(client)
    assert failure.value.reason is Reason.NODE_LOST
    assert str(odd.id) in failure.value.message
