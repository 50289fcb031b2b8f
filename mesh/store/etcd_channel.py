"""Connections to etcd's members: one channel per member, used one at a time, replaced when it fails.

One channel per member, and not gRPC's own list of addresses, because TLS checks each member under its
own name and because a member that hangs must be left at once. It carries bytes: what they mean is
known to mesh/store/etcd.py alone.

Rules it keeps: a call is sent only over a connection that is up, so that a member which is down
costs a write nothing; a call that has been sent is never sent again from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from mesh.core.errors import MeshError, Reason

Metadata = tuple[tuple[str, str], ...]
Stream = grpc.aio.StreamStreamCall[bytes, bytes]

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
_State = grpc.ChannelConnectivity
# How long calls under way may go on over a channel that is being replaced, in seconds.
_GRACE_S = 5.0

# A member that answers with one of these may be the trouble itself: the next call tries another.
_MEMBER_IN_TROUBLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.CANCELLED,
    }
)

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # Without it a member that hangs with its connection open goes unnoticed for a minute.
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A renewed certificate needs a new connection, so never share one with another channel.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


class EtcdChannels:
    """The members of one etcd cluster, as `host:port` each.

    `credentials` is asked anew for every connection, so that renewed certificates are used.
    `server_name` is the name that each member's certificate must bear, where it is not its address.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        credentials: Callable[[], grpc.ChannelCredentials] | None,
        server_name: str,
        timeout_s: float,
    ) -> None:
        if not endpoints:
            raise MeshError(Reason.CONFIG_INVALID, "etcd: name at least one endpoint, host:port")
        self._endpoints = tuple(endpoints)
        self._credentials = credentials
        self._server_name = server_name
        self._timeout_s = timeout_s
        self._current = 0
        self._channel: grpc.aio.Channel | None = None
        self._connecting = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ready(self) -> grpc.aio.Channel:
        """A channel whose connection is up; tries every member once. Raises STORE_UNAVAILABLE."""
        async with self._connecting:
            for _ in self._endpoints:
                if self._closed:
                    break
                channel = self._channel = self._channel or self._open()
                if await self._connect(channel):
                    return channel
                self._current = (self._current + 1) % len(self._endpoints)
                self._retire(grace_s=0)
        raise MeshError(Reason.STORE_UNAVAILABLE, "no etcd member can be reached")

    def leave(self, channel: grpc.aio.Channel) -> None:
        """Gives this channel up, if it is still the one in use, and moves on to the next member."""
        if self._channel is channel:
            self._current = (self._current + 1) % len(self._endpoints)
            self._retire()

    def renew(self) -> None:
        """Connects anew, with the credentials of now, when next used. Calls under way may finish."""
        self._retire()

    async def unary(self, path: str, request: bytes, metadata: Metadata) -> bytes:
        """Sends one request, once. Raises grpc.aio.AioRpcError, or MeshError if it was not sent."""
        channel = await self.ready()
        try:
            ask = channel.unary_unary(path, None, None)
            answer: bytes = await ask(request, timeout=self._timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in _MEMBER_IN_TROUBLE:
                self.leave(channel)
            raise
        except asyncio.CancelledError:
            # gRPC also raises this when the channel is closed under a call; that is no request to stop.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise MeshError(Reason.STORE_UNAVAILABLE, "the connection was closed during the call") from None
        return answer

    async def stream(
        self, path: str, metadata: Metadata, timeout_s: float | None = None
    ) -> tuple[Stream, grpc.aio.Channel]:
        """Opens a stream; also returns its channel, to be given to `leave` when it fails."""
        channel = await self.ready()
        return channel.stream_stream(path, None, None)(None, metadata=metadata, timeout=timeout_s), channel

    async def aclose(self) -> None:
        """Closes every channel now."""
        self._closed = True
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close(None)
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def _open(self) -> grpc.aio.Channel:
        options: list[tuple[str, int | str]] = list(_OPTIONS)
        endpoint = self._endpoints[self._current]
        if self._credentials is None:
            return grpc.aio.insecure_channel(endpoint, options=options)
        if self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        return grpc.aio.secure_channel(endpoint, self._credentials(), options=options)

    async def _connect(self, channel: grpc.aio.Channel) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                while (state := channel.get_state(try_to_connect=True)) is not _State.READY:
                    if state in (_State.TRANSIENT_FAILURE, _State.SHUTDOWN):
                        return False
                    await channel.wait_for_state_change(state)
        except (TimeoutError, grpc.aio.UsageError):
            return False
        return True

    def _retire(self, grace_s: float = _GRACE_S) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return

        async def close() -> None:
            try:
                await asyncio.sleep(grace_s)
            finally:
                await channel.close(None)

        task = asyncio.get_running_loop().create_task(close())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
