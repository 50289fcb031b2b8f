"""Reaching a permitted node: by the first of its endpoints that can be connected to.

Connecting comes before sending, so that a payload is not handed to a channel that keeps it until there
is a connection: by then it might no longer be permitted (I1).
"""

from __future__ import annotations

import asyncio

import grpc

from mesh.core.targets import Permitted
from mesh.rpc.channels import ChannelPool

# A node that cannot be connected to within this is lost. Local ones answer in milliseconds.
CONNECT_TIMEOUT_S = 5.0


def channel_to(pool: ChannelPool, target: Permitted, endpoint: str) -> grpc.aio.Channel:
    """The channel to one of the target's endpoints; trusts only the root of the node's own authority."""
    return pool.channel(endpoint, dns_name=target.dns_name, trust_domain=target.node.trust_domain)


async def reach(pool: ChannelPool, target: Permitted, timeout_s: float) -> str:
    """The first endpoint that can be connected to; the last one if none can, and then the call says why.

    Ask `channel_to` for the channel right before the call: another call may drop it meanwhile, or a
    renewal retire it.
    """
    for endpoint in target.endpoints[:-1]:
        if await _connects(channel_to(pool, target, endpoint), timeout_s):
            return endpoint
        pool.drop(endpoint)
    endpoint = target.endpoints[-1]
    await _connects(channel_to(pool, target, endpoint), timeout_s)
    return endpoint


async def _connects(channel: grpc.aio.Channel, timeout_s: float) -> bool:
    """Whether the channel got through its handshakes in time. A refusal shows at once."""
    waiting = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
    try:
        async with asyncio.timeout(timeout_s):
            while (state := channel.get_state(try_to_connect=True)) in waiting:
                await channel.wait_for_state_change(state)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY
