"""Connections to nodes and control planes, kept and shared.

A channel to a peer trusts only the root of the peer's own authority and insists on the peer's DNS name
(DESIGN: Identity), so the pool's key is all three: endpoint, name, trust domain. When the own
certificate or the trust bundles change, channels made with the old ones take no new calls and close
when the calls on them have ended; a caller never notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from typing import Any

import grpc

from mesh.identity.source import SvidSource
from mesh.identity.tls import dial
from mesh.rpc.observed import ObservedChannel
from mesh.telemetry.base import CallObserver

MAX_CHANNELS = 256
# How long a replaced channel's calls may go on.
RETIRED_GRACE_S = 1800.0
# Inference answers are small pieces; the largest answer is Embed's: 256 texts x 4,096 floats.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_OPTIONS = (("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),)


class ChannelPool:
    """Channels by (endpoint, dns_name, trust_domain), least recently used closed first.

    Belongs to one event loop. `aclose` ends every call. The `observer` is told of every call.
    """

    def __init__(
        self, source: SvidSource, *, limit: int = MAX_CHANNELS, observer: CallObserver | None = None
    ) -> None:
        self._observer = observer
        self._source = source
        self._limit = limit
        self._channels: OrderedDict[tuple[str, str, str], grpc.aio.Channel] = OrderedDict()
        self._retiring: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._version = source.version
        self._unsubscribe = source.subscribe(self._renewed)

    def channel(self, endpoint: str, *, dns_name: str, trust_domain: str) -> grpc.aio.Channel:
        """The channel to host:port; connects when first used. Raises IDENTITY_UNTRUSTED if no root of
        the trust domain is known."""
        # Being told of a renewal takes a turn of the loop; the next call is to use it all the same.
        self._catch_up()
        key = (endpoint, dns_name, trust_domain)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._dial(endpoint, trust_domain, dns_name)
            self._channels[key] = channel
            if len(self._channels) > self._limit:
                self._retire(self._channels.popitem(last=False)[1])
        else:
            self._channels.move_to_end(key)
        return channel

    def _dial(self, endpoint: str, trust_domain: str, dns_name: str) -> grpc.aio.Channel:
        channel = dial(self._source, endpoint, trust_domain, dns_name, _OPTIONS)
        if self._observer is None:
            return channel
        observed: Any = ObservedChannel(channel, self._observer, time.monotonic)
        return observed

    def drop(self, endpoint: str) -> None:
        """Forgets the channels to an endpoint that failed, so that the next call dials anew."""
        for key in [key for key in self._channels if key[0] == endpoint]:
            self._retire(self._channels.pop(key))

    def _renewed(self) -> None:
        """The source may call from any thread; channels belong to the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: so are the channels
            self._loop.call_soon_threadsafe(self._catch_up)

    def _catch_up(self) -> None:
        if self._version == self._source.version:
            return
        self._version = self._source.version
        while self._channels:
            self._retire(self._channels.popitem()[1])

    def _retire(self, channel: grpc.aio.Channel) -> None:
        task = self._loop.create_task(channel.close(RETIRED_GRACE_S))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def aclose(self) -> None:
        """Closes every channel and cancels the calls on them."""
        self._unsubscribe()
        channels, self._channels = list(self._channels.values()), OrderedDict()
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for channel in channels:
            await channel.close(None)
