"""The record store on etcd, speaking etcd's v3 API over grpc.aio.

Only this module knows etcd's messages; the generated code lies under a private protobuf package, so
that another etcd client in the same process does not collide with it. mesh/store/etcd_watch.py turns
streams of changes into batches, mesh/store/etcd_channel.py keeps the connections.

Rules it keeps:
- Whatever etcd answers is untrusted (I5): a value that is too large is cut to one byte over the limit,
  so that its reader refuses it; a key that is no text or lies elsewhere is left out and counted in
  `ignored`; an answer that is no etcd message is a failure of the store.
- Reads are tried once more elsewhere. A write is sent once: when its fate is unknown it raises
  STORE_UNAVAILABLE, and only whoever asked for it can find out, by reading, whether it happened.
- etcd's locks guard nothing here. Concurrent writers are kept apart by the revision that they expect.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from mesh.core.errors import MeshError, Reason
from mesh.core.records import MAX_ENVELOPE_BYTES, MAX_KEY_BYTES
from mesh.store.base import Entry, Lease, WatchBatch, WatchKind
from mesh.store.etcd_channel import EtcdChannels, Metadata, Stream
from mesh.store.etcd_lease import EtcdLease
from mesh.store.etcd_watch import Change, Compacted, Followed, Renewed, WatchStream
from sovereign.etcd.v3 import etcd_pb2 as pb

_RANGE = "/etcdserverpb.KV/Range"
_PUT = "/etcdserverpb.KV/Put"
_DELETE = "/etcdserverpb.KV/DeleteRange"
_TXN = "/etcdserverpb.KV/Txn"
_WATCH = "/etcdserverpb.Watch/Watch"
_LEASE_GRANT = "/etcdserverpb.Lease/LeaseGrant"
_LEASE_REVOKE = "/etcdserverpb.Lease/LeaseRevoke"
_LEASE_KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
_AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"

# A page of the largest values stays below what one message may hold.
_PAGE = 100
MAX_LISTING = 200_000
_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 1.0
_STEADY_S = 2.0

# etcd's words for a token that it no longer takes. None of these was carried out, so that even a
# write may be sent again after signing in.
_TOKEN_STALE = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT}
)

Listing = list[Entry]
_M = TypeVar("_M", bound=Message)


class EtcdStore:
    """Records on an etcd cluster. See mesh/store/base.py for what each method promises.

    `endpoints` are `host:port`. `credentials` makes TLS credentials and is asked for every new
    connection; without it the connection is not encrypted (tests only). `server_name` is the name in
    etcd's certificate where it differs from the address. `user` and `password` are for clusters that
    want them on top of the client certificate. Times are in seconds: `timeout_s` per call, and
    `silence_s` until a member that says nothing counts as gone.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        credentials: Callable[[], grpc.ChannelCredentials] | None = None,
        server_name: str = "",
        user: str = "",
        password: str = "",
        timeout_s: float = 3.0,
        progress_s: float = 1.0,
        silence_s: float = 3.0,
    ) -> None:
        self._channels = EtcdChannels(endpoints, credentials, server_name, timeout_s)
        self._timeout_s = timeout_s
        self._progress_s = progress_s
        self._silence_s = silence_s
        self._user = user
        self._password = password
        self._token = ""
        self._leases: set[EtcdLease] = set()
        self._streams: set[WatchStream] = set()
        self._closing = asyncio.Event()
        self.ignored = 0

    async def get(self, key: str) -> Entry | None:
        """The entry under this key. Raises STORE_UNAVAILABLE."""
        response = await self._read(_RANGE, pb.RangeRequest(key=_key(key)), pb.RangeResponse)
        for kv in response.kvs:
            if kv.key == _key(key):
                return Entry(key, kv.value[: MAX_ENVELOPE_BYTES + 1], kv.mod_revision)
        return None

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """See the port. Reads page by page, all as of the first page's revision."""
        entries, header = await self._list(prefix)
        return entries, header.revision

    async def put(
        self, key: str, value: bytes, *, expected_revision: int | None = None, lease: Lease | None = None
    ) -> int:
        """See the port. Also raises RECORD_TOO_LARGE and RECORD_WRONG_KEY, before sending anything."""
        if len(value) > MAX_ENVELOPE_BYTES:
            raise MeshError(Reason.RECORD_TOO_LARGE, f"a value has at most {MAX_ENVELOPE_BYTES} bytes")
        put = pb.PutRequest(key=_key(key), value=value, lease=_lease_id(lease))
        try:
            if expected_revision is None:
                return (await self._call(_PUT, put, pb.PutResponse)).header.revision
            done = await self._transact(key, expected_revision, pb.RequestOp(request_put=put))
        except _NotFound:
            if not isinstance(lease, EtcdLease):
                raise
            lease.lost = True
            raise MeshError(Reason.STORE_CONFLICT, "the lease is lost: take a new one") from None
        return done.header.revision

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        """See the port."""
        delete = pb.DeleteRangeRequest(key=_key(key))
        if expected_revision is None:
            return (await self._call(_DELETE, delete, pb.DeleteRangeResponse)).deleted > 0
        done = await self._transact(key, expected_revision, pb.RequestOp(request_delete_range=delete))
        return any(response.response_delete_range.deleted for response in done.responses)

    async def lease(self, ttl_s: float) -> EtcdLease:
        """See the port. etcd counts whole seconds and has a smallest lease: it may be longer than asked."""
        request = pb.LeaseGrantRequest(ttl=max(1, math.ceil(ttl_s)))
        response = await self._call(_LEASE_GRANT, request, pb.LeaseGrantResponse)
        if response.error or response.id <= 0 or response.ttl <= 0:
            raise MeshError(Reason.STORE_UNAVAILABLE, "etcd grants no lease")
        lease = EtcdLease(response.id, float(response.ttl), self._keep_alive, self._forget)
        self._leases.add(lease)
        return lease

    async def watch(self, prefix: str) -> AsyncGenerator[WatchBatch]:
        """See the port."""
        position = Followed()
        clock = asyncio.get_running_loop().time
        pause = _RETRY_MIN_S
        away = False
        while not self._closing.is_set():
            began = clock()
            try:
                if not position.revision:
                    entries, header = await self._list(prefix)
                    position = Followed(header.revision, header.cluster_id)
                    away = False
                    yield WatchBatch(WatchKind.LISTING, position.revision, tuple(entries))
                async with contextlib.aclosing(self._follow(prefix, position)) as batches:
                    async for batch in batches:
                        away = False
                        yield batch
            except Renewed:
                continue
            except Compacted:
                position = Followed()
            except MeshError:
                if not away and not self._closing.is_set():
                    away = True
                    yield WatchBatch(WatchKind.DISCONNECTED, position.revision)
            # What ends as soon as it begins is asked less and less often.
            if clock() - began > _STEADY_S:
                pause = _RETRY_MIN_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
            pause = min(2 * pause, _RETRY_MAX_S)

    async def reconnect(self) -> None:
        """Connects anew with fresh credentials. Watches go on where they were, without a gap."""
        self._token = ""
        self._channels.renew()
        for stream in list(self._streams):
            stream.cancel()

    async def aclose(self) -> None:
        """See the port."""
        self._closing.set()
        await asyncio.gather(*(lease.stop() for lease in self._leases))
        for stream in list(self._streams):
            stream.cancel()
        await self._channels.aclose()

    async def _list(self, prefix: str) -> tuple[Listing, pb.ResponseHeader]:
        entries: Listing = []
        start, end = _key(prefix), _range_end(_key(prefix))
        header: pb.ResponseHeader | None = None
        while True:
            revision = 0 if header is None else header.revision
            request = pb.RangeRequest(key=start, range_end=end, limit=_PAGE, revision=revision)
            response = await self._read(_RANGE, request, pb.RangeResponse)
            header = header or response.header
            entries += self._entries(prefix, response.kvs)
            if not response.more:
                return sorted(entries, key=lambda entry: entry.key), header
            # A store that goes in circles or never ends is no store.
            last = max((kv.key for kv in response.kvs), default=b"")
            if last < start or len(entries) > MAX_LISTING:
                raise MeshError(Reason.STORE_UNAVAILABLE, "the store's listing does not end")
            start = last + b"\x00"

    def _entries(self, prefix: str, kvs: Sequence[pb.KeyValue]) -> Listing:
        named = ((self._key_of(kv, prefix), kv) for kv in kvs)
        return [Entry(key, kv.value[: MAX_ENVELOPE_BYTES + 1], kv.mod_revision) for key, kv in named if key]

    def _key_of(self, kv: pb.KeyValue, prefix: str) -> str:
        try:
            key = kv.key.decode() if len(kv.key) <= MAX_KEY_BYTES else ""
        except UnicodeDecodeError:
            key = ""
        if not key or not key.startswith(prefix):
            self.ignored += 1
            return ""
        return key

    async def _follow(self, prefix: str, position: Followed) -> AsyncGenerator[WatchBatch]:
        position.restart()
        create = pb.WatchCreateRequest(
            key=_key(prefix),
            range_end=_range_end(_key(prefix)),
            start_revision=position.revision + 1,
            fragment=True,
        )
        call, channel = await self._channels.stream(_WATCH, await self._metadata())
        stream = WatchStream(
            call,
            pb.WatchRequest(create_request=create).SerializeToString(),
            pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString(),
            self._progress_s,
            self._silence_s,
        )
        self._streams.add(stream)
        try:
            async with contextlib.aclosing(stream.messages()) as messages:
                async for raw in messages:
                    for batch in self._advance(prefix, position, _parse(pb.WatchResponse, raw)):
                        yield batch
        except MeshError:
            self._channels.leave(channel)
            raise
        except grpc.aio.AioRpcError as error:
            self._channels.leave(channel)
            raise _failure(error) from None
        finally:
            self._streams.discard(stream)
            stream.cancel()

    def _advance(self, prefix: str, position: Followed, response: pb.WatchResponse) -> Iterator[WatchBatch]:
        if response.canceled and not response.compact_revision:
            # 3.5 says only "permission denied" where the token has grown stale.
            self._token = ""
            raise MeshError(Reason.STORE_UNAVAILABLE, "etcd ended the watch")
        header = response.header
        position.check(header.revision, header.cluster_id, response.compact_revision)
        changes = [change for event in response.events if (change := self._change(prefix, event))]
        return position.advance(changes, fragment=response.fragment)

    def _change(self, prefix: str, event: pb.KvEvent) -> Change | None:
        key = self._key_of(event.kv, prefix)
        if not key:
            return None
        value = None if event.type == pb.KvEvent.DELETE else event.kv.value[: MAX_ENVELOPE_BYTES + 1]
        return Change(key, value, event.kv.mod_revision)

    async def _transact(self, key: str, expected_revision: int, then: pb.RequestOp) -> pb.TxnResponse:
        compare = pb.Compare(
            result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=_key(key), mod_revision=expected_revision
        )
        request = pb.TxnRequest(compare=[compare], success=[then])
        response = await self._call(_TXN, request, pb.TxnResponse)
        if not response.succeeded:
            raise MeshError(Reason.STORE_CONFLICT, "the key has changed since it was read")
        return response

    async def _read(self, path: str, request: Message, answer: type[_M]) -> _M:
        try:
            return await self._call(path, request, answer)
        except MeshError:
            if self._closing.is_set():
                raise
            return await self._call(path, request, answer)

    async def _call(self, path: str, request: Message, answer: type[_M]) -> _M:
        raw = request.SerializeToString()
        try:
            try:
                return _parse(answer, await self._channels.unary(path, raw, await self._metadata()))
            except grpc.aio.AioRpcError as error:
                if not self._user or error.code() not in _TOKEN_STALE:
                    raise
                self._token = ""
                return _parse(answer, await self._channels.unary(path, raw, await self._metadata()))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def _metadata(self) -> Metadata:
        # hasleader: a member that has lost its cluster says so instead of keeping us waiting.
        base: Metadata = (("hasleader", "true"),)
        if not self._user:
            return base
        if not self._token:
            request = pb.AuthenticateRequest(name=self._user, password=self._password).SerializeToString()
            try:
                raw = await self._channels.unary(_AUTHENTICATE, request, base)
            except grpc.aio.AioRpcError as error:
                raise _failure(error) from None
            self._token = _parse(pb.AuthenticateResponse, raw).token
        return (*base, ("token", self._token))

    async def _keep_alive(self, lease_id: int, timeout_s: float) -> int:
        """Renews once; the seconds that are left, 0 if etcd does not know the lease."""
        request = pb.LeaseKeepAliveRequest(id=lease_id).SerializeToString()
        metadata = await self._metadata()
        call, channel = await self._channels.stream(_LEASE_KEEP_ALIVE, metadata, timeout_s)
        reading = asyncio.ensure_future(_ask_once(call, request))
        try:
            await asyncio.wait({reading}, timeout=2 * timeout_s)
            if reading.cancelled() or not reading.done():
                raise MeshError(Reason.STORE_UNAVAILABLE, "the connection was closed during the call")
            return _parse(pb.LeaseKeepAliveResponse, reading.result()).ttl
        except grpc.aio.AioRpcError as error:
            self._channels.leave(channel)
            raise _failure(error) from None
        finally:
            reading.cancel()
            call.cancel()

    async def _forget(self, lease: EtcdLease) -> None:
        self._leases.discard(lease)
        with contextlib.suppress(MeshError):
            await self._call(_LEASE_REVOKE, pb.LeaseRevokeRequest(id=lease.id), pb.LeaseRevokeResponse)


