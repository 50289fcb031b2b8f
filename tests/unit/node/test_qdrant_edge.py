"""The embedded Qdrant beyond the contract: HNSW, optimizing on the side, damage, kill -9 and its lock."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from node.index.base import Where
from node.index.memory import MemoryStore
from tests.support.vector_stores import StoreFolder, entries, entry, everyone, ids, need, number

need("qdrant_edge")

from node.index.qdrant_edge import QdrantEdgeStore  # noqa: E402 - skipped without its package

pytestmark = pytest.mark.slow
DIMENSIONS = 16


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StoreFolder]:
    made = StoreFolder("qdrant_edge", tmp_path)
    try:
        yield made
    finally:
        made.close()


def indexed(folder: StoreFolder, count: int) -> tuple[QdrantEdgeStore, MemoryStore]:
    """A store that answers from its HNSW graph, and the oracle."""
    store = folder.open(DIMENSIONS, exact_below=0)
    assert isinstance(store, QdrantEdgeStore)
    oracle = MemoryStore(DIMENSIONS)
    for each in (store, oracle):
        each.apply(entries(count, DIMENSIONS, seed=1), [])
    store.optimize()
    assert store._shard.info().indexed_vectors_count >= count, "no graph was built"
    return store, oracle


def test_the_graph_finds_what_exact_search_finds_and_nothing_excluded(folder: StoreFolder) -> None:
    """I1, at full depth: filters are inside the search of the graph."""
    store, oracle = indexed(folder, 3000)
    draw = random.Random(5)
    wheres = [
        everyone(),
        Where(frozenset({2})),
        everyone({"language": frozenset({"is"})}),
        Where(frozenset({0, 1}), {"language": frozenset({"de", "en"}), "class": frozenset({"c1", "c3"})}),
        Where(frozenset({1}), {"language": frozenset({"de"}), "class": frozenset({"c3"})}),
    ]
    for where in wheres:
        allowed = {each.id for each in oracle.by_vector([1.0] * DIMENSIONS, 16_000, where)}
        hits = total = 0
        for _ in range(20):
            question = [draw.gauss(0, 1) for _ in range(DIMENSIONS)]
            found, best = (each.by_vector(question, 10, where) for each in (store, oracle))
            deep = ids(store.by_vector(question, 100, where))
            assert set(deep) <= allowed
            assert len(deep) == min(100, len(allowed))
            hits, total = hits + len(set(ids(found)) & set(ids(best))), total + len(best)
            assert ids(store.by_vector(question, 50, where, exact=True)) == ids(
                oracle.by_vector(question, 50, where)
            )
        assert hits / total >= 0.97


def test_the_nearest_being_excluded_takes_nobodys_place_in_the_graph(folder: StoreFolder) -> None:
    """I1: a cloud of forbidden chunks around the question, and a few allowed ones far from it."""
    store = folder.open(DIMENSIONS, exact_below=0)
    near = [1.0] + [0.0] * (DIMENSIONS - 1)
    draw = random.Random(3)

    def around(centre: float) -> list[float]:
        return [centre + draw.gauss(0, 0.1), *(draw.gauss(0, 0.1) for _ in range(DIMENSIONS - 1))]

    store.apply([entry(index, around(1), terms={1: 5.0}, group=1) for index in range(2500)], [])
    allowed = [entry(5000 + index, around(-1), terms={1: 0.5}, group=2) for index in range(100)]
    store.apply(allowed, [])
    store.optimize()
    expected = {each.id for each in allowed}
    for exact in (True, False):
        assert set(ids(store.by_vector(near, 100, Where(frozenset({2})), exact=exact))) == expected
    assert set(ids(store.by_terms({1: 1.0}, 100, Where(frozenset({2}))))) == expected


def test_writes_and_searches_go_on_while_it_is_optimized(folder: StoreFolder) -> None:
    store = folder.open(DIMENSIONS, exact_below=0)
    assert isinstance(store, QdrantEdgeStore)
    store.apply(entries(2000, DIMENSIONS), [])
    done = threading.Thread(target=store.optimize)
    done.start()
    written = 0
    while done.is_alive() or not written:
        new = entry(10_000 + written, [1.0] * DIMENSIONS, group=50)
        store.apply([new], [number(written)])
        written += 1
        assert number(written - 1) not in ids(store.by_vector([1.0] * DIMENSIONS, 16_000, everyone()))
        assert new.id in ids(store.by_vector([1.0] * DIMENSIONS, 5000, Where(frozenset({50}))))
    done.join()
    kept = {number(index) for index in range(written, 2000)}
    new_ids = {number(10_000 + index) for index in range(written)}
    assert store._shard.info().indexed_vectors_count >= 2000 - written
    assert set(ids(store.by_vector([1.0] * DIMENSIONS, 16_000, everyone(), exact=True))) == kept | new_ids
    store.close()
    assert folder.open(DIMENSIONS).count() == 2000


@pytest.mark.parametrize("ending", ["close", "clear"])
def test_closing_or_clearing_ends_an_optimization(folder: StoreFolder, ending: str) -> None:
    store = folder.open(DIMENSIONS, exact_below=0)
    store.apply(entries(3000, DIMENSIONS), [])
    running = threading.Thread(target=store.optimize)
    running.start()
    getattr(store, ending)()
    running.join(30)
    assert not running.is_alive()
    store.close()
    assert folder.open(DIMENSIONS).count() == (3000 if ending == "close" else 0)
    assert len(list((folder.folder / "edge").glob("shard-*"))) == 1


def test_a_second_owner_is_refused_and_the_first_goes_on(folder: StoreFolder) -> None:
    store = folder.open(DIMENSIONS)
    for second in (lambda: folder.open(DIMENSIONS), lambda: QdrantEdgeStore.discard(folder.folder / "edge")):
        with pytest.raises(MeshError) as refused:
            second()
        assert refused.value.reason is Reason.INDEX_UNAVAILABLE
    store.apply(entries(3, DIMENSIONS), [])
    assert store.count() == 3


def test_other_dimensions_and_a_closed_store_are_unavailable(folder: StoreFolder) -> None:
    store = folder.open(DIMENSIONS)
    store.close()
    store.close()
    for ask in (store.count, store.flush, store.clear, lambda: folder.open(DIMENSIONS + 1)):
        with pytest.raises(MeshError) as refused:
            ask()
        assert refused.value.reason is Reason.INDEX_UNAVAILABLE
    assert folder.open(DIMENSIONS).count() == 0


# What is left of files after a bad disk or a hand that slipped; the engine raises on some, panics on others.
DAMAGE = {
    "current": ("*/current", b"abc"),
    "version gone": ("*/current", b"77"),
    "segment state": ("**/segment.json", b"{}"),
    "flags emptied": ("**/deleted/status.dat", b""),
    "ids overwritten": ("**/mutable_id_tracker.mappings", bytes(range(256)) * 16),
    "log overwritten": ("**/edge_config.json", b"\xff\xfe"),
    "vectors lost": ("**/vector_storage-dense/vectors/status.dat", None),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_unavailable_and_can_be_discarded(
    folder: StoreFolder, damage: tuple[str, bytes | None]
) -> None:
    pattern, content = damage
    store = folder.open(DIMENSIONS)
    store.apply(entries(300, DIMENSIONS), [])
    store.close()
    (path, *_) = folder.folder.glob(pattern)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(MeshError) as refused:
        folder.open(DIMENSIONS)
    assert refused.value.reason is Reason.INDEX_UNAVAILABLE
    assert refused.value.__cause__ is None
    QdrantEdgeStore.discard(folder.folder / "edge")
    again = folder.open(DIMENSIONS)
    again.apply(entries(5, DIMENSIONS), [])
    assert again.count() == 5


def test_a_store_that_was_never_finished_counts_as_none(folder: StoreFolder) -> None:
    half = folder.folder / "edge" / "shard-1" / "segments"
    half.mkdir(parents=True)
    (half / "segment.json").write_bytes(b"{")
    assert folder.open(DIMENSIONS).count() == 0


CHILD = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from node.index.qdrant_edge import QdrantEdgeStore
from tests.support.vector_stores import entries, number
import threading
store = QdrantEdgeStore.open(Path(sys.argv[1]), 16, exact_below=0)
all = entries(4000, 16, seed=9)
for step in range(0, 4000, 100):
    store.apply(all[step : step + 100], [number(step - 50)] if step else [])
    if step % 300 == 0:
        store.flush()
        print(step + 100, flush=True)
    if step == int(sys.argv[2]):
        threading.Thread(target=store.optimize, daemon=True).start()
print("end", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize(("after", "optimize_at"), [(1, -1), (4, -1), (9, -1), (6, 900), (11, 1500)])
def test_nothing_that_was_flushed_is_lost_over_kill_9(
    folder: StoreFolder, after: int, optimize_at: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(folder.folder / "edge"), str(optimize_at), str(Path.cwd())]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(after)][-1]
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    store = folder.open(DIMENSIONS, exact_below=0)
    found = set(ids(store.by_vector([1.0] * DIMENSIONS, 16_000, everyone(), exact=True)))
    gone = {number(step - 50) for step in range(100, acknowledged, 100)}
    perhaps = {number(acknowledged - 50)}  # the batch after the one acknowledged may have been under way
    assert {number(index) for index in range(acknowledged)} - gone - perhaps <= found
    assert not gone & found
    terms = set(ids(store.by_terms(dict.fromkeys(range(40), 1.0), 16_000, everyone())))
    assert terms == found
    store.apply(entries(4000, DIMENSIONS, seed=9), [])
    assert store.count() == 4000
