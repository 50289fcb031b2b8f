"""One index: what it refuses, what it forgets, and what it says while things change or break."""

from __future__ import annotations

import dataclasses
import datetime
import os
import random
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ReleaseGroup
from mesh.core.types import DataClass
from node.index import durable
from node.index.base import Entry, Scored, Where
from node.index.documents import DocumentMeta
from node.index.index import DocumentIndex, NewChunk, NewDocument
from node.index.memory import MemoryStore
from node.index.stored import MAX_CHUNK_BYTES, MAX_CHUNK_TERMS
from tests.support.document_index import (
    DIMENSIONS,
    SECRET,
    TODAY,
    Day,
    Oracle,
    a_document,
    check,
    made,
    reopened,
    settings,
    until,
)

PUBLIC = frozenset({DataClass.PUBLIC})


def document(each: str, *texts: str, **known: object) -> NewDocument:
    meta = DocumentMeta(each, **{"classes": PUBLIC, **known})  # type: ignore[arg-type]
    return NewDocument(meta, f"sha256:{each}", [NewChunk(text, [1.0] * DIMENSIONS) for text in texts])


@pytest.fixture
def day() -> Day:
    return Day()


@pytest.fixture
def index(tmp_path: Path, day: Day) -> Iterator[DocumentIndex]:
    opened = made(tmp_path / "papers", clock=day)
    yield opened
    opened.close()


def every(index: DocumentIndex) -> Where:
    return Where(frozenset(index.groups()))


def refusal(reason: Reason) -> pytest.RaisesExc[MeshError]:
    return pytest.RaisesExc(MeshError, check=lambda error: error.reason is reason)


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (NewChunk("x" * (MAX_CHUNK_BYTES + 1), [1.0] * DIMENSIONS), Reason.DOCUMENT_INVALID),
        (NewChunk("\ud800", [1.0] * DIMENSIONS), Reason.DOCUMENT_INVALID),
        (
            NewChunk(" ".join(f"{n:x}" for n in range(MAX_CHUNK_TERMS + 40)), [1.0] * 8),
            Reason.DOCUMENT_INVALID,
        ),
        (NewChunk("x", [1.0] * (DIMENSIONS - 1)), Reason.REQUEST_INVALID),
        (NewChunk("x", [float("nan")] * DIMENSIONS), Reason.REQUEST_INVALID),
        (NewChunk("x", [0.0] * DIMENSIONS), Reason.REQUEST_INVALID),
    ],
)
def test_what_is_refused_changes_nothing(index: DocumentIndex, chunk: NewChunk, reason: Reason) -> None:
    index.put_many([document("a", "ward")])
    with refusal(reason):
        index.put_many([document("a", "bank"), NewDocument(document("b").meta, "", [chunk])])
    (stored,) = index.chunks(
        [s.id for s in index.by_terms(["ward"], [1.0], 9, every(index))], every(index).groups
    ).values()
    assert stored.text == "ward"
    assert index.digest_of("b") is None


def test_groups_are_bounded_and_their_numbers_never_used_again(
    index: DocumentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MAX_GROUPS", 3)
    index.put_many([document(f"d{n}", "ward", owner=f"o{n}") for n in range(3)])
    with refusal(Reason.DOCUMENT_INVALID):
        index.put_many([document("d9", "ward", owner="o9")])
    numbers = {group.owner: number for number, group in index.groups().items()}
    index.delete(["d2"])
    index.put_many([document("d3", "ward", tenant="clinic")])
    groups = index.groups()
    assert numbers["o2"] not in groups
    assert ReleaseGroup("clinic", "", PUBLIC) in groups.values()


def test_one_tenant_does_not_use_up_the_groups_of_all(
    index: DocumentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MAX_GROUPS_OF_TENANT", 2)
    index.put_many([document(f"d{n}", "ward", owner=f"o{n}", tenant="bank") for n in range(2)])
    with refusal(Reason.DOCUMENT_INVALID):
        index.put_many([document("d9", "ward", owner="o9", tenant="bank")])
    index.put_many([document("d0", "ward", owner="o1", tenant="bank")])  # one it has already
    index.put_many(
        [document("e", "ward", tenant="clinic"), *(document(f"f{n}", "w", owner=f"{n}") for n in "abc")]
    )
    assert len(index.groups()) == 5


def test_a_document_that_moved_to_another_group_is_not_found_in_the_old_one(index: DocumentIndex) -> None:
    """I1: whoever was told the old group's number does not reach what is now under another."""
    index.put_many([document("a", "ward"), document("b", "ward")])
    old = every(index)
    (id_of_a,) = (
        s.id for s in index.by_terms(["ward"], [1.0], 9, Where(old.groups, {"document": frozenset({"a"})}))
    )
    index.put_many([document("a", "ward", tenant="clinic")])
    assert id_of_a not in index.chunks([id_of_a], old.groups)
    assert id_of_a not in {s.id for s in index.by_vector([1.0] * DIMENSIONS, 9, old)}
    assert index.statistics(["ward"], old.groups) == (1, (1,))


def test_tenants_keep_apart(index: DocumentIndex) -> None:
    index.put_many([document("a", "ward", tenant="clinic"), document("b", "ward", tenant="bank")])
    assert [d.meta.id for d in index.documents("", 9, tenant="clinic")] == ["a"]
    assert index.delete(["a", "b"], tenant="bank") == 1
    with refusal(Reason.DOCUMENT_INVALID):
        index.put_many([document("a", "mine", tenant="bank")], tenant="bank")
    assert index.digest_of("a") is not None


def test_what_is_deleted_leaves_no_trace_in_the_files(tmp_path: Path) -> None:
    index = made(tmp_path / "papers")
    try:
        index.put_many(
            [document("kept", "harbour"), document("gone", "canarybird sings", title="Canarytitle")]
        )
        index.delete(["gone"])
        for file in (tmp_path / "papers").rglob("*"):
            if file.is_file():
                assert b"anary" not in file.read_bytes(), file.name
    finally:
        index.close()


def test_deleting_a_document_forgets_that_its_file_was_read(index: DocumentIndex) -> None:
    index.put(document("a", "ward").meta, "sha256:1", [], file="a.txt")
    index.note_file("a.txt", b"1" * 32)
    index.note_file("b.txt", b"2" * 32)
    index.delete(["a"])
    assert (index.file_digest("a.txt"), index.file_digest("b.txt")) == (None, b"2" * 32)


def test_from_its_last_day_on_a_document_is_neither_found_nor_counted(index: DocumentIndex, day: Day) -> None:
    index.put_many(
        [document("a", "ward"), document("b", "ward fever", retain_until=TODAY + datetime.timedelta(1))]
    )
    where = every(index)
    assert index.statistics(["fever", "ward"], where.groups) == (2, (1, 2))
    day.date += datetime.timedelta(1)
    assert index.statistics(["fever", "ward"], where.groups) == (1, (0, 1))
    assert index.by_terms(["fever"], [1.0], 9, where) == ()
    assert len(index.by_vector([1.0] * DIMENSIONS, 9, where)) == 1
    assert index.status().documents == 1
    assert index.status().state == "ready"
    assert index.purge() == 1
    assert index.digest_of("b") is None


def test_files_are_the_owners_alone(tmp_path: Path, index: DocumentIndex) -> None:
    folder = tmp_path / "papers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("index.db", "index.db-wal", "lock", "made"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_one_owner_at_a_time(tmp_path: Path, index: DocumentIndex) -> None:
    with refusal(Reason.INDEX_UNAVAILABLE):
        reopened(tmp_path / "papers")
    with refusal(Reason.COLLECTION_EXISTS):
        made(tmp_path / "papers")


def test_a_full_disk_refuses_and_keeps_what_was_there(index: DocumentIndex, day: Day) -> None:
    rng, oracle = random.Random(3), Oracle()
    first = [a_document(rng) for _ in range(8)]
    index.put_many(first)
    oracle.put(*first)
    writer = index._database._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")
    with refusal(Reason.INDEX_UNAVAILABLE):
        index.put_many([document(f"big-{n}", "x " * 20_000) for n in range(40)])
    check(index, oracle, TODAY, rng)
    writer.execute(f"PRAGMA max_page_count={1 << 30}")
    index.put_many([more := a_document(rng)])
    oracle.put(more)
    check(index, oracle, TODAY, rng)


class Treacherous(MemoryStore):
    """A store that fails or lies when told to."""

    broken = lying = False

    def apply(self, upserts: list[Entry], deletes: list[bytes]) -> None:  # type: ignore[override]
        if self.broken:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "expected a store that works")
        super().apply(upserts, deletes)

    def by_vector(self, *args: object, **known: object) -> list[Scored]:  # type: ignore[override]
        if self.broken:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "expected a store that works")
        found = super().by_vector(*args, **known)  # type: ignore[arg-type]
        return [Scored(s.id, s.score - 0.5) for s in found] if self.lying else found


@pytest.mark.parametrize("trouble", ["broken", "lying"])
def test_a_store_in_trouble_is_replaced_and_answers_stay_right(
    trouble: str, index: DocumentIndex, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, oracle = random.Random(5), Oracle()
    monkeypatch.setattr("node.index.index.open_store", lambda *_: Treacherous(DIMENSIONS))
    index.rebuild()
    store = index._follower._shelf.store  # type: ignore[union-attr]
    documents = [a_document(rng) for _ in range(9)]
    index.put_many(documents[:6])
    setattr(store, trouble, True)
    index.put_many(documents[6:])
    oracle.put(*documents)
    check(index, oracle, TODAY, rng)
    until(lambda: index.status().state == "ready")
    assert index._follower._shelf.store is not store  # type: ignore[union-attr]
    check(index, oracle, TODAY, rng)


def test_a_store_that_keeps_failing_is_not_rebuilt_without_end(
    index: DocumentIndex, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, oracle = random.Random(5), Oracle()
    monkeypatch.setattr("node.index.index.open_store", lambda *_: Treacherous(DIMENSIONS))
    monkeypatch.setattr(Treacherous, "lying", True)
    index.rebuild()
    documents = [a_document(rng) for _ in range(9)]
    index.put_many(documents)
    oracle.put(*documents)
    check(index, oracle, TODAY, rng)
    until(lambda: index.status().state in ("ready", "failed"))
    check(index, oracle, TODAY, rng)
    assert index.status().state == "failed"
    assert index.status().behind == index.status().chunks
    monkeypatch.setattr(Treacherous, "lying", False)
    day.date += datetime.timedelta(days=1)
    oracle.purge(day.date)
    index.tend()
    until(lambda: index.status().state == "ready")
    check(index, oracle, day.date, rng)


@pytest.mark.slow
def test_readers_see_one_version_or_the_other(index: DocumentIndex) -> None:
    """While a document is replaced over and over, and the store rebuilt, no answer mixes two versions."""

    def version(number: int) -> NewDocument:
        chunks = [NewChunk(f"ward version{number}", [1.0] * DIMENSIONS) for _ in range(1 + number % 5)]
        return NewDocument(document("a").meta, str(number), chunks)

    index.put_many([version(0), document("b", "bank")])
    where, stop, troubles = every(index), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            ranked = index.by_terms(["ward"], [1.0], 50, where)
            near = index.by_vector([1.0] * DIMENSIONS, 50, where)
            found = [
                c.text for c in index.chunks([s.id for s in near], where.groups).values() if "ward" in c.text
            ]
            if len(set(found)) > 1 or not 1 <= len(ranked) <= 5 or len({s.score for s in ranked}) != 1:
                troubles.append((found, len(ranked)))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 60):
            index.put_many([version(number)])
            if number % 20 == 0:
                index.rebuild()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not troubles
    assert index.status().state == "ready"


def test_writes_during_a_rebuild_are_not_lost(index: DocumentIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, oracle = random.Random(8), Oracle()
    monkeypatch.setattr("node.index.follower._AT_ONCE", 4)
    documents = [a_document(rng) for _ in range(30)]
    index.put_many(documents[:20])
    oracle.put(*documents[:20])
    late = iter(documents[20:])

    def meddle(done: int, total: int) -> None:
        if (one := next(late, None)) is not None:
            index.put_many([one])
            oracle.put(one)
            check(index, oracle, TODAY, rng)  # searched meanwhile
        assert index.delete(["doc-3"]) == oracle.delete("doc-3")

    index.rebuild(meddle)
    check(index, oracle, TODAY, rng)
    assert index._follower._shelf.store.count() == len(oracle.chunks(TODAY))  # type: ignore[union-attr]


def test_an_index_is_gone_when_destroyed(tmp_path: Path) -> None:
    index = made(tmp_path / "papers")
    index.put_many([document("a", "ward")])
    index.destroy()
    assert os.listdir(tmp_path) == []
    with refusal(Reason.INDEX_UNAVAILABLE):
        index.groups()


@pytest.mark.parametrize(
    ("terms", "weights"), [(["a"], []), (["a", "a"], [1, 1]), (["a"], [float("nan")]), (["a"], [-1.0])]
)
def test_questions_that_make_no_sense(index: DocumentIndex, terms: list[str], weights: list[float]) -> None:
    with refusal(Reason.REQUEST_INVALID):
        index.by_terms(terms, weights, 9, Where(frozenset({1})))


def test_ids_say_nothing_and_survive(tmp_path: Path, index: DocumentIndex) -> None:
    index.put_many([document("a", "ward")])
    (hit,) = index.by_terms(["ward"], [1.0], 9, every(index))
    assert hit.id == durable.chunk_id(SECRET, "papers", "a", 0)
    assert hit.id != durable.chunk_id(b"another", "papers", "a", 0)
    other = DocumentIndex.create(
        tmp_path / "other", dataclasses.replace(index.spec, name="other"), SECRET, settings("memory"), Day()
    )
    try:
        other.put_many([document("a", "ward")])
        assert other.by_terms(["ward"], [1.0], 9, every(other))[0].id != hit.id
    finally:
        other.close()
