"""What every vector store keeps; MemoryStore and Where.admits are the oracle."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from node.index.base import FILTER_FIELDS, Entry, Scored, VectorStore, Where
from node.index.checks import MAX_DEPTH
from node.index.memory import MemoryStore
from tests.support.vector_stores import (
    KINDS,
    StoreFolder,
    assert_like,
    entries,
    entry,
    everyone,
    ids,
    need,
    number,
)

QUESTION = (0.3, -0.5, 0.7, 0.2)
ALL = everyone()
KEPT = ("qdrant_edge", "milvus")  # those whose files a test can open again


# A client and its server take a second to start: one store serves a module, and is cleared in between.
@pytest.fixture(
    scope="module", params=["memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    need(request.param)
    made = StoreFolder(request.param, tmp_path_factory.mktemp("store"))
    try:
        yield made.open()
    finally:
        made.close()


@pytest.fixture
def store(shared: VectorStore) -> VectorStore:
    shared.clear()
    return shared


@pytest.fixture
def oracle() -> MemoryStore:
    return MemoryStore(4)


def everything(store: VectorStore) -> list[Scored]:
    return store.by_vector(QUESTION, 1000, ALL, exact=True)


def test_an_empty_store_answers_nothing(store: VectorStore) -> None:
    assert store.count() == 0
    assert everything(store) == []
    assert store.by_terms({1: 1.0}, 10, ALL) == []
    store.apply([], [])
    store.flush()
    store.optimize()
    assert store.count() == 0


def test_scores_are_cosines_and_sums_of_products(store: VectorStore) -> None:
    store.apply(
        [
            entry(1, (1, 0, 0, 0), terms={7: 2.0, 8: 0.5}),
            entry(2, (0.6, 0.8, 0, 0), terms={7: 1.0, 2**32 - 3: 4.0}),
            entry(3, (-1, 0, 0, 0), terms={}),
        ],
        [],
    )
    found = store.by_vector((1, 0, 0, 0), 10, ALL)
    assert ids(found) == [number(1), number(2), number(3)]
    assert [each.score for each in found] == pytest.approx([1.0, 0.6, -1.0], abs=1e-6)
    found = store.by_terms({7: 3.0, 8: 2.0, 2**32 - 3: 0.25}, 10, ALL)
    assert ids(found) == [number(1), number(2)]
    assert [each.score for each in found] == pytest.approx([7.0, 4.0], rel=1e-6)


def test_only_scores_above_0_come_back_for_terms(store: VectorStore) -> None:
    store.apply([entry(1, terms={5: 1.0}), entry(2, terms={6: 1.0}), entry(3, terms={})], [])
    assert ids(store.by_terms({5: 1.0}, 10, ALL)) == [number(1)]
    assert store.by_terms({9: 1.0}, 10, ALL) == []
    assert store.by_terms({}, 10, ALL) == []


def test_applying_twice_is_applying_once(store: VectorStore, oracle: MemoryStore) -> None:
    batch, gone = entries(30, 4), [number(5), number(6), number(999)]
    for _ in range(2):
        store.apply(batch, [])
        store.apply([], gone)
    oracle.apply(batch, gone)
    oracle.apply([], gone)
    assert store.count() == oracle.count() == 28
    assert_like(everything(store), lambda depth: oracle.by_vector(QUESTION, depth, ALL), 1000)


def test_an_upsert_replaces_all_of_an_entry(store: VectorStore) -> None:
    store.apply([entry(1, (1, 0, 0, 0), terms={1: 1.0}, group=1, fields={"owner": ("a",)})], [])
    store.apply([entry(1, (0, 1, 0, 0), terms={}, group=2, fields={"source": ("s",)})], [])
    assert store.count() == 1
    (found,) = store.by_vector((0, 1, 0, 0), 10, Where(frozenset({2})))
    assert found.score == pytest.approx(1.0, abs=1e-6)
    assert store.by_terms({1: 1.0}, 10, ALL) == []
    assert store.by_vector((1, 0, 0, 0), 10, Where(frozenset({1}))) == []
    assert store.by_vector((1, 0, 0, 0), 10, everyone({"owner": frozenset({"a"})})) == []


def test_in_one_batch_the_last_write_stands_and_deletes_come_first(store: VectorStore) -> None:
    store.apply([entry(1, group=1), entry(2, group=1), entry(1, group=2)], [number(2)])
    assert ids(store.by_vector(QUESTION, 10, Where(frozenset({2})))) == [number(1)]
    assert ids(store.by_vector(QUESTION, 10, Where(frozenset({1})))) == [number(2)]


def test_what_is_deleted_is_gone_at_once(store: VectorStore) -> None:
    store.apply(entries(20, 4), [])
    for index in range(20):
        store.apply([], [number(index)])
        assert number(index) not in ids(everything(store))
        assert number(index) not in ids(store.by_terms(dict.fromkeys(range(40), 1.0), 100, ALL))
        assert store.count() == 19 - index


def test_no_groups_or_no_values_admit_nothing(store: VectorStore) -> None:
    store.apply([entry(1, fields={"owner": ("a",)})], [])
    for where in (Where(frozenset()), everyone({"owner": frozenset()}), Where(frozenset({1}))):
        assert store.by_vector(QUESTION, 10, where) == []
        assert store.by_terms({1: 1.0}, 10, where) == []


@pytest.mark.parametrize("name", sorted(FILTER_FIELDS))
def test_every_field_filters_by_any_of_its_values(store: VectorStore, name: str) -> None:
    strange = 'x" or 1 == 1 or "'
    store.apply(
        [
            entry(1, fields={name: ("a",)}),
            entry(2, fields={name: ("a", "b")}),
            entry(3, fields={name: ()}),
            entry(4),
            entry(5, fields={name: (strange, "ü\x00]")}),
        ],
        [],
    )

    def found(*values: str) -> set[bytes]:
        where = everyone({name: frozenset(values)})
        both = store.by_vector(QUESTION, 10, where), store.by_terms({1: 1.0}, 10, where)
        assert set(ids(both[0])) == set(ids(both[1]))
        return set(ids(both[0]))

    assert found("a") == {number(1), number(2)}
    assert found("b") == {number(2)}
    assert found("b", "c", strange) == {number(2), number(5)}
    assert found("ü\x00]") == {number(5)}
    assert found("A") == found("") == found("x") == set()


def test_what_is_excluded_takes_nobodys_place(store: VectorStore) -> None:
    """I1: the nearest are all forbidden; those allowed come back to the full depth all the same."""
    forbidden = [entry(index, (1, 0.001 * index, 0, 0), terms={1: 9.0}, group=1) for index in range(300)]
    allowed = [entry(1000 + index, (-1, 0.01 * index, 1, 0), terms={1: 0.1}, group=2) for index in range(20)]
    store.apply(forbidden + allowed, [])
    where = Where(frozenset({2}))
    expected = {each.id for each in allowed}
    assert set(ids(store.by_vector((1, 0, 0, 0), 20, where, exact=True))) == expected
    assert set(ids(store.by_vector((1, 0, 0, 0), 20, where))) == expected
    assert set(ids(store.by_terms({1: 1.0}, 20, where))) == expected


def test_depth_bounds_the_answer(store: VectorStore) -> None:
    store.apply(entries(12, 4), [])
    for depth, expected in ((0, 0), (1, 1), (11, 11), (12, 12), (13, 12), (MAX_DEPTH, 12)):
        assert len(store.by_vector(QUESTION, depth, ALL)) == expected
    assert len(store.by_terms(dict.fromkeys(range(40), 1.0), MAX_DEPTH, ALL)) == 12
    assert store.by_terms({1: 1.0}, 0, ALL) == []


def test_equal_scores_go_by_id_also_where_the_list_is_cut(store: VectorStore) -> None:
    order = [(index * 37) % 101 for index in range(101)]
    store.apply([entry(index, (0.5, 0.5, 0.5, 0.5), terms={3: 1.5}) for index in order], [])
    expected = [number(index) for index in range(101)]
    for depth in (1, 7, 50, 101):
        assert ids(store.by_vector(QUESTION, depth, ALL)) == expected[:depth]
        assert ids(store.by_terms({3: 1.0}, depth, ALL)) == expected[:depth]


def test_clear_removes_everything_and_leaves_it_usable(store: VectorStore) -> None:
    store.apply(entries(10, 4), [])
    store.clear()
    assert store.count() == 0
    assert everything(store) == []
    store.apply([entry(1)], [])
    assert ids(everything(store)) == [number(1)]


def test_a_large_batch_is_there_whole(store: VectorStore) -> None:
    batch = entries(10_000 if isinstance(store, MemoryStore) or "Edge" in type(store).__name__ else 2_000, 4)
    store.apply(batch, [])
    assert store.count() == len(batch)
    store.apply([], [each.id for each in batch[: len(batch) - 10]])
    assert store.count() == 10
    assert set(ids(everything(store))) == {each.id for each in batch[-10:]}


WRONG_ENTRIES = {
    "short vector": {"vector": (1, 0, 0)},
    "long vector": {"vector": (1, 0, 0, 0, 0)},
    "NaN": {"vector": (1, math.nan, 0, 0)},
    "infinite": {"vector": (1, math.inf, 0, 0)},
    "no direction": {"vector": (0, 0, 0, 0)},
    "too long to measure": {"vector": (1e200, 0, 0, 0)},
    "not numbers": {"vector": ("a", "b", "c", "d")},
    "nested": {"vector": ((1,), (1,), (1,), (1,))},
    "short id": {"id": b"x" * 15},
    "text id": {"id": "x" * 16},
    "negative weight": {"terms": {1: -1.0}},
    "no weight": {"terms": {1: 0.0}},
    "NaN weight": {"terms": {1: 1.0, 2: math.nan}},
    "infinite weight": {"terms": {1: math.inf}},
    "vanishing weight": {"terms": {1: 1e-60}},
    "negative term": {"terms": {-1: 1.0}},
    "term too large": {"terms": {2**32: 1.0}},
    "term not a number": {"terms": {"a": 1.0}},
    "negative group": {"group": -1},
    "group too large": {"group": 2**63},
    "unknown field": {"fields": {"group": ("a",)}},
    "field not a list": {"fields": {"owner": "abc"}},
    "field not texts": {"fields": {"owner": (1,)}},
    "half a character": {"fields": {"owner": ("\ud800",)}},
    "too many values": {"fields": {"owner": tuple(map(str, range(65)))}},
}


@pytest.mark.parametrize("wrong", WRONG_ENTRIES.values(), ids=WRONG_ENTRIES)
def test_a_batch_with_one_wrong_entry_changes_nothing(store: VectorStore, wrong: dict[str, Any]) -> None:
    store.apply([entry(1), entry(2)], [])
    bad: Entry = replace(entry(4), **wrong)
    with pytest.raises(MeshError) as refused:
        store.apply([entry(3), entry(1, group=9), bad], [number(2)])
    assert refused.value.reason is Reason.REQUEST_INVALID
    assert set(ids(everything(store))) == {number(1), number(2)}
    assert store.by_vector(QUESTION, 10, Where(frozenset({9}))) == []


def test_a_wrong_id_to_delete_changes_nothing(store: VectorStore) -> None:
    store.apply([entry(1)], [])
    with pytest.raises(MeshError) as refused:
        store.apply([entry(2)], [number(1), b"short"])
    assert refused.value.reason is Reason.REQUEST_INVALID
    assert ids(everything(store)) == [number(1)]


@pytest.mark.parametrize(
    "vector", [(), (1, 0, 0), (1, 0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 0), (0, 0, 0, 0)]
)
def test_a_question_with_a_wrong_vector_is_refused(store: VectorStore, vector: tuple[float, ...]) -> None:
    with pytest.raises(MeshError) as refused:
        store.by_vector(vector, 10, ALL)
    assert refused.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize(
    "weights", [{1: -1.0}, {1: 0.0}, {1: math.nan}, {1: math.inf}, {-1: 1.0}, {2**32: 1.0}, {1: "a"}]
)
def test_a_question_with_wrong_weights_is_refused(store: VectorStore, weights: dict[int, Any]) -> None:
    with pytest.raises(MeshError) as refused:
        store.by_terms(weights, 10, ALL)
    assert refused.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("depth", [-1, MAX_DEPTH + 1, 10**6, 1.5, True])
def test_a_depth_out_of_bounds_is_refused(store: VectorStore, depth: Any) -> None:
    for ask in (lambda: store.by_vector(QUESTION, depth, ALL), lambda: store.by_terms({1: 1.0}, depth, ALL)):
        with pytest.raises(MeshError) as refused:
            ask()
        assert refused.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("name", ["group", "release_group", "tenant", "", 'language"] or true'])
def test_an_unknown_filter_is_refused(store: VectorStore, name: str) -> None:
    """I1: the release group cannot be widened by a filter, and nothing is ignored in silence."""
    where = everyone({name: frozenset({"a"})})
    for ask in (lambda: store.by_vector(QUESTION, 1, where), lambda: store.by_terms({1: 1.0}, 1, where)):
        with pytest.raises(MeshError) as refused:
            ask()
        assert refused.value.reason is Reason.FILTER_UNKNOWN
        assert not name or name == "group" or name not in str(refused.value)


def test_searches_from_several_threads_while_it_is_written(store: VectorStore) -> None:
    """I1: nothing excluded comes back, and what is there before and after is found all the while."""
    store.apply([entry(index, (1, index / 100, 0, 0), group=1) for index in range(50)], [])
    where, expected = Where(frozenset({1})), [number(index) for index in range(50)]
    wrong: list[object] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            try:
                found = ids(store.by_vector((1, 0, 0, 0), 100, where))
                if found != expected or set(ids(store.by_terms({1: 1.0}, 100, where))) != set(expected):
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for start in range(1000, 1200, 20):
            store.apply([entry(index, (1, 0, 0, 0), group=2) for index in range(start, start + 20)], [])
            store.apply([], [number(index) for index in range(start, start + 10)])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert store.count() == 150


VALUES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 11)
WEIGHTS = st.floats(0.125, 8, width=32)
VECTORS = st.tuples(*[st.integers(-8, 8).map(float)] * 4).filter(any)
FILTERS = st.dictionaries(st.sampled_from(["owner", "language"]), st.frozensets(VALUES, max_size=2))
ENTRIES = st.builds(
    lambda index, vector, terms, group, fields: entry(index, vector, terms=terms, group=group, fields=fields),
    NUMBERS,
    VECTORS,
    st.dictionaries(st.integers(0, 5), WEIGHTS, max_size=4),
    st.integers(0, 2),
    st.dictionaries(st.sampled_from(["owner", "language"]), st.lists(VALUES, max_size=2).map(tuple)),
)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    batches=st.lists(st.tuples(st.lists(ENTRIES, max_size=8), st.lists(NUMBERS, max_size=3)), max_size=3),
    groups=st.frozensets(st.integers(0, 3)),
    fields=FILTERS,
    vector=VECTORS,
    weights=st.dictionaries(st.integers(0, 5), WEIGHTS, max_size=4),
    depth=st.integers(0, 14),
)
def test_it_answers_as_the_oracle_does(
    store: VectorStore,
    batches: list[tuple[list[Entry], list[int]]],
    groups: frozenset[int],
    fields: dict[str, frozenset[str]],
    vector: tuple[float, ...],
    weights: dict[int, float],
    depth: int,
) -> None:
    oracle, where = MemoryStore(4), Where(groups, fields)
    store.apply([], [number(index) for index in range(12)])
    for upserts, deletes in batches:
        for each in (store, oracle):
            each.apply(upserts, [number(index) for index in deletes])
    assert store.count() == oracle.count()
    for exact in (True, False):
        found = store.by_vector(vector, depth, where, exact=exact)
        assert_like(found, lambda deep: oracle.by_vector(vector, deep, where), depth)
    found = store.by_terms(weights, depth, where)
    assert_like(found, lambda deep: oracle.by_terms(weights, deep, where), depth)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KEPT)
def test_what_was_flushed_is_there_when_it_is_opened_again(kind: str, tmp_path: Path) -> None:
    need(kind)
    made = StoreFolder(kind, tmp_path / "store")
    try:
        store = made.open()
        store.apply(entries(50, 4), [number(3)])
        store.apply([], [number(4)])
        before = everything(store), store.by_terms({1: 1.0, 2: 1.0}, 100, ALL)
        store.flush()
        store.close()
        again = made.open()
        assert again.count() == 49
        assert (everything(again), again.by_terms({1: 1.0, 2: 1.0}, 100, ALL)) == before
    finally:
        made.close()
