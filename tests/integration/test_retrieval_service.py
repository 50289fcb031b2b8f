"""Retrieval near the wire: what is refused before a question goes anywhere, and peers that lie."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.client import MeshClient, MeshError, Reason, RequestContext, collect_search
from mesh.codec.search import admission_to_pb
from mesh.core.retrieval import Outcome
from mesh.core.types import Action
from mesh.identity.tls import server_credentials
from mesh.rpc.status import from_rpc_error
from mesh.sync_client import SyncMeshClient
from sovereign.mesh.v1 import retrieval_pb2, retrieval_pb2_grpc
from tests.support.caller import Caller
from tests.support.federation import COLLECTION, INTERNAL, Federation, federation_of
from tests.support.mesh import DEADLINE_S

pytestmark = pytest.mark.slow

TEXTS = {"DE": {"de-1": "The pump is new."}, "FR": {"fr-1": "The pump leaks."}}


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation_of(tmp_path, TEXTS) as federation:
        yield federation


def permit(there: Federation, caller: Caller, asked: RequestContext = INTERNAL, **more: Any) -> bytes:
    return caller.permit(there.nodes["DE"], asked, **{"action": Action.SEARCH, "model": COLLECTION, **more})


async def send(
    there: Federation, caller: Caller, permit: bytes, asked: RequestContext = INTERNAL, **words: Any
) -> list[Any]:
    """A Search as bytes on the wire; raises MeshError."""
    stub: Any = retrieval_pb2_grpc.RetrievalStub(caller.channel(there.nodes["DE"]))  # type: ignore[no-untyped-call]
    request = retrieval_pb2.SearchRequest(
        admission=admission_to_pb(permit, asked),
        **{"collection": COLLECTION, "query": "secret pump", **words},
    )
    try:
        return [event async for event in stub.Search(request, timeout=DEADLINE_S)]
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


def nothing_was_asked(there: Federation) -> bool:
    return not any(e["kind"] == "shard" for e in there.nodes["FR"].entries) and not any(
        e["kind"] == "release" for e in there.nodes["DE"].entries
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"query": ""}, Reason.REQUEST_INVALID),
        ({"query": "x" * 8193}, Reason.REQUEST_INVALID),
        ({"query": "secret\x00pump"}, Reason.REQUEST_INVALID),
        ({"query": "secret" * 20_000}, Reason.REQUEST_TOO_LARGE),
        ({"k": 10**6}, Reason.REQUEST_INVALID),
        ({"collection": "other"}, Reason.PERMIT_WRONG_MODEL),
        (
            {"filters": [retrieval_pb2.Filter(field="tenant", any_of=["other"])]},
            Reason.FILTER_UNKNOWN,
        ),
    ],
)
async def test_bad_questions_are_refused_and_recorded(
    there: Federation, words: dict[str, Any], reason: Reason
):
    caller = there.mesh["DE"].caller("firm/desk")
    with pytest.raises(MeshError) as refused:
        await send(there, caller, permit(there, caller), **words)
    assert refused.value.reason is reason
    assert "secret" not in refused.value.message, "I1: no error quotes the question"
    last = there.nodes["DE"].entries[-1]
    assert (last["kind"], last["outcome"], last["reason"]) == ("search", "refused", reason.code)
    assert "secret" not in str(there.nodes["DE"].entries)
    assert nothing_was_asked(there)


async def test_bytes_that_are_no_utf_8_are_no_question(there: Federation):
    caller = there.mesh["DE"].caller("firm/desk")
    good = retrieval_pb2.SearchRequest(
        admission=admission_to_pb(permit(there, caller), INTERNAL), collection=COLLECTION, query="pump!"
    ).SerializeToString()
    raw = caller.channel(there.nodes["DE"]).unary_stream("/sovereign.mesh.v1.Retrieval/Search")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in raw(good.replace(b"pump!", b"pum\xff\xfe"), timeout=DEADLINE_S):
            pass
    assert from_rpc_error(refused.value).reason is Reason.REQUEST_INVALID


async def test_a_permit_is_for_one_question_of_one_caller(there: Federation):
    """I2: for search, for this collection, this context, once."""
    mesh = there.mesh
    caller, other = mesh["DE"].caller("firm/desk"), mesh["DE"].caller("firm/cellar")
    once = permit(there, caller)
    assert await send(there, caller, once)
    personal = RequestContext.of(["personal"], "care/triage")
    wrong: list[tuple[Callable[[], Any], Reason]] = [
        (lambda: send(there, caller, once), Reason.PERMIT_REPLAYED),
        (lambda: send(there, other, permit(there, caller)), Reason.PERMIT_WRONG_CALLER),
        (lambda: send(there, caller, permit(there, caller), personal), Reason.PERMIT_WRONG_CONTEXT),
        (lambda: send(there, caller, permit(there, caller, action=Action.INFER)), Reason.PERMIT_WRONG_ACTION),
        (lambda: send(there, caller, b"\x0a\x01x"), Reason.PERMIT_MALFORMED),
    ]
    for ask, reason in wrong:
        with pytest.raises(MeshError) as refused:
            await ask()
        assert refused.value.reason is reason


async def test_clients_of_other_authorities_ask_their_own_nodes(there: Federation):
    foreign = there.mesh["FR"].caller("cabinet/desk")
    with pytest.raises(MeshError) as refused:
        await send(there, foreign, permit(there, foreign))
    assert refused.value.reason is Reason.IDENTITY_NOT_ALLOWED
    node = there.mesh["DE"].caller("/node/fra-9")
    with pytest.raises(MeshError) as refused:
        await send(there, node, permit(there, node))
    assert refused.value.reason is Reason.IDENTITY_NOT_ALLOWED


async def test_what_cannot_be_recorded_is_not_asked(there: Federation):
    """I7."""
    caller = there.mesh["DE"].caller("firm/desk")
    allowed = permit(there, caller)
    there.nodes["DE"].log.full = True  # type: ignore[attr-defined]
    with pytest.raises(MeshError) as refused:
        await send(there, caller, allowed)
    assert refused.value.reason is Reason.EVIDENCE_UNAVAILABLE
    there.nodes["DE"].log.full = False  # type: ignore[attr-defined]
    assert nothing_was_asked(there)


async def test_a_policy_withdrawn_ends_who_is_asked(there: Federation):
    """I1: from the very next question on, without a restart."""
    assert (await collect_search(there.client.search("pump", COLLECTION, context=INTERNAL))).complete
    await there.mesh["DE"].apply_policy(
        '@id("home") permit (principal, action, resource in Jurisdiction::"DE");'
    )
    await there.mesh.settled()
    result = await collect_search(there.client.search("pump", COLLECTION, context=INTERNAL))
    assert [each.outcome for each in result.coverage] == [Outcome.ANSWERED, Outcome.NOT_ASKED]
    assert {hit.reference.node for hit in result.hits} == {there.nodes["DE"].id}


class HostileShard(retrieval_pb2_grpc.ShardServicer):
    """Answers every step with what the test wants."""

    def __init__(self) -> None:
        self.answer = retrieval_pb2.ShardSearchResponse()

    async def Search(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield self.answer


@contextlib.asynccontextmanager
async def taken_over(there: Federation, country: str) -> AsyncIterator[HostileShard]:
    """The node of this country, replaced by one that has its certificate and keeps no rules."""
    node, hostile = there.nodes[country], HostileShard()
    await node.runtime.server.stop(0)
    server = grpc.aio.server()
    retrieval_pb2_grpc.add_ShardServicer_to_server(hostile, server)  # type: ignore[no-untyped-call]
    assert server.add_secure_port(node.endpoint, server_credentials(node.runtime.parts.source))
    await server.start()
    try:
        yield hostile
    finally:
        await server.stop(0)


LIES: list[retrieval_pb2.ShardOpened] = [
    retrieval_pb2.ShardOpened(documents=1, frequencies=[2]),
    retrieval_pb2.ShardOpened(documents=2**60, frequencies=[0]),
    retrieval_pb2.ShardOpened(documents=5, frequencies=[1, 1, 1]),
    retrieval_pb2.ShardOpened(
        documents=5, frequencies=[1],
        by_vector=retrieval_pb2.ShardRanked(ids=b"x" * 16, scores=[float("inf")]),
    ),
    retrieval_pb2.ShardOpened(
        documents=5, frequencies=[1], by_vector=retrieval_pb2.ShardRanked(ids=b"x" * 32, scores=[0.5, 0.5])
    ),
    retrieval_pb2.ShardOpened(
        documents=5, frequencies=[1],
        by_vector=retrieval_pb2.ShardRanked(
            ids=b"".join(i.to_bytes(16, "big") for i in range(101)), scores=[0.5] * 101
        ),
    ),
    retrieval_pb2.ShardOpened(documents=5, frequencies=[1], highest=9),  # type: ignore[arg-type]
]  # fmt: skip


async def test_a_hostile_node_costs_only_itself(there: Federation):
    alone = [hit for hit in (await ask_hybrid(there)).hits if hit.reference.node == there.nodes["DE"].id]
    async with taken_over(there, "FR") as hostile:
        for lie in LIES:
            hostile.answer = retrieval_pb2.ShardSearchResponse(opened=lie)
            result = await ask_hybrid(there)
            outcomes = {each.node: (each.outcome, each.reason) for each in result.coverage}
            assert outcomes[there.nodes["FR"].id] == (Outcome.FAILED, Reason.PEER_MISBEHAVED)
            assert outcomes[there.nodes["DE"].id] == (Outcome.ANSWERED, None)
            assert [hit.reference for hit in result.hits] == [hit.reference for hit in alone]
            assert not result.complete


async def ask_hybrid(there: Federation) -> Any:
    return await collect_search(
        there.client.search("pump", COLLECTION, context=INTERNAL, level="passage", timeout_s=20)
    )


async def test_the_blocking_client_asks_the_same(there: Federation):
    inner = there.client

    def blocking() -> tuple[list[Any], Any, list[Any]]:
        with SyncMeshClient(MeshClient(inner._source, inner._servers)) as client:
            found = list(client.search("pump", COLLECTION, context=INTERNAL, level="passage", timeout_s=20))
            passage = client.fetch(found[-1].hits[0].reference, context=INTERNAL)
            said = list(client.answer("What does the pump do?", COLLECTION, context=INTERNAL))
            return found, passage, said

    found, passage, said = await asyncio.to_thread(blocking)
    assert found[-1].complete
    assert passage.released.text == found[-1].hits[0].released.text
    assert said[-1].complete
