"""A site is restarted node by node, and no call fails: what is new goes elsewhere, what runs finishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.client import Event, FailedOver, Mode, Reason, Sampling, Started, Token
from node.engine.base import Message, Prompt
from node.engine.base import Sampling as EngineSampling
from node.engine.scripted import ScriptedEngine
from tests.support.control import client_of
from tests.support.rolling import DEADLINE_S, PUBLIC, site_of

pytestmark = pytest.mark.slow

STREAMS = 16
TOKENS = 3000


async def test_a_rolling_restart_fails_no_call(tmp_path: Path):
    async with site_of(tmp_path, 3) as site:
        ports = [node.endpoint for node in site.nodes]
        async with site.load(streams=STREAMS) as load:
            for node in site.nodes:
                before = len(node.decisions)
                await site.restart(node)
                await load.until_served_by(node)
                assert len(node.decisions) > before > 0, "the log goes on where it was (I7)"
        assert load.failed == []
        assert load.finished > 3 * STREAMS
        assert set(load.served) == {node.id.name for node in site.nodes}
        assert [node.endpoint for node in site.nodes] == ports
        # Nothing that had begun was broken off: the grace was long enough for all of them.
        assert not [how for how in load.moved if "resumed" in how], load.moved


async def undisturbed() -> list[str]:
    """What the engine says from beginning to end."""
    engine = ScriptedEngine()
    await engine.start()
    prompt = Prompt(messages=(Message("user", "hello"),))
    sampling = EngineSampling(max_tokens=TOKENS, ignore_eos=True)
    return [piece.text async for piece in engine.generate("scripted", prompt, sampling)]


async def next_of(events: AsyncIterator[Event], kind: type, said: list[str]) -> Event:
    """The first of this kind; tokens on the way are kept."""
    async with asyncio.timeout(DEADLINE_S):
        async for event in events:
            if isinstance(event, Token):
                said.append(event.text)
            if isinstance(event, kind):
                return event
    raise AssertionError("the stream came to its end")


async def test_a_stream_that_outlives_every_node_is_resumed_and_comes_back_to_the_first(tmp_path: Path):
    async with site_of(tmp_path, 2, grace_s=0.1) as site, client_of(site.mesh, "DE/firm/desk") as client:
        nodes = {node.id: node for node in site.nodes}
        sampling, said = Sampling(max_tokens=TOKENS, ignore_eos=True), list[str]()
        stream = client.chat("scripted", "hello", context=PUBLIC, sampling=sampling)
        async with aclosing(stream):
            started = await next_of(stream, Started, said)
            assert isinstance(started, Started)
            where = [started.node]
            for _ in range(2):
                await next_of(stream, Token, said)
                restarting = asyncio.create_task(site.restart(nodes[where[-1]]))
                moved = await next_of(stream, FailedOver, said)
                assert isinstance(moved, FailedOver)
                assert (moved.mode, moved.reason) == (Mode.RESUMED, Reason.DRAINING)
                where.append(moved.to_node)
                await restarting
            await next_of(stream, Token, said)
        assert where[0] == where[2] != where[1]
        assert said == (await undisturbed())[: len(said)]
