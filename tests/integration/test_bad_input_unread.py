"""A caller that asks and does not read: what waits for it is bounded, and nobody else is held up.

Found by attack: 200 embedding calls on one connection that made room for no byte kept 275 MB for as long
as the connection stayed, and a connection has room for 1,024 calls.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action
from mesh.rpc import unread
from mesh.rpc.status import from_rpc_error
from mesh.rpc.unread import MIB, UnreadAnswers
from sovereign.mesh.v1 import inference_pb2
from tests.support.mesh import DEADLINE_S, Caller, Mesh, Node, context, mesh_of
from tests.support.raw_tls import NO_ROOM_SETTINGS, connect, context_of, unary_request

PUBLIC = context(["public"])
EMBED = "/sovereign.mesh.v1.Inference/Embed"
ANSWER_BYTES = 256 * 384 * 4


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR") as mesh:
        yield mesh


def request(caller: Caller, node: Node) -> inference_pb2.EmbedRequest:
    placer = node.runtime.parts.source
    permit = caller.permit(node, PUBLIC, by=placer, action=Action.EMBED, model="")
    admission = inference_pb2.Admission(
        context=codec.context_to_pb(PUBLIC), permit=codec.envelope_from_bytes(permit)
    )
    return inference_pb2.EmbedRequest(admission=admission, texts=["x"] * 256)


async def ask_without_reading(mesh: Mesh, node: Node, caller: Caller, folder: Path) -> ssl.SSLSocket:
    tls = context_of(folder, caller.source.svid)
    connection = await asyncio.to_thread(connect, node.endpoint, tls, None, NO_ROOM_SETTINGS)
    mesh.on_close(lambda: asyncio.to_thread(connection.close))
    for number in range(24):
        message = request(caller, node).SerializeToString()
        await asyncio.to_thread(connection.sendall, unary_request(EMBED, message, 2 * number + 1))
    return connection


@pytest.mark.slow
async def test_unread_answers_are_bounded_by_caller_and_given_up_with_the_connection(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unread, "MAX_BYTES_BY_IDENTITY", 4 * ANSWER_BYTES)
    node = await mesh["DE"].node("fra-1", capacity=1)  # one after the other
    miser = mesh["DE"].caller("miser")
    connection = await ask_without_reading(mesh, node, miser, tmp_path)
    async with asyncio.timeout(DEADLINE_S):
        while await answered(miser, node):
            pass  # until what it sent has been taken in
        await node.idle()
    # others, also of the same authority, are served
    assert await answered(mesh["DE"].caller("clinic"), node)
    assert await answered(mesh["FR"].caller("firm"), node)
    # what was never read goes with its connection
    await asyncio.to_thread(connection.close)
    async with asyncio.timeout(DEADLINE_S):
        while not await answered(miser, node):
            pass


async def answered(caller: Caller, node: Node) -> bool:
    """Whether an embedding is answered; else it is refused for what is lying there, with a hint."""
    try:
        answer = await caller.inference(node).Embed(request(caller, node))
    except grpc.RpcError as refused:
        error = from_rpc_error(refused)
        if error.reason is not Reason.OVERLOADED or not error.retry_after_s:
            raise error from None
        return False
    return len(answer.embeddings) == 256


def test_one_trust_domain_never_takes_all():
    """An authority can make any number of identities."""
    waiting = UnreadAnswers()
    for number in range(64):
        waiting.add(f"spiffe://us.mesh.example/client/c{number}", MIB)
    with pytest.raises(MeshError) as caught:
        waiting.add("spiffe://us.mesh.example/client/c64", MIB)
    assert caught.value.reason is Reason.OVERLOADED
    assert waiting.total == unread.MAX_BYTES_BY_TRUST_DOMAIN
    waiting.add("spiffe://de.mesh.example/client/clinic", MIB)
    for number in range(64):
        waiting.remove(f"spiffe://us.mesh.example/client/c{number}", MIB)
    waiting.remove("spiffe://de.mesh.example/client/clinic", MIB)
    assert waiting.total == 0
    waiting.add("spiffe://us.mesh.example/client/c0", 40 * MIB)  # a single one always passes
    with pytest.raises(MeshError):
        waiting.require_room("spiffe://us.mesh.example/client/c0")
    waiting.require_room("spiffe://us.mesh.example/client/c1")
