"""Nodes that go out of service and come back under their callers: cordoned, drained, cut off, restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from mesh.client import (
    FailedOver,
    Finished,
    MeshClient,
    Mode,
    Placed,
    RequestContext,
    Sampling,
    Token,
    collect,
)
from mesh.core.errors import MeshError, Reason
from mesh.core.records import RecordKey, RecordType
from mesh.evidence import MemoryDecisionLog
from mesh.store.base import WatchBatch
from mesh.store.memory import MemoryBoard, MemoryStore
from node.engine.scripted import Script, ScriptedEngine
from node.runtime import NodeParts, NodeRuntime
from tests.support.control import client_of
from tests.support.mesh import Mesh, Node, context, mesh_of

PUBLIC = RequestContext.of(["public"], "press/leaflet")
LONG = Sampling(max_tokens=60, ignore_eos=True)
DEADLINE_S = 20.0

pytestmark = pytest.mark.slow


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """One authority with two nodes that speak 100 tokens a second."""
    async with mesh_of(tmp_path, "DE") as mesh:
        for name in ("fra-1", "fra-2"):
            await mesh["DE"].node(name, script=Script(per_token_s=0.01))
        yield mesh


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[MeshClient]:
    async with client_of(mesh, "DE/firm/desk") as client:
        yield client


async def cordon(mesh: Mesh, node: Node) -> int:
    """Returns once the node has said that it goes by the facts that cordon it; their generation."""
    authority = mesh["DE"]
    await authority.state_facts(node.id.name, cordoned=True)
    board = authority.board
    generation = board.generation(RecordKey(authority.trust_domain, RecordType.FACTS, node.id.name))
    await board.wait_for(
        lambda _: node.id in board.statuses and board.statuses[node.id].facts_generation == generation,
        DEADLINE_S,
    )
    return generation


async def test_from_the_moment_that_a_node_acknowledges_its_cordon_its_calls_only_end(mesh: Mesh):
    node, clinic, board = mesh["DE"].nodes["fra-1"], mesh["DE"].caller("clinic"), mesh["DE"].board
    asked = context(["public"])
    stream = clinic.stream(node, asked)
    await stream.until_token()
    permit = clinic.permit(node, asked)
    await cordon(mesh, node)
    assert board.statuses[node.id].running == 1
    with pytest.raises(MeshError) as caught:
        await clinic.chat(node, asked, permit=permit)
    assert caught.value.reason is Reason.NODE_CORDONED
    assert (await stream.next()).delta.text, "what runs goes on"
    stream.cancel()
    await board.wait_for(lambda _: board.statuses[node.id].running == 0, DEADLINE_S)
    assert node.engine.seen == 1


async def test_what_was_permitted_before_a_cordon_goes_elsewhere(mesh: Mesh, client: MeshClient):
    stream = client.chat("scripted", "hello", context=PUBLIC, sampling=LONG)
    placed = await anext(stream)
    assert isinstance(placed, Placed)
    first, second = (mesh["DE"].nodes[ranked.node.name] for ranked in placed.decision.ranked)
    await cordon(mesh, first)
    events = [event async for event in stream]
    moved = [event for event in events if isinstance(event, FailedOver)]
    assert [(each.from_node, each.mode, each.reason) for each in moved] == [
        (first.id, Mode.FRESH, Reason.NODE_CORDONED)
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].node == second.id
    assert first.engine.seen == 0


async def test_what_outlives_the_grace_is_cut_off_and_goes_on_elsewhere(mesh: Mesh, client: MeshClient):
    undisturbed = await collect(client.chat("scripted", "hello", context=PUBLIC, sampling=LONG))
    stream, text, moved = client.chat("scripted", "hello", context=PUBLIC, sampling=LONG), "", []
    ending: asyncio.Task[None] | None = None
    async for event in stream:
        if isinstance(event, Token):
            text += event.text
            if ending is None:
                node = next(each for each in mesh["DE"].nodes.values() if each.engine.active)
                ending = asyncio.create_task(node.runtime.drain(0.05))
        elif isinstance(event, FailedOver):
            moved.append((event.mode, event.reason))
    assert ending is not None
    await ending
    assert moved == [(Mode.RESUMED, Reason.DRAINING)]
    assert text == undisturbed.text
    cuts = [entry for entry in node.entries if entry["kind"] == "cut"]
    assert [entry["reason"] for entry in cuts] == [Reason.DRAINING.code]


class LateStore(MemoryStore):
    """One whose first listing takes a while."""

    def __init__(self, board: MemoryBoard) -> None:
        super().__init__(board)
        self.asked, self.release = asyncio.Event(), asyncio.Event()

    async def watch(self, prefix: str) -> AsyncGenerator[WatchBatch]:
        self.asked.set()
        await self.release.wait()
        async for batch in super().watch(prefix):
            yield batch


async def test_a_node_that_has_just_started_refuses_nobody_for_not_knowing_the_others(mesh: Mesh):
    """It would say that no node is available, which callers take for an answer."""
    authority, store = mesh["DE"], LateStore(mesh.board)
    runtime = NodeRuntime(
        NodeParts(
            source=authority.identity.source("/node/fra-3", mesh.bundles),
            store=store,
            engine=ScriptedEngine(script=Script(start_s=3600)),
            log=(log := MemoryDecisionLog()),
            listen=("127.0.0.1:0",),
            clock=mesh.clock,
        )
    )
    starting = asyncio.create_task(runtime.start())
    try:
        await store.asked.wait()
        node = Node(runtime, ScriptedEngine(), log)
        asking = asyncio.create_task(authority.caller("clinic").place(context(["public"]), at=node))
        await asyncio.wait([asking], timeout=0.2)
        store.release.set()
        placed = await asking
        assert placed.decision.permitted, placed.decision
    finally:
        await starting
        await runtime.stop()
