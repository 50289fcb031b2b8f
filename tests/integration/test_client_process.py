"""The SDK against a node that is a process: what SIGKILL and SIGSTOP look like from the caller's side."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.client import Event, MeshClient, MeshError, Reason, RequestContext, Sampling, Token, collect
from mesh.sdk.placers import Server
from mesh.sync_client import SyncMeshClient
from tests.support.node_process import NodeProcess, node_process

SPECIAL = RequestContext.of(["special-category"], "care/triage")
LONG = Sampling(max_tokens=8192, ignore_eos=True)
DEADLINE_S = 20.0

pytestmark = pytest.mark.slow


def client_of(node: NodeProcess, silence_s: float) -> MeshClient:
    source = node.mesh["DE"].identity.source("/client/clinic", node.mesh.bundles)
    return MeshClient(source, [Server(node.id, node.endpoint)], silence_s=silence_s)


async def until_token(stream: AsyncIterator[Event]) -> None:
    async for event in stream:
        if isinstance(event, Token):
            return


async def read_on(stream: AsyncIterator[Event]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async for _ in stream:
            pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_node_that_dies_or_hangs_is_lost_within_seconds(tmp_path: Path, number: signal.Signals):
    async with node_process(tmp_path) as node, client_of(node, silence_s=1.0) as client:
        async with aclosing(client.chat("scripted", "x", context=SPECIAL, sampling=LONG)) as stream:
            await until_token(stream)
            node.process.send_signal(number)
            began = time.monotonic()
            with pytest.raises(MeshError) as failure:
                await read_on(stream)
        took = time.monotonic() - began
        if number is signal.SIGSTOP:
            node.process.send_signal(signal.SIGCONT)
    assert failure.value.reason is Reason.NODE_LOST
    assert str(node.id) in failure.value.message
    assert took < 15.0


async def test_without_an_event_loop(tmp_path: Path):
    async with node_process(tmp_path) as node:
        source = node.mesh["DE"].identity.source("/client/clinic", node.mesh.bundles)

        def in_a_program() -> tuple[str, int, int]:
            client = MeshClient(source, [Server(node.id, node.endpoint)])
            with SyncMeshClient(client) as mesh:
                short = Sampling(max_tokens=8, ignore_eos=True)
                text = "".join(
                    event.text
                    for event in mesh.chat("scripted", "x", context=SPECIAL, sampling=short)
                    if isinstance(event, Token)
                )
                stream = mesh.chat("scripted", "x", context=SPECIAL, sampling=LONG)
                next(stream)
                stream.close()
                vectors = mesh.embed(["eins"], context=SPECIAL).vectors
                models = mesh.list_models()
                mesh.place(SPECIAL, model="scripted")
                return text, len(vectors), len(models)

        text, vectors, models = await asyncio.to_thread(in_a_program)
        assert text
        assert (vectors, models) == (1, 1)
        async with client_of(node, 5.0) as client:
            done = await collect(
                client.complete("scripted", "x", context=SPECIAL, sampling=Sampling(max_tokens=4))
            )
            assert done.finished.node == node.id
