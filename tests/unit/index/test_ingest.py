"""Uploads: what is stored, what is not done twice, what a bad file costs the others, what is left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.core.documents import FileOffer, FileSkipped, FileStored
from mesh.core.errors import MeshError, Reason
from mesh.core.types import DataClass
from node.index.documents import DocumentMeta
from node.index.file_marks import document_id_of
from node.index.inbox import Inbox
from node.index.index import NewDocument
from node.index.stages import DocumentUnderWay, FileUnderWay, TextQueue
from node.index.stored import NewChunk
from tests.support.ingest import DEFAULTS, Bench, Told, disk_full, offer_of


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_what_is_told_as_stored_is_held(bench: Bench):
    told = await bench.ingest({"a.txt": "one two three", "b.jsonl": "four\nfive six"})
    assert told == {"a.txt": FileStored(1, 1, 0), "b.jsonl": FileStored(2, 2, 0)}
    assert sorted(bench.index.held_by_id) == ["a.txt", "b.jsonl#1", "b.jsonl#2"]
    assert bench.index.held_by_id["a.txt"].meta.source == "a.txt"
    assert bench.told.last == (3, 3)
    assert bench.left_over == []


async def test_nothing_is_told_before_it_is_stored(bench: Bench):
    seen: list[dict[int, object]] = []
    bench.index.trouble = lambda documents: seen.append(dict(bench.told.files))
    await bench.ingest({"a.txt": "one"})
    assert seen == [{}]


async def test_a_file_that_is_held_is_not_sent_again(bench: Bench):
    first = {"a.txt": "one two", "b.jsonl": "three\nfour"}
    await bench.ingest(first)
    again = await bench.ingest(first)
    assert again == {"a.txt": FileStored(1, 1, 1), "b.jsonl": FileStored(2, 2, 2)}
    assert len(bench.parser.read) == 2
    assert sum(bench.embedder.batches) == 3


async def test_only_changed_documents_of_a_changed_file_are_embedded(bench: Bench):
    await bench.ingest({"b.jsonl": "three\nfour"})
    told = await bench.ingest({"b.jsonl": "three\nfour\nfive"})
    assert told["b.jsonl"] == FileStored(3, 3, 2)
    assert sum(bench.embedder.batches) == 3


async def test_another_data_class_is_another_file(bench: Bench):
    await bench.ingest({"a.txt": "one"})
    stricter = dataclasses.replace(DEFAULTS, classes=frozenset({DataClass.CONFIDENTIAL}))
    await bench.ingest({"a.txt": "one"}, stricter)
    assert bench.index.held_by_id["a.txt"].meta.classes == {DataClass.CONFIDENTIAL}


async def test_a_deleted_document_comes_back_when_its_file_does(bench: Bench):
    await bench.ingest({"a.txt": "one"})
    bench.index.delete("a.txt")
    told = await bench.ingest({"a.txt": "one"})
    assert told["a.txt"] == FileStored(1, 1, 0)
    assert "a.txt" in bench.index.held_by_id


async def test_a_document_that_came_from_another_file_keeps_that_file_wanted(bench: Bench):
    await bench.ingest({"old.txt": "id=x one"})
    await bench.ingest({"new.txt": "id=x one", "old.txt": "id=x one"})
    # Its source is its file's name, so it was stored again under the new one; with a stated one it was not.
    stated = dataclasses.replace(DEFAULTS, source="archive")
    await bench.ingest({"first.txt": "id=y one"}, stated)
    await bench.ingest({"second.txt": "id=y one"}, stated)
    bench.index.delete("y")
    told = await bench.ingest({"second.txt": "id=y one"}, stated)
    assert told["second.txt"] == FileStored(1, 1, 0)
    assert "y" in bench.index.held_by_id


async def test_bad_rows_and_bad_files_are_reported_and_the_rest_goes_on(bench: Bench):
    told = await bench.ingest(
        {
            "rows.jsonl": "one\nbad\nthree",
            "none.jsonl": "bad\nbad",
            "broken.txt": "broken",
            "picture.png": "x",
            "good.txt": "good",
        }
    )
    rows = told["rows.jsonl"]
    assert isinstance(rows, FileStored)
    assert (rows.documents, rows.rows_total, [row.row for row in rows.rows]) == (2, 1, [2])
    for name in ("none.jsonl", "broken.txt", "picture.png"):
        outcome = told[name]
        assert isinstance(outcome, FileSkipped), name
        assert outcome.reason == Reason.DOCUMENT_UNREADABLE.code
    assert told["good.txt"] == FileStored(1, 1, 0)
    assert bench.left_over == []


async def test_what_was_wrong_is_told_again_the_next_time(bench: Bench):
    for _ in range(2):
        told = await bench.ingest({"rows.jsonl": "one\nbad"})
        assert isinstance(told["rows.jsonl"], FileStored)
        assert told["rows.jsonl"].rows_total == 1
    assert sum(bench.embedder.batches) == 1


async def test_a_file_that_breaks_in_the_middle_is_skipped_and_what_came_before_is_held(bench: Bench):
    told = await bench.ingest({"half.jsonl": "one\ntwo\nbroken"})
    assert isinstance(told["half.jsonl"], FileSkipped)
    told = await bench.ingest({"half.jsonl": "one\ntwo\nthree"})
    assert isinstance(told["half.jsonl"], FileStored)
    assert told["half.jsonl"].documents == 3


async def test_two_gigabytes_are_refused_unread(bench: Bench):
    async with bench.upload() as upload:
        outcome = await upload.look(FileOffer(1, "huge.txt", b"\0" * 32, 2 << 30))
    assert isinstance(outcome, FileSkipped)
    assert outcome.reason == Reason.DOCUMENT_TOO_LARGE.code


async def test_a_document_past_its_day_is_not_taken(bench: Bench):
    past = dataclasses.replace(DEFAULTS, retain_until=datetime.date(2020, 1, 1))
    told = await bench.ingest({"a.txt": "one"}, past)
    assert isinstance(told["a.txt"], FileSkipped)
    assert told["a.txt"].reason == Reason.DOCUMENT_INVALID.code
    assert not bench.index.held_by_id


async def test_an_id_twice_in_one_file_is_a_bad_row(bench: Bench):
    told = await bench.ingest({"b.jsonl": "id=x one\nid=x two"})
    assert isinstance(told["b.jsonl"], FileStored)
    assert (told["b.jsonl"].documents, told["b.jsonl"].rows_total) == (1, 1)
    assert bench.index.held_by_id["x"].chunks[0].text == "id=x one"


# --- tenants -----------------------------------------------------------------------------------------


def locked(tenant: str):
    return dataclasses.replace(DEFAULTS, tenant=tenant, locked=frozenset({"tenant"}))


async def test_I1_a_tenant_does_not_replace_anothers_document(bench: Bench):
    await bench.ingest({"a.txt": "ours"}, locked("clinic"))
    told = await bench.ingest({"a.txt": "theirs"}, locked("bank"))
    assert isinstance(told["a.txt"], FileSkipped)
    assert "clinic" not in told["a.txt"].detail
    assert bench.index.held_by_id["a.txt"].meta.tenant == "clinic"
    assert bench.index.held_by_id["a.txt"].chunks[0].text == "ours"


async def test_I1_nor_does_it_replace_one_that_comes_while_its_own_is_on_its_way(bench: Bench):
    """The id was free when it was looked at, and is not when the document is stored."""
    bench.embedder.go.clear()
    late = asyncio.create_task(bench.ingest({"late.txt": "id=x theirs"}, locked("bank")))
    async with asyncio.timeout(10):
        await bench.embedder.asked.wait()
    clinic = DocumentMeta("x", classes=DEFAULTS.classes, tenant="clinic")
    bench.index.put_many([NewDocument(clinic, "sha256:" + "0" * 64, [NewChunk("ours", [1.0] * 32)])])
    bench.embedder.go.set()
    told = await late
    assert isinstance(told["late.txt"], FileSkipped)
    assert told["late.txt"].reason == Reason.DOCUMENT_INVALID.code
    assert bench.index.held_by_id["x"].chunks[0].text == "ours"


async def test_I1_a_file_cannot_change_its_tenant(bench: Bench):
    told = await bench.ingest(
        {"a.txt": "tenant=bank words", "b.txt": "tenant=clinic words"}, locked("clinic")
    )
    assert isinstance(told["a.txt"], FileSkipped)
    assert isinstance(told["b.txt"], FileStored)


async def test_I1_the_same_file_of_another_tenant_is_not_taken_as_held(bench: Bench):
    await bench.ingest({"a.txt": "id=c1 same"}, locked("clinic"))
    told = await bench.ingest({"a.txt": "id=c1 same"}, locked("bank"))
    assert isinstance(told["a.txt"], FileSkipped)
    assert len(bench.parser.read) == 2


async def test_one_tenant_does_not_take_all_uploads(bench: Bench):
    async with bench.upload(tenant="clinic"), bench.upload(tenant="clinic"):
        with pytest.raises(MeshError) as error:
            async with bench.upload(tenant="clinic"):
                pass
        assert error.value.reason is Reason.OVERLOADED
        async with bench.upload(tenant="bank"):
            pass
    async with bench.upload(tenant="clinic"):
        pass


# --- batches, bounds, trouble ------------------------------------------------------------------------


async def test_texts_of_several_documents_make_one_batch(bench: Bench):
    texts = TextQueue()
    async with bench.upload() as upload:
        file = FileUnderWay(upload.tray.receive(offer_of(1, "a.txt", b"")).close(), "/a.txt")
        documents = [
            DocumentUnderWay(file, 1, DocumentMeta(str(n), classes=DEFAULTS.classes), "", ["text"] * size)
            for n, size in enumerate((3, 100, 1))
        ]
        for document in documents:
            await texts.put(document)
        await texts.close()
        batches = [await texts.take(64) for _ in range(3)]
    assert [len(batch) for batch in batches] == [64, 40, 0]
    assert [(d.meta.id, ordinal) for d, ordinal in (batches[0][2], batches[0][3], batches[1][-1])] == [
        ("0", 2), ("1", 0), ("2", 0),
    ]  # fmt: skip


async def test_a_stream_is_read_only_as_fast_as_documents_are_stored(tmp_path: Path):
    bench = Bench(tmp_path, chunks=4, files=1, parsers=1)
    bench.embedder.go.clear()
    async with bench.upload() as upload:
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for number in range(1, 21):
                await bench.send(upload, number, f"{number}.txt", f"text {number}")
                sent = number

        sending = asyncio.create_task(send_all())
        await asyncio.wait_for(bench.embedder.asked.wait(), 10)
        for _ in range(2000):  # as long as anything can still move, it does
            await asyncio.sleep(0)
        assert not sending.done()
        assert sent <= 4 + 1 + 1 + 1
        bench.embedder.go.set()
        await asyncio.wait_for(sending, 10)
    assert len(bench.told.files) == 20


async def test_a_document_larger_than_all_room_goes_through_alone(tmp_path: Path):
    bench = Bench(tmp_path, chunks=4)
    told = await bench.ingest({"long.txt": "word " * 400, "short.txt": "word"})
    assert all(isinstance(outcome, FileStored) for outcome in told.values())


async def test_a_document_of_too_many_chunks_is_refused(tmp_path: Path):
    bench = Bench(tmp_path, chunks_per_document=3)
    told = await bench.ingest({"long.txt": "word " * 400, "short.txt": "word"})
    assert isinstance(told["long.txt"], FileSkipped)
    assert told["long.txt"].reason == Reason.DOCUMENT_TOO_LARGE.code
    assert isinstance(told["short.txt"], FileStored)


async def test_a_full_disk_loses_nothing_that_was_acknowledged(bench: Bench):
    await bench.ingest({"a.txt": "one"})
    bench.index.trouble = disk_full
    told = await bench.ingest({"a.txt": "one", "b.txt": "two", "c.txt": "three"})
    assert isinstance(told["a.txt"], FileStored)
    for name in ("b.txt", "c.txt"):
        outcome = told[name]
        assert isinstance(outcome, FileSkipped)
        assert outcome.reason == Reason.INDEX_UNAVAILABLE.code
    bench.index.trouble = lambda documents: None
    told = await bench.ingest({"b.txt": "two", "c.txt": "three"})
    assert all(isinstance(outcome, FileStored) for outcome in told.values())
    assert bench.left_over == []


async def test_one_document_that_cannot_be_stored_does_not_take_its_batch_along(bench: Bench):
    def picky(documents: Sequence[NewDocument]) -> None:
        if any("poison" in chunk.text for document in documents for chunk in document.chunks):
            raise MeshError(Reason.DOCUMENT_INVALID, "a chunk: expected at most 8192 terms")

    bench.index.trouble = picky
    told = await bench.ingest({"b.jsonl": "one\npoison\nthree", "c.txt": "poison", "d.txt": "four"})
    rows = told["b.jsonl"]
    assert isinstance(rows, FileStored)
    assert (rows.documents, [row.row for row in rows.rows]) == (2, [2])
    assert isinstance(told["c.txt"], FileSkipped)
    assert isinstance(told["d.txt"], FileStored)


async def test_an_embedder_that_fails_is_told_and_nothing_half_embedded_is_stored(bench: Bench):
    bench.embedder.failure = MeshError(Reason.ENGINE_UNAVAILABLE, "the engine is starting")
    told = await bench.ingest({"a.txt": "one", "b.jsonl": "two\nthree"})
    assert {type(outcome) for outcome in told.values()} == {FileSkipped}
    assert not bench.index.held_by_id
    bench.embedder.failure = None
    told = await bench.ingest({"a.txt": "one", "b.jsonl": "two\nthree"})
    assert {type(outcome) for outcome in told.values()} == {FileStored}


async def test_an_interrupted_upload_leaves_what_was_told_and_no_files(bench: Bench):
    async def interrupted() -> None:
        async with bench.upload() as upload:
            await bench.send(upload, 1, "a.txt", "one")
            assert isinstance(await bench.told.of(1), FileStored)
            bench.embedder.go.clear()
            await bench.send(upload, 2, "b.txt", "two")
            raise ConnectionError("the caller left")

    with pytest.raises(ConnectionError):
        await interrupted()
    assert bench.left_over == []
    assert list(bench.index.held_by_id) == ["a.txt"]
    bench.embedder.go.set()
    told = await bench.ingest({"a.txt": "one", "b.txt": "two"})
    assert told == {"a.txt": FileStored(1, 1, 1), "b.txt": FileStored(1, 1, 0)}
    assert bench.parser.read.count("a.txt") == 1


async def test_a_bug_ends_the_upload_and_hides_behind_nothing(bench: Bench):
    def bug(documents: Sequence[NewDocument]) -> None:
        raise ZeroDivisionError

    bench.index.trouble = bug
    with pytest.raises(ZeroDivisionError):
        await bench.ingest({"a.txt": "one"})
    assert bench.left_over == []


async def test_a_file_that_is_on_its_way_in_is_not_taken_a_second_time(bench: Bench):
    bench.embedder.go.clear()
    mine, other = Told(), Told()
    async with bench.upload(told=mine) as upload:
        await bench.send(upload, 1, "a.txt", "one")
        async with bench.upload(told=other) as second:
            assert not await bench.send(second, 1, "a.txt", "another one")
        outcome = other.files[1]
        assert isinstance(outcome, FileSkipped)
        assert outcome.reason == Reason.INDEX_UNAVAILABLE.code
        bench.told = mine
        bench.embedder.go.set()
    assert mine.files == {1: FileStored(1, 1, 0)}


# --- the inbox ---------------------------------------------------------------------------------------


def test_what_a_killed_process_left_is_gone_at_the_next_start(tmp_path: Path):
    tray = Inbox.open(tmp_path / "inbox").tray()
    receiving = tray.receive(offer_of(1, "a.txt", b"secret"))
    receiving.add(b"sec")
    assert [p.stat().st_mode & 0o077 for p in (tmp_path / "inbox").rglob("*")] == [0, 0]
    Inbox.open(tmp_path / "inbox")
    assert list((tmp_path / "inbox").rglob("*")) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"secrets", Reason.REQUEST_INVALID),
        (b"sec", Reason.DOCUMENT_INVALID),
        (b"secreT", Reason.DOCUMENT_INVALID),
    ],
    ids=["more", "less", "other"],
)
def test_a_file_is_what_was_offered_or_it_is_not_taken(tmp_path: Path, data: bytes, reason: Reason):
    tray = Inbox.open(tmp_path / "inbox").tray()
    receiving = tray.receive(offer_of(1, "a.txt", b"secret"))

    def take() -> None:
        receiving.add(data)
        receiving.close()

    with pytest.raises(MeshError) as error:
        take()
    assert error.value.reason is reason
    tray.clear()
    assert list((tmp_path / "inbox").iterdir()) == []


def test_a_disk_without_room_refuses_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tray = Inbox.open(tmp_path / "inbox").tray()
    usage = type("Usage", (), {"free": 300 * 1024 * 1024})()
    monkeypatch.setattr("node.index.inbox.shutil.disk_usage", lambda folder: usage)
    tray.require_room(1024)
    with pytest.raises(MeshError) as error:
        tray.require_room(100 * 1024 * 1024)
    assert error.value.reason is Reason.INDEX_UNAVAILABLE


def test_long_names_make_ids_that_differ():
    names = [f"{'x' * 300}{n}.txt" for n in range(2)] + [f"{n}{'x' * 300}.txt" for n in range(2)]
    ids = {document_id_of(name) for name in names}
    assert len(ids) == 4
    assert all(len(each) == 256 for each in ids)
    assert document_id_of("a.txt") == "a.txt"
