"""What answers in etcd's place may say anything: the store refuses or leaves out, and stands (I5)."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES
from mesh.store.base import WatchKind
from mesh.store.etcd import EtcdStore
from sovereign.etcd.v3 import etcd_pb2 as pb
from tests.support.etcd import Watcher, watching

pytestmark = pytest.mark.slow

PREFIX = "/sovereign/v1/de.mesh.example/"
KEY = PREFIX + "policy"
HEADER = pb.ResponseHeader(cluster_id=1, revision=10)
JUNK = b"\xff\x13\x37" * 50

Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class FakeEtcd(grpc.GenericRpcHandler):
    """Answers each unary method with what `answers` has for it, and a watch with the messages of `watch`."""

    def __init__(self, answers: dict[str, list[bytes | grpc.StatusCode]], watch: list[bytes]) -> None:
        self._answers = answers
        self._watch = watch
        self.watched: asyncio.Queue[float] = asyncio.Queue()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rsplit("/", 1)[1]
        if method in ("Watch", "LeaseKeepAlive"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        answers = self._answers.get(method, [b""])

        async def unary(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, grpc.StatusCode):
                await context.abort(answer, "no")
            assert isinstance(answer, bytes)
            return answer

        return grpc.unary_unary_rpc_method_handler(unary)

    async def _stream(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        self.watched.put_nowait(asyncio.get_running_loop().time())
        await anext(requests)
        for message in self._watch:
            yield message
        async for _ in requests:
            yield _bytes(pb.WatchResponse(header=HEADER, watch_id=-1))


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


@asynccontextmanager
async def fake(
    answers: dict[str, list[bytes | grpc.StatusCode]] | None = None, watch: list[bytes] | None = None
) -> AsyncIterator[tuple[EtcdStore, FakeEtcd]]:
    handler = FakeEtcd(answers or {"Range": [_bytes(pb.RangeResponse(header=HEADER))]}, watch or [])
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = EtcdStore([f"127.0.0.1:{port}"], timeout_s=1.0, progress_s=0.1, silence_s=0.5)
    try:
        yield store, handler
    finally:
        await store.aclose()
        await server.stop(None)


async def everything_is_refused(store: EtcdStore) -> None:
    lease = store.lease(5)
    for attempt in (store.get(KEY), store.list(PREFIX), store.put(KEY, b"x"), store.delete(KEY), lease):
        with pytest.raises(MeshError) as refused:
            await attempt
        assert refused.value.reason is Reason.STORE_UNAVAILABLE


async def disconnected_for_good(store: EtcdStore) -> None:
    watcher = Watcher(store, PREFIX)
    try:
        await watcher.until(lambda w: w.batches, 10)
        assert [batch.kind for batch in watcher.batches] == [WatchKind.DISCONNECTED]
    finally:
        await watcher.aclose()


async def test_answers_that_are_not_protobuf() -> None:
    methods = ("Range", "Put", "DeleteRange", "Txn", "LeaseGrant")
    async with fake({method: [JUNK] for method in methods}, [JUNK]) as (store, _):
        await everything_is_refused(store)
        await disconnected_for_good(store)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_is_a_failure_of_the_store(code: grpc.StatusCode) -> None:
    methods = ("Range", "Put", "DeleteRange", "Txn", "LeaseGrant")
    async with fake({method: [code] for method in methods}) as (store, _):
        await everything_is_refused(store)


@pytest.mark.parametrize(
    "says", [b"SSH-2.0-whatever\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b"\x00" * 4096, b""]
)
async def test_something_that_does_not_speak_grpc(says: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    store = EtcdStore([f"127.0.0.1:{server.sockets[0].getsockname()[1]}"], timeout_s=0.3)
    await everything_is_refused(store)
    await disconnected_for_good(store)
    await store.aclose()
    server.close()


def value(key: bytes, size: int = 1, revision: int = 5) -> pb.KeyValue:
    return pb.KeyValue(key=key, value=b"x" * size, mod_revision=revision)


async def test_keys_that_are_no_text_or_lie_elsewhere_are_left_out_and_counted() -> None:
    bad = [b"\xff\xfe", b"/elsewhere/x", b"", PREFIX.encode() + b"\xc3", PREFIX.encode() + b"k" * 300]
    listing = pb.RangeResponse(header=HEADER, kvs=[*map(value, bad), value(KEY.encode())])
    event = pb.WatchResponse(
        header=HEADER, events=[pb.KvEvent(kv=value(key, revision=11)) for key in [*bad, KEY.encode()]]
    )
    async with fake({"Range": [_bytes(listing)]}, [_bytes(event)]) as (store, _):
        assert [entry.key for entry in (await store.list(PREFIX))[0]] == [KEY]
        assert store.ignored == len(bad)
        async with watching(store, PREFIX) as watcher:
            await watcher.until(lambda w: w.history)
            assert watcher.history == [(KEY, b"x")]
            assert store.ignored == 3 * len(bad)


async def test_a_value_that_is_too_large_arrives_as_one_that_its_reader_refuses() -> None:
    large = value(KEY.encode(), 3 * MAX_ENVELOPE_BYTES)
    listing = _bytes(pb.RangeResponse(header=HEADER, kvs=[large]))
    large.mod_revision = 11
    event = _bytes(pb.WatchResponse(header=HEADER, events=[pb.KvEvent(kv=large)]))
    async with fake({"Range": [listing]}, [event]) as (store, _):
        entry = await store.get(KEY)
        assert entry is not None
        assert len(entry.value) == MAX_ENVELOPE_BYTES + 1
        async with watching(store, PREFIX) as watcher:
            await watcher.until(lambda w: w.history)
            assert len(watcher.history[0][1] or b"") == MAX_ENVELOPE_BYTES + 1


async def test_a_message_beyond_all_bounds_is_not_read() -> None:
    enormous = _bytes(pb.RangeResponse(header=HEADER, kvs=[value(KEY.encode(), 40 * 1024 * 1024)]))
    async with fake({"Range": [enormous]}) as (store, _):
        with pytest.raises(MeshError) as refused:
            await store.get(KEY)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE


@pytest.mark.parametrize("keys", [[], [KEY], [PREFIX + "a", PREFIX + "b"]], ids=["empty", "one", "two"])
async def test_a_listing_that_never_ends_is_given_up(keys: list[str]) -> None:
    page = pb.RangeResponse(header=HEADER, kvs=[value(key.encode()) for key in keys], more=True)
    async with fake({"Range": [_bytes(page)]}) as (store, _):
        with pytest.raises(MeshError) as refused:
            await store.list(PREFIX)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE


async def test_a_get_that_is_answered_with_another_key_finds_nothing() -> None:
    async with fake({"Range": [_bytes(pb.RangeResponse(header=HEADER, kvs=[value(b"/other")]))]}) as (
        store,
        _,
    ):
        assert await store.get(KEY) is None


async def test_changes_in_fragments_arrive_as_one_and_old_ones_not_again() -> None:
    def part(revision: int, fragment: bool, *names: str) -> bytes:
        events = [pb.KvEvent(kv=value((PREFIX + name).encode(), revision=revision)) for name in names]
        return _bytes(
            pb.WatchResponse(
                header=pb.ResponseHeader(cluster_id=1, revision=20), events=events, fragment=fragment
            )
        )

    messages = [
        part(10, False, "old"),
        part(11, True, "a", "b"),
        part(11, True, "c"),
        part(11, False, "d"),
        part(12, False, "e"),
    ]
    async with fake(watch=messages) as (store, _), watching(store, PREFIX) as watcher:
        await watcher.until(lambda w: len(w.history) >= 5)
        changes = [batch for batch in watcher.batches if batch.kind is WatchKind.CHANGES]
        assert [[entry.key[-1] for entry in batch.puts] for batch in changes] == [["a", "b", "c", "d"], ["e"]]
        assert [batch.revision for batch in changes] == [11, 12]


async def test_a_fragment_that_never_ends_is_given_up_in_bounded_memory() -> None:
    piece = pb.KvEvent(kv=value(KEY.encode(), MAX_ENVELOPE_BYTES, revision=11))
    message = _bytes(pb.WatchResponse(header=HEADER, events=[piece] * 64, fragment=True))
    async with fake(watch=[message] * 6) as (store, _), watching(store, PREFIX) as watcher:
        await watcher.until(lambda w: w.count(WatchKind.LISTING) >= 2)
        assert not watcher.history


@pytest.mark.parametrize(
    "strange",
    [
        pb.WatchResponse(header=pb.ResponseHeader(cluster_id=2, revision=50)),
        pb.WatchResponse(header=pb.ResponseHeader(cluster_id=1, revision=9)),
        pb.WatchResponse(header=HEADER, canceled=True, compact_revision=99),
    ],
    ids=["another cluster", "back in time", "compacted"],
)
async def test_a_history_that_is_not_the_one_followed_is_listed_anew(strange: pb.WatchResponse) -> None:
    async with fake(watch=[_bytes(strange)]) as (store, _), watching(store, PREFIX) as watcher:
        await watcher.until(lambda w: w.count(WatchKind.LISTING) >= 3)
        assert watcher.count(WatchKind.DISCONNECTED) == 0


async def test_a_watch_that_is_ended_at_once_is_asked_less_and_less_often() -> None:
    ended = _bytes(
        pb.WatchResponse(header=HEADER, canceled=True, cancel_reason="etcdserver: permission denied")
    )
    async with fake(watch=[ended]) as (store, handler), watching(store, PREFIX):
        times = [await asyncio.wait_for(handler.watched.get(), 10) for _ in range(4)]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses[0] >= 0.05
        assert pauses[1] >= 0.1
        assert pauses[2] >= 0.2


async def test_a_lease_that_is_no_lease_is_refused_and_a_mute_keeper_does_not_end_one() -> None:
    for grant in (
        pb.LeaseGrantResponse(),
        pb.LeaseGrantResponse(id=1, ttl=-5),
        pb.LeaseGrantResponse(id=1, ttl=1, error="x"),
    ):
        async with fake({"LeaseGrant": [_bytes(grant)]}) as (store, _):
            with pytest.raises(MeshError):
                await store.lease(1)
    async with fake({"LeaseGrant": [_bytes(pb.LeaseGrantResponse(id=7, ttl=1))]}, [JUNK]) as (store, handler):
        lease = await store.lease(1)
        for _ in range(2):
            await asyncio.wait_for(handler.watched.get(), 10)
        assert not lease.lost


async def test_nothing_is_left_behind() -> None:
    before = len(asyncio.all_tasks())
    async with fake({"Range": [JUNK]}) as (store, _):
        with pytest.raises(MeshError):
            await store.get(KEY)
        await disconnected_for_good(store)
    gc.collect()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= before