class _NotFound(MeshError):
    """etcd says that what a request names, such as a lease, does not exist."""


def _failure(error: grpc.aio.AioRpcError) -> MeshError:
    kind = _NotFound if error.code() is grpc.StatusCode.NOT_FOUND else MeshError
    return kind(Reason.STORE_UNAVAILABLE, f"etcd answered {error.code().name}")


async def _ask_once(call: Stream, request: bytes) -> bytes:
    await call.write(request)
    await call.done_writing()
    answer = await call.read()
    if not isinstance(answer, bytes):
        raise MeshError(Reason.STORE_UNAVAILABLE, "etcd ended the stream without an answer")
    return answer


def _key(key: str) -> bytes:
    encoded = key.encode()
    if not 1 <= len(encoded) <= MAX_KEY_BYTES:
        raise MeshError(Reason.RECORD_WRONG_KEY, f"a key has 1 to {MAX_KEY_BYTES} bytes")
    return encoded


def _range_end(prefix: bytes) -> bytes:
    """The first key after all that start with the prefix, which ends in an ASCII character."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _lease_id(lease: Lease | None) -> int:
    if lease is None:
        return 0
    if not isinstance(lease, EtcdLease):
        raise TypeError("a lease of another store")
    return lease.id


def _parse(kind: type[_M], raw: bytes) -> _M:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise MeshError(Reason.STORE_UNAVAILABLE, "what answers is not etcd") from None
