"""A node's index asked by other nodes: real TLS, permits, policies and evidence (I1 to I3, I7)."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.codec import retrieval as wire
from mesh.core.errors import Reason
from mesh.core.retrieval import AnswerSentence, Filters, ReleaseLevel
from mesh.core.shards import MAX_WEIGHS, ShardAnswerQuestion
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.evidence import MemoryDecisionLog
from node.retrieval.budgets import BudgetLimits
from node.streams import Streams
from sovereign.mesh.v1 import retrieval_pb2
from tests.support.mesh import Mesh, mesh_of
from tests.support.retrieval import SPEC
from tests.support.shard_server import INTERNAL, Asker, ShardServer, refusal, serving
from tests.support.waiting import DEADLINE_S, until

pytestmark = pytest.mark.slow

REFERENCE, SNIPPET, PASSAGE = ReleaseLevel.REFERENCE, ReleaseLevel.SNIPPET, ReleaseLevel.PASSAGE
PUMP = "Mr Karl Oppermann replaced the pump in ward three."
SEARCH = """
@id("search") permit (principal, action == Action::"search", resource)
when { context.dataClass == "internal" };
"""
PASSAGES = """
@id("release") permit (principal, action == Action::"release", resource)
when { context.dataClass == "internal" };
"""
REFERENCES = """
@id("release") permit (principal, action == Action::"release", resource)
when { context.dataClass == "internal" }
when { ["count", "reference"].contains(context.level) };
"""


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    policies = {"DE": SEARCH + PASSAGES, "FR": SEARCH + PASSAGES}
    async with mesh_of(tmp_path, "DE", "FR", policies=policies) as made:
        await made["DE"].node("fra-1")
        await made["FR"].node("par-1")
        await made.settled()
        yield made


@pytest.fixture
async def here(mesh: Mesh, tmp_path: Path) -> AsyncIterator[ShardServer]:
    async with serving(mesh["DE"].nodes["fra-1"], tmp_path) as made:
        made.put("d1", PUMP, title="Report of Mr Karl Oppermann", source="a/1")
        made.put("d2", "The pump is quiet.")
        yield made


@pytest.fixture
def paris(mesh: Mesh, here: ShardServer) -> Asker:
    return Asker(mesh, mesh["FR"].nodes["par-1"].runtime.parts.source, here)


FIRM = SpiffeId("fr.mesh.example", "/client/firm")
CLINIC = SpiffeId("de.mesh.example", "/client/clinic")


async def test_a_search_and_its_evidence(paris: Asker, here: ShardServer, written: io.StringIO):
    call = paris.search(FIRM)
    opened = await call.open()
    assert (opened.documents, opened.frequencies, opened.highest) == (2, (2,), PASSAGE)
    [served] = here.entries("shard")
    assert served["outcome"] == "served"  # on record before it was answered (I7)
    ranking = await call.weigh([1.0])
    batch = await call.release([each.id for each in ranking], PASSAGE)
    assert {chunk.text for chunk in batch.chunks} == {PUMP, "The pump is quiet."}
    assert batch.charged == 2
    await call.done()
    assert served["requester"] == str(FIRM)
    assert served["caller"] == str(paris.source.id)
    assert (served["model"], served["permit_outcome"], served["levels"]) == (
        SPEC.name,
        "accepted",
        {"passage": 1},
    )
    assert served["decision"]["permitted"]
    [released] = here.entries("release")
    assert (released["id"], released["released"], released["charged"]) == (served["id"], {"passage": 2}, 2)
    # What a record of flows needs: what it was of, for what, from where, and by whose decision it was asked.
    assert released["released_classes"] == ["internal"]
    assert released["context"] == served["context"]
    assert (released["location"], served["caller_location"]) == ("DE", "FR")
    assert released["asked"] == served["permit"]["decision"]
    kept = json.dumps(here.node.entries) + written.getvalue()
    for payload in ("pump", "Oppermann", "quiet", "a/1", *(each.id.hex() for each in ranking)):
        assert payload not in kept
    assert here.streams.open == 0


async def test_who_may_ask_and_for_whom(mesh: Mesh, paris: Asker, here: ShardServer):
    client = Asker(mesh, mesh["FR"].caller("firm").source, here)
    permit = client.admission(FIRM, by=paris.source)
    assert (await refusal(client.search(FIRM, admission=permit).open())).reason is Reason.IDENTITY_NOT_ALLOWED
    for requester in (CLINIC, paris.source.id, SpiffeId("us.mesh.example", "/client/firm")):
        error = await refusal(paris.search(requester).open())
        assert error.reason is Reason.IDENTITY_NOT_ALLOWED
    reasons = [(entry["outcome"], entry["reason"]) for entry in here.entries("shard")]
    assert reasons == [("refused", Reason.IDENTITY_NOT_ALLOWED.code)] * 4


async def test_the_permit_is_held_against_everything(mesh: Mesh, paris: Asker, here: ShardServer):
    other = SpiffeId("fr.mesh.example", "/client/other")
    wrong = {
        Reason.PERMIT_WRONG_CALLER: paris.admission(FIRM, caller=other),
        Reason.PERMIT_WRONG_MODEL: paris.admission(FIRM, collection="others"),
        Reason.PERMIT_WRONG_ACTION: paris.admission(FIRM, action=Action.INFER),
        Reason.PERMIT_WRONG_SIGNER: paris.admission(FIRM, by=mesh["FR"].caller("firm").source),
    }
    for reason, admission in wrong.items():
        assert (await refusal(paris.search(FIRM, admission=admission).open())).reason is reason
    missing = paris.admission(FIRM)
    missing.ClearField("permit")
    error = await refusal(paris.search(FIRM, admission=missing).open())
    assert error.reason is Reason.PERMIT_MISSING
    once = paris.admission(FIRM)
    call = paris.search(FIRM, admission=once)
    await call.open()
    error = await refusal(paris.search(FIRM, admission=once).open())
    assert error.reason is Reason.PERMIT_REPLAYED
    call.raw.cancel()


async def test_the_holder_decides_by_itself(paris: Asker, here: ShardServer):
    """I2: a permit alone opens nothing."""
    asked = RequestContext.of(["special-category"], "care/triage")
    error = await refusal(paris.search(FIRM, asked=asked).open())
    assert error.reason.is_policy
    [entry] = here.entries("shard")
    assert (entry["outcome"], entry["permit_outcome"]) == ("refused", "accepted")


async def test_steps_out_of_order(paris: Asker, here: ShardServer):
    weigh, release = wire.weigh_to_pb([1.0]), wire.release_to_pb([], PASSAGE)
    for first in (weigh, release, retrieval_pb2.ShardSearchRequest()):
        error = await refusal(paris.search(FIRM).step(first))
        assert error.reason is Reason.REQUEST_INVALID
    for second in (paris.search(FIRM).first, retrieval_pb2.ShardSearchRequest()):
        call = paris.search(FIRM)
        await call.open()
        assert (await refusal(call.step(second))).reason is Reason.REQUEST_INVALID
    call = paris.search(FIRM)
    await call.open()
    for _ in range(MAX_WEIGHS):
        await call.weigh([1.0])
    assert (await refusal(call.weigh([1.0]))).reason is Reason.REQUEST_INVALID
    call = paris.search(FIRM)
    opened = await call.open()
    error = await refusal(call.release([opened.by_vector[0].id, bytes(16)], PASSAGE))
    assert error.reason is Reason.REQUEST_INVALID
    assert here.entries("shard")[-1]["step"] == "release"
    assert here.entries("release") == []


async def test_bytes_that_are_no_step(paris: Asker, here: ShardServer):
    for at in (0, 1):
        stream: Any = paris.channel.stream_stream("/sovereign.mesh.v1.Shard/Search")()
        good = paris.search(FIRM).first.SerializeToString()
        for message in [good, b"\xff\xff"][1 - at :]:
            await stream.write(message)

        async def read(stream: Any = stream) -> None:
            async for _ in stream:
                pass

        assert (await refusal(read())).reason is Reason.REQUEST_INVALID
    large = paris.search(FIRM)
    large.first.open.collection_digest = "x" * 65 * 1024
    assert (await refusal(large.step(large.first))).reason is Reason.REQUEST_TOO_LARGE


async def test_an_asker_that_says_nothing_is_let_go(mesh: Mesh, tmp_path: Path):
    async with serving(mesh["DE"].nodes["fra-1"], tmp_path, step_timeout_s=0.2) as here:
        paris = Asker(mesh, mesh["FR"].nodes["par-1"].runtime.parts.source, here)
        silent = paris.search(FIRM)
        assert (await refusal(silent.answer())).reason is Reason.DEADLINE_EXCEEDED
        call = paris.search(FIRM)
        await call.open()
        assert (await refusal(call.answer())).reason is Reason.DEADLINE_EXCEEDED
        assert here.streams.open == 0


async def test_a_withdrawn_search_is_cut_off(mesh: Mesh, paris: Asker, here: ShardServer):
    call = paris.search(FIRM)
    await call.open()
    await mesh["DE"].apply_policy(PASSAGES)
    error = await refusal(call.answer())
    assert error.reason.is_policy
    [cut] = here.entries("cut")
    assert cut["id"] == here.entries("shard")[0]["id"]
    await until(lambda: here.streams.open == 0)


async def test_a_revoked_requester_is_cut_off(mesh: Mesh, paris: Asker, here: ShardServer):
    call = paris.search(FIRM)
    await call.open()
    await mesh["FR"].revoke(FIRM)
    assert (await refusal(call.answer())).reason is Reason.IDENTITY_REVOKED


async def test_a_node_that_is_revoked_before_it_asks_gets_no_answer(
    mesh: Mesh, paris: Asker, here: ShardServer, monkeypatch: pytest.MonkeyPatch
):
    call = paris.search(FIRM)
    silent = asyncio.Event()
    one = Streams.one

    def noted(streams: Streams, asker: str) -> Any:
        silent.set()
        return one(streams, asker)

    monkeypatch.setattr(Streams, "one", noted)
    waiting = asyncio.create_task(refusal(call.answer()))
    async with asyncio.timeout(DEADLINE_S):
        await silent.wait()
    await mesh["FR"].revoke(paris.source.id)
    await mesh.settled(here.node)
    await call.raw.write(call.first)
    assert (await waiting).reason is Reason.IDENTITY_REVOKED
    assert [entry["outcome"] for entry in here.entries("shard")] == ["refused"]


async def test_a_withdrawn_release_counts_at_once(mesh: Mesh, paris: Asker, here: ShardServer):
    """I1: policy withdrawn in the middle of a query."""
    call = paris.search(FIRM)
    opened = await call.open()
    ids = [each.id for each in opened.by_vector]
    await mesh["FR"].apply_policy(SEARCH + REFERENCES)  # the asker's own authority (I3)
    await mesh.settled(here.node)
    batch = await call.release(ids, PASSAGE)
    assert {(chunk.level, chunk.text, chunk.title) for chunk in batch.chunks} == {(REFERENCE, "", "")}
    assert batch.charged == 0
    await mesh["FR"].apply_policy(SEARCH)
    await mesh.settled(here.node)
    assert await call.weigh([1.0]) == ()
    assert (await call.release(ids, REFERENCE)).chunks == ()
    await call.done()


async def test_what_cannot_be_recorded_is_not_answered(mesh: Mesh, paris: Asker, here: ShardServer):
    """I7"""
    log = here.node.log
    assert isinstance(log, MemoryDecisionLog)
    call = paris.search(FIRM)
    opened = await call.open()
    log.full = True
    error = await refusal(paris.search(FIRM).open())
    assert error.reason is Reason.EVIDENCE_UNAVAILABLE
    error = await refusal(call.release([opened.by_vector[0].id], PASSAGE))
    assert error.reason is Reason.EVIDENCE_UNAVAILABLE


async def test_searches_that_stay_open_are_bounded_for_each_asker(mesh: Mesh, tmp_path: Path):
    streams = Streams(most=3, most_of_one=2)
    async with serving(mesh["DE"].nodes["fra-1"], tmp_path, streams=streams) as here:
        paris = Asker(mesh, mesh["FR"].nodes["par-1"].runtime.parts.source, here)
        berlin = Asker(mesh, mesh["DE"].nodes["fra-1"].runtime.parts.source, here)
        calls = [paris.search(FIRM), paris.search(SpiffeId("fr.mesh.example", "/client/other"))]
        for call in calls:
            await call.open()
        error = await refusal(paris.search(FIRM).open())
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after_s is not None
        home = berlin.search(CLINIC)
        await home.open()
        assert (await refusal(berlin.search(CLINIC).open())).reason is Reason.OVERLOADED
        calls[0].raw.cancel()  # an asker that leaves makes room
        await until(lambda: streams.open == 2)
        await paris.search(FIRM).open()


async def test_a_draining_node_takes_nothing_new(paris: Asker, here: ShardServer):
    call = paris.search(FIRM)
    await call.open()
    here.node.runtime.gate.draining = True
    assert (await refusal(paris.search(FIRM).open())).reason is Reason.DRAINING
    assert len(await call.weigh([1.0])) == 2


async def test_documents_of_a_tenant_reach_that_tenant_and_nobody_else(
    mesh: Mesh, paris: Asker, here: ShardServer
):
    here.put("t1", "The pump of the clinic.", tenant="clinic")
    home = Asker(mesh, here.node.runtime.parts.source, here)

    async def found(asker: Asker, requester: SpiffeId, **changes: Any) -> int:
        call = asker.search(requester, **changes)
        opened = await call.open()
        await call.done()
        assert opened.documents == len(opened.by_vector)
        return opened.documents

    assert await found(home, CLINIC) == 3
    assert await found(home, SpiffeId("de.mesh.example", "/client/other")) == 2
    # A tenant of the same name abroad is somebody else; a filter does not reach further either.
    assert await found(paris, SpiffeId("fr.mesh.example", "/client/clinic")) == 2
    call = paris.search(
        SpiffeId("fr.mesh.example", "/client/clinic"), filters=Filters({"document": frozenset({"t1"})})
    )
    assert (await call.open()).by_vector == ()
    await call.done()


async def test_budgets_are_the_requesters(mesh: Mesh, tmp_path: Path):
    limits = BudgetLimits(searches_per_minute=2, passages_per_day=1)
    async with serving(mesh["DE"].nodes["fra-1"], tmp_path, limits=limits) as here:
        here.put("d1", "One pump.")
        here.put("d2", "Two pumps.")
        paris = Asker(mesh, mesh["FR"].nodes["par-1"].runtime.parts.source, here)
        for wanted in (2, 1):
            call = paris.search(FIRM)
            opened = await call.open()
            release = call.release([each.id for each in opened.by_vector[:wanted]], SNIPPET)
            if wanted == 2:
                error = await refusal(release)
                assert error.reason is Reason.BUDGET_EXHAUSTED
            else:
                assert (await release).charged == 1
        error = await refusal(paris.search(FIRM).open())
        assert error.reason is Reason.BUDGET_EXHAUSTED
        assert error.retry_after_s is not None
        await paris.search(SpiffeId("fr.mesh.example", "/client/other")).open()


async def test_an_answer_over_the_wire(paris: Asker, here: ShardServer):
    def request() -> Any:
        asked = ShardAnswerQuestion(
            FIRM, INTERNAL, SPEC.name, SPEC.digest, "Who replaced the pump?", Filters()
        )
        return paris.stub.Answer(wire.shard_answer_to_pb(asked, paris.admission(FIRM)))

    *sentences, end = [message async for message in request()]
    assert wire.answered_from_pb(end.finished).charged == len(sentences) == 1
    said = wire.sentence_from_pb(sentences[0].sentence, here.node.id, SPEC.name)
    assert isinstance(said, AnswerSentence)
    assert (said.level, said.text) == (PASSAGE, PUMP) or said.extracted is False
    [released] = here.entries("release")
    assert (released["released"], released["charged"]) == ({"passage": 1}, 1)
    assert released["released_classes"] == ["internal"]
    wrong = ShardAnswerQuestion(FIRM, INTERNAL, SPEC.name, "sha256:" + "0" * 64, "Who?", Filters())
    call = paris.stub.Answer(wire.shard_answer_to_pb(wrong, paris.admission(FIRM)))

    async def read() -> None:
        async for _ in call:
            pass

    assert (await refusal(read())).reason is Reason.COLLECTION_MISMATCH


async def test_a_fetch_over_the_wire(mesh: Mesh, paris: Asker, here: ShardServer):
    call = paris.search(FIRM, "replaced")
    await call.open()
    [hit] = await call.weigh([1.0])
    await call.done()

    async def fetch(level: ReleaseLevel = PASSAGE) -> Any:
        request = wire.shard_fetch_to_pb(FIRM, SPEC.name, hit.id, level, paris.admission(FIRM))
        return wire.fetched_from_pb(await paris.stub.Fetch(request), hit.id, level)

    assert (await fetch()).text == PUMP
    snippet = await fetch(SNIPPET)
    assert "Oppermann" not in snippet.text + snippet.title
    assert [entry["released"] for entry in here.entries("release")] == [{"passage": 1}, {"snippet": 1}]
    assert [entry["released_classes"] for entry in here.entries("release")] == [["internal"]] * 2
    await mesh["DE"].apply_policy(SEARCH + REFERENCES)
    await mesh.settled(here.node)
    assert (await refusal(fetch())).reason is Reason.RELEASE_DENIED
    await mesh["DE"].apply_policy(SEARCH)
    await mesh.settled(here.node)
    assert (await refusal(fetch())).reason is Reason.REFERENCE_UNKNOWN


async def test_many_at_once_share_the_index(paris: Asker, here: ShardServer):
    async def one() -> int:
        call = paris.search(FIRM)
        opened = await call.open()
        await call.done()
        return opened.documents

    assert await asyncio.gather(*(one() for _ in range(12))) == [2] * 12
    assert here.admission.in_flight == 0
