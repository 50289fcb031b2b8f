"""What every record store keeps, the one in memory and the one on a real etcd alike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES
from mesh.store.base import RecordStore, WatchKind
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdServer
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.etcd import fast_server, watching

MakeStore = Callable[[], RecordStore]
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = fast_server(Path(tmp_path_factory.mktemp("etcd")) / "data")
    asyncio.run(server.start())
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest) -> MemoryBoard | EtcdServer:
    return MemoryBoard() if request.param == "memory" else request.getfixturevalue("etcd")


@pytest.fixture
async def make(backend: MemoryBoard | EtcdServer) -> AsyncIterator[MakeStore]:
    """Makes stores that share one board."""
    made: list[RecordStore] = []

    def new() -> RecordStore:
        store = MemoryStore(backend) if isinstance(backend, MemoryBoard) else EtcdStore([backend.endpoint])
        made.append(store)
        return made[-1]

    yield new
    for each in made:
        await each.aclose()


@pytest.fixture
def store(make: MakeStore) -> RecordStore:
    return make()


@pytest.fixture
def prefix() -> str:
    return f"/sovereign/v1/t{next(_prefixes)}.example/"


async def test_what_was_put_is_got_with_the_revision_that_put_returned(
    store: RecordStore, prefix: str
) -> None:
    assert await store.get(prefix + "policy") is None
    revision = await store.put(prefix + "policy", b"one")
    entry = await store.get(prefix + "policy")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == (prefix + "policy", b"one", revision)
    assert await store.put(prefix + "policy", b"two") > revision


@pytest.mark.parametrize(
    "value", [b"", b"\x00", bytes(range(256)), b"\xff\xfe" * 1000], ids=["empty", "nul", "all", "long"]
)
async def test_values_are_bytes_and_nothing_else(store: RecordStore, prefix: str, value: bytes) -> None:
    await store.put(prefix + "policy", value)
    entry = await store.get(prefix + "policy")
    assert entry is not None
    assert entry.value == value


async def test_the_largest_value_fits_and_one_byte_more_is_refused(store: RecordStore, prefix: str) -> None:
    await store.put(prefix + "policy", b"x" * MAX_ENVELOPE_BYTES)
    with pytest.raises(MeshError) as refused:
        await store.put(prefix + "policy", b"x" * (MAX_ENVELOPE_BYTES + 1))
    assert refused.value.reason is Reason.RECORD_TOO_LARGE
    entry = await store.get(prefix + "policy")
    assert entry is not None
    assert len(entry.value) == MAX_ENVELOPE_BYTES


@pytest.mark.parametrize("key", ["", "k" * 257, "ü" * 129], ids=["empty", "long", "long-in-bytes"])
async def test_a_key_that_no_record_can_have_is_refused(store: RecordStore, key: str) -> None:
    with pytest.raises(MeshError) as refused:
        await store.put(key, b"x")
    assert refused.value.reason is Reason.RECORD_WRONG_KEY


async def test_a_listing_is_sorted_and_keeps_to_its_prefix(store: RecordStore, prefix: str) -> None:
    for name in ("b", "a", "c"):
        await store.put(prefix + name, name.encode())
    await store.put(prefix[:-1] + "x/a", b"beside")
    entries, revision = await store.list(prefix)
    assert [(entry.key, entry.value) for entry in entries] == [(prefix + n, n.encode()) for n in "abc"]
    assert revision >= max(entry.revision for entry in entries)
    assert (await store.list(prefix + "none/"))[0] == []


async def test_a_listing_longer_than_a_page_is_whole(store: RecordStore, prefix: str) -> None:
    names = [f"{index:04d}" for index in range(250)]
    await asyncio.gather(*(store.put(prefix + name, b"x") for name in names))
    entries, _ = await store.list(prefix)
    assert [entry.key for entry in entries] == [prefix + name for name in names]


async def test_an_expected_revision_that_does_not_hold_changes_nothing(
    store: RecordStore, prefix: str
) -> None:
    key = prefix + "policy"
    first = await store.put(key, b"one", expected_revision=0)
    for wrong in (0, first - 1, first + 1):
        with pytest.raises(MeshError) as refused:
            await store.put(key, b"wrong", expected_revision=wrong)
        assert refused.value.reason is Reason.STORE_CONFLICT
    second = await store.put(key, b"two", expected_revision=first)
    with pytest.raises(MeshError):
        await store.delete(key, expected_revision=first)
    entry = await store.get(key)
    assert entry is not None
    assert (entry.value, entry.revision) == (b"two", second)
    assert await store.delete(key, expected_revision=second)
    assert await store.get(key) is None


async def test_of_concurrent_writers_exactly_one_wins(make: MakeStore, prefix: str) -> None:
    stores = [make() for _ in range(4)]
    key = prefix + "policy"
    for expected in (0, None):
        if expected is None:
            entry = await stores[0].get(key)
            assert entry is not None
            expected = entry.revision
        results = await asyncio.gather(
            *(stores[i % 4].put(key, b"%d" % i, expected_revision=expected) for i in range(16)),
            return_exceptions=True,
        )
        won = [i for i, result in enumerate(results) if isinstance(result, int)]
        lost = [result.reason for result in results if isinstance(result, MeshError)]
        assert len(won) == 1
        assert lost == [Reason.STORE_CONFLICT] * 15
        entry = await stores[0].get(key)
        assert entry is not None
        assert entry.value == b"%d" % won[0]


async def test_deleting_tells_whether_there_was_something(store: RecordStore, prefix: str) -> None:
    await store.put(prefix + "a", b"x")
    assert await store.delete(prefix + "a")
    assert not await store.delete(prefix + "a")


async def test_a_watch_begins_with_a_listing_and_then_tells_every_change_in_order(
    make: MakeStore, prefix: str
) -> None:
    writer, reader = make(), make()
    await writer.put(prefix + "before", b"there")
    async with watching(reader, prefix) as watcher:
        assert watcher.batches[0].kind is WatchKind.LISTING
        assert watcher.state == {prefix + "before": b"there"}
        expected: list[tuple[str, bytes | None]] = []
        for i in range(50):
            key = f"{prefix}k{i % 5}"
            if i % 7 == 6:
                if await writer.delete(key):
                    expected.append((key, None))
            else:
                await writer.put(key, b"%d" % i)
                expected.append((key, b"%d" % i))
        await writer.put(prefix[:-1] + "x/other", b"beside")
        await watcher.until(lambda w: len(w.history) >= len(expected))
        assert watcher.history == expected
        revisions = [b.revision for b in watcher.batches if b.kind is WatchKind.CHANGES]
        assert revisions == sorted(revisions)


async def test_nothing_falls_between_the_listing_and_the_changes(make: MakeStore, prefix: str) -> None:
    writer, reader = make(), make()
    stop = asyncio.Event()

    async def write() -> int:
        for i in itertools.count():
            await writer.put(prefix + "counter", b"%d" % i)
            if stop.is_set():
                return i
        return 0

    writing = asyncio.create_task(write())
    try:
        for _ in range(5):
            async with watching(reader, prefix) as watcher:
                await watcher.until(lambda w: len(w.history) >= 20)
                seen = [int(value or b"-1") for _, value in watcher.history]
                listed = [int(entry.value) for entry in watcher.batches[0].puts]
                assert seen == list(range(seen[0], seen[0] + len(seen)))
                assert listed in ([], [seen[0] - 1])
    finally:
        stop.set()
        await writing


async def test_many_watchers_all_see_everything(make: MakeStore, prefix: str) -> None:
    writer, reader = make(), make()
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(reader, prefix)) for _ in range(30)]
        for i in range(10):
            await writer.put(prefix + "k", b"%d" % i)
        for watcher in watchers:
            await watcher.until(lambda w: len(w.history) >= 10)
            assert watcher.history == [(prefix + "k", b"%d" % i) for i in range(10)]


async def test_a_closed_store_ends_its_watches(make: MakeStore, prefix: str) -> None:
    store = make()
    batches = store.watch(prefix)
    assert (await anext(batches)).kind is WatchKind.LISTING
    rest = asyncio.create_task(_drain(batches))
    await store.aclose()
    await asyncio.wait_for(rest, 5)
    with pytest.raises(MeshError) as refused:
        await store.get(prefix + "a")
    assert refused.value.reason is Reason.STORE_UNAVAILABLE


@pytest.mark.slow
async def test_a_key_lives_as_long_as_its_lease_is_renewed(make: MakeStore, prefix: str) -> None:
    owner, reader = make(), make()
    async with watching(reader, prefix) as watcher:
        lease = await owner.lease(1.0)
        await owner.put(prefix + "status", b"up", lease=lease)
        # Renewed past its time to live: outlasting it is the point here, so there is no event to wait for.
        await asyncio.sleep(2.2)
        assert not lease.lost
        assert await reader.get(prefix + "status") is not None
        await lease.aclose()
        await watcher.until(lambda w: w.history[-1:] == [(prefix + "status", None)], 5)


@pytest.mark.slow
async def test_the_keys_of_an_owner_that_is_gone_vanish(make: MakeStore, prefix: str) -> None:
    owner, reader = make(), make()
    async with watching(reader, prefix) as watcher:
        await owner.put(prefix + "status", b"up", lease=await owner.lease(1.0))
        await owner.put(prefix + "record", b"stays")
        await owner.aclose()
        await watcher.until(lambda w: w.history[-1:] == [(prefix + "status", None)], 10)
        assert watcher.state == {prefix + "record": b"stays"}


async def test_a_key_put_again_without_the_lease_outlives_it(store: RecordStore, prefix: str) -> None:
    lease = await store.lease(5.0)
    await store.put(prefix + "status", b"one", lease=lease)
    await store.put(prefix + "status", b"two")
    await lease.aclose()
    entry = await store.get(prefix + "status")
    assert entry is not None
    assert entry.value == b"two"


async def test_nothing_is_put_under_a_lease_that_has_ended(store: RecordStore, prefix: str) -> None:
    lease = await store.lease(5.0)
    await lease.aclose()
    assert lease.lost
    with pytest.raises(MeshError) as refused:
        await store.put(prefix + "status", b"x", lease=lease)
    assert refused.value.reason is Reason.STORE_CONFLICT
    assert await store.get(prefix + "status") is None


async def _drain(batches: AsyncIterator[object]) -> None:
    async for _ in batches:
        pass
