"""A node's own documents over mutual TLS: who may, what is kept, what the log says, and hostile streams."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.core.documents import DocumentInfo, FileSkipped, FileStored
from mesh.core.errors import MeshError, Reason
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import index_pb2
from tests.support.documents import (
    COLLECTION,
    DEADLINE_S,
    INTERNAL,
    SPEC,
    Documents,
    RawIngest,
    documents_of,
)

pytestmark = pytest.mark.slow


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Documents]:
    async with documents_of(tmp_path) as documents:
        yield documents


async def refused(call: Any) -> MeshError:
    answered = call.read() if hasattr(call, "read") else call
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await answered
    return from_rpc_error(error.value)


# --- indexes -----------------------------------------------------------------------------------------


async def test_an_index_is_made_for_what_the_authority_has_published(tmp_path: Path):
    async with documents_of(tmp_path, create=False) as here, here.client() as client:
        with pytest.raises(MeshError) as error:
            await client.create(COLLECTION)
        assert error.value.reason is Reason.COLLECTION_UNKNOWN
        await here.publish(dataclasses.replace(SPEC, embedder_digest="sha256:" + "1" * 64))
        with pytest.raises(MeshError) as error:
            await client.create(COLLECTION)
        assert error.value.reason is Reason.EMBEDDER_MISMATCH
        await here.publish()
        made = await client.create(COLLECTION)
        assert (made.digest, made.documents, made.state) == (SPEC.digest, 0, "ready")
        with pytest.raises(MeshError) as error:
            await client.create(COLLECTION)
        assert error.value.reason is Reason.COLLECTION_EXISTS
        await here.mesh.nodes[0].runtime.board.wait_for(
            lambda snapshot: snapshot.candidates[here.node.id].record.holds(COLLECTION) is not None,
            DEADLINE_S,
        )
        assert await client.delete(COLLECTION) == 0
        assert await client.status() == ()


async def test_files_of_a_folder_are_held_and_only_changes_travel_again(here: Documents):
    folder = here.write(
        {
            "a.txt": "The ward opens at nine.",
            "deep/b.md": "# Doors\n\nEvery door is blue.",
            "rows.jsonl": '{"id": "r1", "text": "first row"}\nnot json\n{"text": "third row"}\n',
            "empty.txt": "",
            ".hidden.txt": "hidden",
            "picture.png": b"\x89PNG",
        }
    )
    told = await here.ingest([folder])
    assert told["files/a.txt"] == FileStored(1, 1, 0)
    assert told["files/deep/b.md"] == FileStored(1, 1, 0)
    rows = told["files/rows.jsonl"]
    assert isinstance(rows, FileStored)
    assert (rows.documents, [row.row for row in rows.rows]) == (2, [2])
    assert isinstance(told["files/empty.txt"], FileSkipped)
    assert len(told) == 4
    index = here.library.get(COLLECTION)
    groups = frozenset(index.groups())
    assert index.statistics(("blue",), groups) == (4, (1,))
    here.write({"a.txt": "The ward opens at ten."})
    told = await here.ingest([folder])
    assert told["files/a.txt"] == FileStored(1, 1, 0)
    assert told["files/deep/b.md"] == FileStored(1, 1, 1)
    async with here.client() as client:
        (report,) = await client.status(COLLECTION)
        assert (report.documents, report.chunks, report.classes) == (4, 4, {"internal": 4})
        page, more = await client.documents(COLLECTION, limit=3)
        assert [held.info.id for held in page] == ["files/a.txt", "files/deep/b.md", "files/rows.jsonl#3"]
        assert more
        assert await client.forget(COLLECTION, ["files/deep/b.md", "not there"]) == 1
        assert index.statistics(("blue",), groups)[1] == (0,)
        assert [event async for event in client.rebuild(COLLECTION)][-1] == (3, 3)
    told = await here.ingest([folder])
    assert told["files/deep/b.md"] == FileStored(1, 1, 0)
    assert here.inbox == []


async def test_other_settings_stop_an_index_until_it_is_made_anew(here: Documents):
    await here.publish(dataclasses.replace(SPEC, k1=0.9))
    folder = here.write({"a.txt": "Text."})
    with pytest.raises(MeshError) as error:
        await here.ingest([folder])
    assert error.value.reason is Reason.COLLECTION_MISMATCH
    assert "k1" in error.value.message
    async with here.client() as client:
        (report,) = await client.status()
        assert report.state == "mismatch"
        await here.node.runtime.board.wait_for(
            lambda snapshot: snapshot.candidates[here.node.id].record.holds(COLLECTION) is None, DEADLINE_S
        )
        await client.delete(COLLECTION)
        await client.create(COLLECTION)
    assert await here.ingest([folder]) == {"files/a.txt": FileStored(1, 1, 0)}


async def test_an_index_removed_under_an_upload_holds_nothing_and_says_so(here: Documents):
    call = await RawIngest(here.stub()).begin()
    assert (await call.offer(1, "a.txt", b"one")).WhichOneof("step") == "wanted"
    async with here.client() as client:
        await client.delete(COLLECTION)
        await call.piece(b"one")
        assert (await call.answer()).skipped.reason == Reason.INDEX_UNAVAILABLE.code
        assert await client.status() == ()


async def test_what_is_sent_says_what_the_file_does_not(here: Documents):
    folder = here.write({"a.md": "---\ntitle: Said\nclasses: personal\n---\nText.", "b.txt": "Text."})
    info = DocumentInfo(classes=("internal",), owner="desk", language="de", retain_until="2999-01-01")
    await here.ingest([folder], info)
    async with here.client() as client:
        (first, second), _ = await client.documents(COLLECTION)
    assert (first.info.title, first.info.classes, first.info.owner) == ("Said", ("personal",), "desk")
    assert (second.info.classes, second.info.language, second.info.retain_until) == (
        ("internal",), "de", "2999-01-01",
    )  # fmt: skip


async def test_a_class_is_needed_and_a_malformed_default_refuses_the_upload(here: Documents):
    folder = here.write({"b.txt": "Text."})
    told = await here.ingest([folder], DocumentInfo())
    assert isinstance(told["files/b.txt"], FileSkipped)
    for wrong in ({"classes": ("secret",)}, {"language": "no language"}, {"retain_until": "tomorrow"}):
        with pytest.raises(MeshError) as error:
            await here.ingest([folder], dataclasses.replace(INTERNAL, **wrong))
        assert error.value.reason is Reason.DOCUMENT_INVALID, wrong
        assert str(next(iter(wrong.values()))) not in error.value.message


# --- who may -----------------------------------------------------------------------------------------

ADMIN_ONLY = [
    ("CreateIndex", index_pb2.CreateIndexRequest(collection=COLLECTION)),
    ("DeleteIndex", index_pb2.DeleteIndexRequest(collection=COLLECTION)),
    ("RebuildIndex", index_pb2.RebuildIndexRequest(collection=COLLECTION)),
]
MEMBERS = [
    ("GetIndexStatus", index_pb2.GetIndexStatusRequest()),
    ("DeleteDocuments", index_pb2.DeleteDocumentsRequest(collection=COLLECTION, documents=["a"])),
    ("ListDocuments", index_pb2.ListDocumentsRequest(collection=COLLECTION)),
]


def test_every_method_of_the_service_is_tried():
    methods = {m.name for m in index_pb2.DESCRIPTOR.services_by_name["Index"].methods}
    assert {name for name, _ in ADMIN_ONLY + MEMBERS} | {"Ingest"} == methods


async def test_I1_nobody_of_another_authority_has_business_here(tmp_path: Path):
    async with documents_of(tmp_path, "DE", "FR") as here:
        for path in ("/admin/first", "clinic", "/node/par-1"):
            stub = here.stub(path, "FR")
            for name, request in ADMIN_ONLY + MEMBERS:
                error = await refused(getattr(stub, name)(request))
                assert error.reason is Reason.IDENTITY_NOT_ALLOWED, (path, name)
            error = await (await RawIngest(stub).begin()).refusal()
            assert error.reason is Reason.IDENTITY_NOT_ALLOWED
        assert here.library.get(COLLECTION).status().documents == 0


async def test_clients_and_nodes_do_not_administer(here: Documents):
    for path, calls in (("clinic", ADMIN_ONLY), ("/node/fra-2", ADMIN_ONLY + MEMBERS)):
        stub = here.stub(path)
        for name, request in calls:
            assert (await refused(getattr(stub, name)(request))).reason is Reason.IDENTITY_NOT_ALLOWED, name
    kept = [entry for entry in here.entries if entry["outcome"] == "refused"]
    assert {entry["reason"] for entry in kept} == {Reason.IDENTITY_NOT_ALLOWED.code}


async def test_I1_a_client_has_to_do_with_its_own_tenants_documents_alone(here: Documents):
    folder = here.write({"a.txt": "Ours.", "forged.md": "---\ntenant: bank\n---\nTheirs?"})
    told = await here.ingest([folder], path="/client/clinic/desk")
    assert told["files/a.txt"] == FileStored(1, 1, 0)
    assert isinstance(told["files/forged.md"], FileSkipped)
    await here.ingest([here.write({"b.txt": "Everybody's."}, "more")])
    async with here.client("/client/bank") as bank:
        assert await bank.documents(COLLECTION) == ((), False)
        assert await bank.forget(COLLECTION, ["files/a.txt", "more/b.txt"]) == 0
        (report,) = await bank.status()
        assert (report.documents, report.chunks, report.bytes, report.classes) == (0, 0, 0, {})
    taken = await here.ingest([here.write({"a.txt": "Taken over."})], path="/client/bank")
    assert isinstance(taken["files/a.txt"], FileSkipped)
    with pytest.raises(MeshError) as error:
        await here.ingest([folder], DocumentInfo(classes=("internal",), tenant="clinic"), "/client/bank")
    assert error.value.reason is Reason.TENANT_MISMATCH
    async with here.client("/client/clinic/other") as clinic:
        (held,), _ = await clinic.documents(COLLECTION)
        assert (held.info.id, held.info.tenant) == ("files/a.txt", "clinic")
        (report,) = await clinic.status(COLLECTION)
        assert (report.documents, report.classes) == (1, {"internal": 1})
        assert await clinic.forget(COLLECTION, ["files/a.txt"]) == 1


async def test_a_flood_of_one_tenant_waits_for_the_others(here: Documents, monkeypatch: pytest.MonkeyPatch):
    """Few look into an index at once, and what is turned away leaves nothing in the log."""
    index = here.library.get(COLLECTION)
    look, go, looking = index.documents, threading.Event(), threading.Semaphore(0)

    def held(*words: Any, **more: Any) -> Any:
        looking.release()
        assert go.wait(DEADLINE_S)
        return look(*words, **more)

    monkeypatch.setattr(index, "documents", held)
    bank, clinic = here.stub("/client/bank/desk"), here.stub("/client/clinic/desk")
    request = index_pb2.ListDocumentsRequest(collection=COLLECTION)
    flood = [bank.ListDocuments(request) for _ in range(200)]
    for _ in range(2):
        await asyncio.to_thread(looking.acquire, True, DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S):
        while sum(call.done() for call in flood) < 200 - 66:  # noqa: ASYNC110  calls tell nobody
            await asyncio.sleep(0.01)
    asked = clinic.ListDocuments(request)
    status = clinic.GetIndexStatus(index_pb2.GetIndexStatusRequest())
    go.set()
    assert not (await asked).documents
    await status
    reasons = [from_rpc_error(e).reason for e in await asyncio.gather(*flood, return_exceptions=True)
               if isinstance(e, grpc.aio.AioRpcError)]  # fmt: skip
    assert len(reasons) >= 200 - 66
    assert set(reasons) == {Reason.OVERLOADED}
    listed = [entry for entry in here.entries if entry.get("action") == "list"]
    assert len(listed) == 201 - len(reasons)


async def test_whoever_is_revoked_sends_nothing_more(here: Documents):
    call = await RawIngest(here.stub("clinic")).begin()
    assert (await call.offer(1, "a.txt", b"one")).WhichOneof("step") == "wanted"
    await call.piece(b"one")
    assert (await call.answer()).stored.documents == 1
    await here.de.revoke(here.de.id("/client/clinic"))
    await here.mesh.settled()
    await call.send(offer=index_pb2.IngestOffer(number=2, name="b.txt", sha256=b"0" * 32, bytes=3))
    assert (await call.refusal()).reason is Reason.IDENTITY_REVOKED


# --- evidence ----------------------------------------------------------------------------------------


async def test_I7_what_cannot_be_recorded_is_not_done(here: Documents):
    here.node.log.full = True  # type: ignore[attr-defined]
    async with here.client() as client:
        with pytest.raises(MeshError) as error:
            await client.delete(COLLECTION)
        assert error.value.reason is Reason.EVIDENCE_UNAVAILABLE
        with pytest.raises(MeshError) as error:
            await here.ingest([here.write({"a.txt": "Text."})])
        assert error.value.reason is Reason.EVIDENCE_UNAVAILABLE
    assert here.library.get(COLLECTION).status().documents == 0


async def test_I1_I7_the_log_counts_and_never_names(here: Documents):
    await here.ingest([here.write({"secret-plan.txt": "Canary words.", "x.png.txt": b"\x89PNG\r\n"})])
    async with here.client() as client:
        await client.documents(COLLECTION)
        await client.forget(COLLECTION, ["files/secret-plan.txt"])
    entries = here.entries
    text = json.dumps(entries)
    assert "secret-plan" not in text
    assert "anary" not in text
    ended = [entry for entry in entries if entry["outcome"] == "done"]
    begun = {entry["id"]: entry["action"] for entry in entries if entry["outcome"] == "begun"}
    assert [(begun[e["id"]], e.get("documents"), e.get("skipped")) for e in ended] == [
        ("create", None, None), ("ingest", 1, 1), ("list", 1, None), ("forget", 1, None),
    ]  # fmt: skip


# --- hostile streams ---------------------------------------------------------------------------------


async def test_a_stream_that_breaks_the_protocol_ends_and_leaves_nothing(here: Documents):
    stub = here.stub()
    offer = index_pb2.IngestOffer(number=1, name="a.txt", sha256=b"0" * 32, bytes=3)
    piece = index_pb2.IngestPiece(data=b"one", last=True)

    async def broken(*steps: dict[str, Any], begin: bool = True) -> Reason:
        call = RawIngest(stub)
        if begin:
            await call.begin()
        for step in steps:
            await call.send(**step)
        await call.call.done_writing()
        reason: Reason = (await call.refusal()).reason
        return reason

    again = index_pb2.IngestBegin(collection=COLLECTION)
    large = index_pb2.IngestPiece(data=b"x" * (300 * 1024), last=False)
    roomy = index_pb2.IngestOffer(number=1, name="a.txt", sha256=b"0" * 32, bytes=1 << 20)
    short = index_pb2.IngestOffer(number=1, name="a.txt", sha256=b"0", bytes=3)
    cases: list[tuple[dict[str, Any], ...]] = [
        ({"piece": piece},),
        ({"begin": again},),
        ({},),
        ({"offer": short},),
        ({"offer": offer}, {"offer": index_pb2.IngestOffer(number=2, name="b.txt", sha256=b"0" * 32)}),
        ({"offer": offer}, {"piece": index_pb2.IngestPiece(data=b"more than that", last=True)}),
        ({"offer": offer}, {"piece": index_pb2.IngestPiece()}),
        ({"offer": offer},),
        ({"offer": roomy}, {"piece": large}),
        ({"offer": offer}, {"piece": piece}, {"offer": offer}),
    ]
    for steps in cases:
        assert await broken(*steps) is Reason.REQUEST_INVALID, steps
    assert await broken({"offer": offer}, begin=False) is Reason.REQUEST_INVALID
    assert await broken(begin=False) is Reason.REQUEST_INVALID
    assert here.inbox == []
    assert here.library.get(COLLECTION).status().documents == 0


async def test_what_is_wrong_with_a_file_is_that_files_outcome(here: Documents):
    call = await RawIngest(here.stub()).begin()
    huge = await call.offer(1, "huge.txt", b"", bytes=2 << 30)
    assert huge.skipped.reason == Reason.DOCUMENT_TOO_LARGE.code
    assert (await call.offer(2, "a.txt", b"one", sha256=b"0" * 32)).WhichOneof("step") == "wanted"
    await call.piece(b"one")
    assert (await call.answer()).skipped.reason == Reason.DOCUMENT_INVALID.code
    assert (await call.offer(3, "a.txt", b"one")).WhichOneof("step") == "wanted"
    await call.piece(b"o", last=False)
    await call.piece(b"ne")
    stored = await call.answer()
    assert (stored.stored.number, stored.stored.documents) == (3, 1)
    await call.call.done_writing()
    assert await call.answer() is grpc.aio.EOF  # type: ignore[attr-defined]
    assert here.inbox == []


async def test_a_caller_that_leaves_in_the_middle_leaves_nothing_behind(here: Documents):
    call = await RawIngest(here.stub()).begin()
    assert (await call.offer(1, "a.txt", b"one two")).WhichOneof("step") == "wanted"
    await call.piece(b"one", last=False)
    assert len(here.inbox) == 2
    call.call.cancel()
    async with asyncio.timeout(DEADLINE_S):
        while here.inbox:  # noqa: ASYNC110  files tell nobody when they go
            await asyncio.sleep(0.01)
    told = await here.ingest([here.write({"a.txt": "one two"})])
    assert told["files/a.txt"] == FileStored(1, 1, 0)


async def test_bad_questions_are_refused(here: Documents):
    stub = here.stub()
    for call, reason in (
        (stub.ListDocuments(index_pb2.ListDocumentsRequest(collection=COLLECTION, limit=1001)), None),
        (stub.ListDocuments(index_pb2.ListDocumentsRequest(collection="No Name")), None),
        (stub.ListDocuments(index_pb2.ListDocumentsRequest(collection=COLLECTION, after="x" * 2000)), None),
        (stub.DeleteDocuments(index_pb2.DeleteDocumentsRequest(collection=COLLECTION)), None),
        (
            stub.DeleteDocuments(
                index_pb2.DeleteDocumentsRequest(collection=COLLECTION, documents=["x"] * 1001)
            ),
            None,
        ),
        (
            stub.GetIndexStatus(index_pb2.GetIndexStatusRequest(collection="other")),
            Reason.COLLECTION_UNKNOWN,
        ),
        (stub.DeleteIndex(index_pb2.DeleteIndexRequest(collection="other")), Reason.COLLECTION_UNKNOWN),
    ):
        assert (await refused(call)).reason is (reason or Reason.REQUEST_INVALID)
