"""Bad input to retrieval, over real RPCs: each is bounded and reported, and nothing of it is believed.

Here: peers that lie after they began well, two that claim the same, vectors and filters that no honest
asker sends, bad files by the whole way. Many more bad files are in test_parsing_hostile.py, bad uploads
in test_index_service.py, bad questions in test_retrieval_service.py.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.client import MeshError, Reason, collect_search
from mesh.core.documents import FileSkipped, FileStored
from mesh.core.questions import AnswerResult
from mesh.core.retrieval import MAX_K, Outcome, Reference
from mesh.core.types import SpiffeId
from sovereign.mesh.v1 import retrieval_pb2
from tests.support import files
from tests.support.documents import COLLECTION as HANDBOOK
from tests.support.documents import RawIngest, documents_of
from tests.support.federation import COLLECTION, INTERNAL, Federation, federation_of
from tests.support.hostile_shard import HostileShard, taken_over
from tests.support.mesh import mesh_of
from tests.support.shard_server import Asker, refusal, serving
from tests.support.snapshots import PERMIT_ALL

pytestmark = pytest.mark.slow

TEXTS = {"DE": {"same": "The pump is new."}, "FR": {"same": "The pump leaks."}}
OURS, OTHER = b"\x01" * 16, b"\x02" * 16
PASSAGE, SNIPPET = retrieval_pb2.RELEASE_LEVEL_PASSAGE, retrieval_pb2.RELEASE_LEVEL_SNIPPET
REFERENCE = retrieval_pb2.RELEASE_LEVEL_REFERENCE
INF, NAN = math.inf, math.nan
LIE = "Everything is fine."


def ranked(*scores: float, ids: bytes | None = None) -> retrieval_pb2.ShardRanked:
    return retrieval_pb2.ShardRanked(ids=OURS if ids is None else ids, scores=scores)


def chunk(id: bytes = OURS, level: Any = PASSAGE, **more: str) -> retrieval_pb2.ReleasedChunk:
    return retrieval_pb2.ReleasedChunk(id=id, level=level, **{"text": LIE, **more})


def released(*chunks: retrieval_pb2.ReleasedChunk, charged: int = 1) -> retrieval_pb2.ShardReleased:
    return retrieval_pb2.ShardReleased(chunks=chunks, charged=charged)


def honest(hostile: HostileShard) -> None:
    """One good hit, so that the asker goes on to the step that lies."""
    hostile.opened = retrieval_pb2.ShardOpened(
        documents=1, frequencies=[1], by_vector=ranked(0.9), highest=PASSAGE
    )
    hostile.ranked = ranked(1e-6)
    hostile.released = released(chunk())


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Federation]:
    async with federation_of(tmp_path, TEXTS) as federation:
        yield federation


async def ask(there: Federation, level: str = "passage", **more: Any) -> Any:
    words = {"context": INTERNAL, "level": level, "timeout_s": 20, **more}
    return await collect_search(there.client.search("pump", COLLECTION, **words))


LIES: dict[str, tuple[str, Any]] = {
    "keyword score of infinity": ("ranked", ranked(INF)),
    "keyword score of no number": ("ranked", ranked(NAN)),
    "keyword score above all weights": ("ranked", ranked(50.0)),
    "negative keyword score": ("ranked", ranked(-1.0)),
    "an id twice": ("ranked", ranked(1e-6, 1e-6, ids=OURS + OURS)),
    "too many ids": (
        "ranked", ranked(*[1e-6] * 101, ids=b"".join(n.to_bytes(16, "big") for n in range(101))),
    ),
    "half an id": ("ranked", ranked(1e-6, ids=OURS[:8])),
    "not sorted": ("ranked", ranked(1e-7, 1e-6, ids=OURS + OTHER)),
    "a hit nobody asked for": ("released", released(chunk(OTHER))),
    "a hit released twice": ("released", released(chunk(), chunk())),
    "more hits than were asked for": ("released", released(chunk(), chunk(OTHER))),
    "no level": ("released", released(chunk(level=0))),
    "a level that there is not": ("released", released(chunk(level=17))),
    "text below its level": ("released", released(chunk(level=REFERENCE))),
    "document below its level": ("released", released(chunk(level=SNIPPET, document="secret"))),
    "a text without end": ("released", released(chunk(text="x" * 65_537))),
    "a title without end": ("released", released(chunk(title="x" * 4097))),
    "charges without end": ("released", released(chunk(), charged=2**31)),
}  # fmt: skip


async def test_a_peer_that_begins_well_and_then_lies_costs_only_itself(there: Federation):
    home, abroad = there.nodes["DE"].id, there.nodes["FR"].id
    alone = [hit.reference for hit in (await ask(there)).hits if hit.reference.node == home]
    async with taken_over(there, "FR") as hostile:
        honest(hostile)
        assert {hit.reference.node for hit in (await ask(there)).hits} == {home, abroad}
        for name, (step, lie) in LIES.items():
            honest(hostile)
            setattr(hostile, step, lie)
            result = await ask(there)
            outcomes = {each.node: (each.outcome, each.reason) for each in result.coverage}
            assert outcomes == {
                home: (Outcome.ANSWERED, None),
                abroad: (Outcome.FAILED, Reason.PEER_MISBEHAVED),
            }, name
            assert [hit.reference for hit in result.hits] == alone, name
            assert not result.complete
        honest(hostile)
        hostile.released = released(chunk(level=PASSAGE))
        result = await ask(there, level="snippet")
        assert LIE not in {hit.released.text for hit in result.hits}, "more than was asked for"


async def test_two_that_claim_one_document_or_one_chunk_stay_two(there: Federation):
    found = (await ask(there)).hits
    assert {(hit.reference.node.name, hit.released.document) for hit in found} == {
        ("fra-1", "same"), ("par-1", "same"),
    }  # fmt: skip
    [ours] = [hit for hit in found if hit.reference.node == there.nodes["DE"].id]
    async with taken_over(there, "FR") as hostile:
        honest(hostile)
        claimed = ours.reference.id
        hostile.opened.by_vector.ids = hostile.ranked.ids = claimed
        hostile.released = released(chunk(claimed))
        result = await ask(there)
    assert {(hit.reference.node.name, hit.released.text) for hit in result.hits} == {
        ("fra-1", "The pump is new."), ("par-1", LIE),
    }  # fmt: skip
    assert len({hit.reference for hit in result.hits}) == 2


async def test_what_a_peer_says_of_itself_is_bounded_and_printable(there: Federation):
    async with taken_over(there, "FR") as hostile:
        hostile.refusal = "\x1b[31m\r\n\x9b" + "no " * 10_000
        [failed] = [each for each in (await ask(there)).coverage if each.outcome is Outcome.FAILED]
        assert len(failed.detail) < 1000
        assert failed.detail.isprintable()
    log = str(there.nodes["DE"].entries)
    assert "no no" not in log


def said(text: str = LIE, **more: Any) -> retrieval_pb2.ShardAnswerResponse:
    sentence = {"text": text, "references": [OURS.hex()], "level": PASSAGE, "score": 0.5, **more}
    return retrieval_pb2.ShardAnswerResponse(sentence=retrieval_pb2.AnswerSentence(**sentence))


DONE = retrieval_pb2.ShardAnswerResponse(finished=retrieval_pb2.ShardAnswered(highest=PASSAGE))
FALSE_ANSWERS: dict[str, list[retrieval_pb2.ShardAnswerResponse]] = {
    "score of infinity": [said(score=INF), DONE],
    "score of no number": [said(score=NAN), DONE],
    "a score above all others": [said(score=7.0), DONE],
    "nothing to rest on": [said(references=[]), DONE],
    "somebody else's passage": [said(references=["de.mesh.example/fra-1/notes/" + "0" * 32]), DONE],
    "one passage twice": [said(references=[OURS.hex()] * 2), DONE],
    "no text": [said(" "), DONE],
    "a text without end": [said("x" * 5000), DONE],
    "a level that answers nothing": [said(level=REFERENCE), DONE],
    "no end": [said(f"{n}.") for n in range(17)],
    "nothing at all": [],
    "no event": [retrieval_pb2.ShardAnswerResponse()],
    "too much counted": [
        retrieval_pb2.ShardAnswerResponse(finished=retrieval_pb2.ShardAnswered(counted=10**6))
    ],
}


async def test_an_answer_keeps_nothing_of_a_peer_that_lies(there: Federation):
    async with taken_over(there, "FR") as hostile:
        for name, lies in FALSE_ANSWERS.items():
            hostile.answers = lies
            asked = there.client.answer("What is the pump like?", COLLECTION, context=INTERNAL, timeout_s=20)
            [result] = [event async for event in asked if isinstance(event, AnswerResult)]
            outcomes = {each.node.name: (each.outcome, each.reason) for each in result.coverage}
            assert outcomes["par-1"] == (Outcome.FAILED, Reason.PEER_MISBEHAVED), name
            assert outcomes["fra-1"] == (Outcome.ANSWERED, None), name
            assert all(r.node.name == "fra-1" for s in result.sentences for r in s.references), name
            assert not result.complete


async def test_a_fetch_is_for_the_passage_that_was_asked_for(there: Federation):
    reference = Reference(there.nodes["FR"].id, COLLECTION, OURS)
    async with taken_over(there, "FR") as hostile:
        for lie in (chunk(OTHER), chunk(level=0), chunk(text="x" * 65_537), retrieval_pb2.ReleasedChunk()):
            hostile.fetched = retrieval_pb2.ShardFetchResponse(chunk=lie)
            with pytest.raises(MeshError) as refused:
                await there.client.fetch(reference, context=INTERNAL)
            assert refused.value.reason is Reason.PEER_MISBEHAVED
        hostile.fetched = retrieval_pb2.ShardFetchResponse(chunk=chunk())
        with pytest.raises(MeshError) as refused:
            await there.client.fetch(reference, context=INTERNAL, level="snippet")
        assert refused.value.reason is Reason.PEER_MISBEHAVED


async def test_a_hundred_of_the_longest_texts_reach_the_client(there: Federation):
    """What a peer may say at most must not be more than the next hop carries."""
    ids = [n.to_bytes(16, "big") for n in range(MAX_K)]
    async with taken_over(there, "FR") as hostile:
        honest(hostile)
        hostile.opened.ClearField("frequencies")  # there are no terms in this mode
        hostile.opened.by_vector.CopyFrom(ranked(*[1.0] * MAX_K, ids=b"".join(ids)))
        label = "x" * 4096
        hostile.released = released(
            *(chunk(each, text="y" * 65_536, title=label, document=label, source=label) for each in ids),
            charged=MAX_K,
        )
        result = await ask(there, k=MAX_K, mode="vector")
        assert result.complete
        assert [len(hit.released.text) for hit in result.hits] == [65_536] * MAX_K


async def test_filters_do_not_reach_other_tenants(there: Federation):
    await there.put("DE", {"hidden": "The pump of the clinic."}, tenant="clinic", owner="ward", source="a/b")
    seen = {hit.released.document for hit in (await ask(there)).hits}
    assert "hidden" not in seen
    for fields in (
        {"document": ["hidden"]}, {"source": ["a/b"]}, {"owner": ["ward"]},
        {"owner": ["ward", "ward' OR '1'='1", 'ward"] UNION SELECT', "%", "*", "\x00"]},
    ):  # fmt: skip
        result = await ask(there, filters=fields)
        assert result.hits == ()
        assert [each.counted for each in result.coverage] == [0, 0]
    for field in ("tenant", "group", "release_group", "id", "text", "class\x00", ""):
        with pytest.raises(MeshError) as refused:
            await ask(there, filters={field: ["clinic"]})
        assert refused.value.reason is Reason.FILTER_UNKNOWN


async def test_no_hits_wanted_is_ten_and_a_million_is_refused(there: Federation):
    await there.put("DE", {f"d{n}": "The pump." for n in range(12)})
    with pytest.raises(MeshError) as refused:
        await ask(there, k=0)
    assert refused.value.reason is Reason.REQUEST_INVALID
    with pytest.raises(MeshError) as refused:
        await ask(there, k=10**6)
    assert refused.value.reason is Reason.REQUEST_INVALID


async def test_vectors_terms_and_weights_that_no_honest_asker_sends(tmp_path: Path):
    firm = SpiffeId("fr.mesh.example", "/client/firm")
    async with mesh_of(tmp_path, "DE", "FR", policies=dict.fromkeys(("DE", "FR"), PERMIT_ALL)) as mesh:
        node, par = await mesh["DE"].node("fra-1"), await mesh["FR"].node("par-1")
        await mesh.settled()
        async with serving(node, tmp_path) as here:
            here.put("d1", "The pump is quiet.")
            paris = Asker(mesh, par.runtime.parts.source, here)
            for changes in (
                {"vector": [NAN] * 32}, {"vector": [INF] + [0.0] * 31}, {"vector": [1.0] * 31},
                {"vector": [0.0] * 32}, {"vector": [3.0] * 32}, {"vector": [1.0]},
                {"vector": [0.01] * 10_000},
                {"terms": ["b", "a"]}, {"terms": ["a", "a"]}, {"terms": [""]}, {"terms": ["x" * 65]},
                {"terms": [f"{n:03}" for n in range(65)]},
                {"depth": 0}, {"depth": 10**6}, {"collection": "../../etc"}, {"requester": "nobody"},
                {"requester": "spiffe://fr.mesh.example/admin/root"},
                {"filters": [retrieval_pb2.Filter(field="tenant", any_of=["clinic"])]},
                {"filters": [retrieval_pb2.Filter(field="owner", any_of=["x"] * 65)]},
                {"filters": [retrieval_pb2.Filter(field="owner", any_of=["x"])] * 2},
            ):  # fmt: skip
                call = paris.search(firm)
                for name, value in changes.items():
                    call.first.open.ClearField(name)  # type: ignore[arg-type]
                    if isinstance(value, list):
                        getattr(call.first.open, name).extend(value)
                    else:
                        setattr(call.first.open, name, value)
                reason = (await refusal(call.step(call.first))).reason
                assert reason in {
                    Reason.REQUEST_INVALID, Reason.FILTER_UNKNOWN, Reason.IDENTITY_MALFORMED,
                    Reason.IDENTITY_NOT_ALLOWED,
                }, (list(changes), reason)  # fmt: skip
            for weights in ([NAN], [INF], [-1.0], [1e300], [1.0, 1.0], []):
                call = paris.search(firm)
                await call.open()
                step = retrieval_pb2.ShardSearchRequest(weigh=retrieval_pb2.ShardWeigh(weights=weights))
                assert (await refusal(call.step(step))).reason is Reason.REQUEST_INVALID, weights
            assert here.streams.open == 0
            kept = [entry["outcome"] for entry in here.entries("shard")]
            assert "served" in kept
            assert kept.count("refused") >= 26


async def test_bad_files_are_reported_and_the_rest_is_held(tmp_path: Path):
    """By the whole way: offered, sent, parsed in the sandbox, stored."""
    mib = 1 << 20
    bad: dict[str, str | bytes] = {
        "nul.txt": b"\x00" * 1000 + b"x" * 1000,
        "noise.txt": bytes(range(256)) * 100,
        "bomb.pdf": files.pdf_bomb(4, 300 * mib),
        "bomb.docx": files.word_with({"word/document.xml": b" " * (300 * mib)}),
        "wide.csv": b"text," + b"a," * 1_000_000 + b"\nx\n",
    }
    rows = (
        b'{"text": "The pump is new.", "id": "good"}\n'
        b'{"text": "caf\xff\xfe", "id": "bytes"}\n'
        b'{"text": "x", "id": "half \\ud800"}\n'
        b'{"text": "x", "title": "\\u001b[2J"}\n'
        b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
        b'{"text": "x", "id": ' + b"9" * 100_000 + b"}\n"
        b'{"text": "x", "tenant": "bank"}\n'
        b'{"text": "The pump is \\u0000 old.", "id": "also good"}\n'
    )
    async with documents_of(tmp_path) as here:
        folder = here.write({**bad, "rows.jsonl": rows, "good.md": "# Pump\n\nIt is quiet."})
        told = await here.ingest([folder], path="/client/clinic/desk")
        for name in bad:
            outcome = told[f"files/{name}"]
            assert isinstance(outcome, FileSkipped), name
            assert outcome.reason.startswith("DOCUMENT_"), outcome
        stored = told["files/rows.jsonl"]
        assert isinstance(stored, FileStored)
        assert [row.row for row in stored.rows] == [2, 3, 4, 5, 6, 7]
        assert isinstance(told["files/good.md"], FileStored)
        call = await RawIngest(here.stub()).begin()
        names = ["../../climb.txt", "/etc/passwd.txt", "a/../b.txt"]
        for number, name in enumerate(names, 1):
            assert (await call.offer(number, name, b"words")).WhichOneof("step") == "wanted"
            await call.piece(b"words")
            assert (await call.answer()).WhichOneof("step") == "stored"
        await call.call.done_writing()
        async with here.client() as client:
            held, _ = await client.documents(HANDBOOK)
        assert {each.info.id for each in held} == {"good", "also good", "files/good.md", *names}
        assert not list(tmp_path.parent.rglob("climb*")), "a name is a name, and no path"
        assert here.inbox == []
        huge = await RawIngest(here.stub()).begin()
        skipped = await huge.offer(1, "huge.txt", b"", bytes=2 << 30)
        assert skipped.skipped.reason == Reason.DOCUMENT_TOO_LARGE.code
        huge.call.cancel()
