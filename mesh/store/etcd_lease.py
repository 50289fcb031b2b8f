"""A lease on etcd and its keeper, which renews it in the background.

Rules it keeps: only etcd's own word ends a lease. While etcd is away no lease runs out, and a new leader
prolongs them all, so failing to renew proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mesh.core.errors import MeshError


class EtcdLease:
    """See the port. `renew` takes the id and how long it may take, in seconds, and tells the seconds that
    are left, 0 if etcd does not know the lease.

    Renewed three times in its life. A member that hangs costs a quarter of it and one that refuses a
    twentieth, so that another can still be asked in time.
    """

    def __init__(
        self,
        lease_id: int,
        ttl_s: float,
        renew: Callable[[int, float], Awaitable[int]],
        revoke: Callable[[EtcdLease], Awaitable[None]],
    ) -> None:
        self._renew = renew
        self._revoke = revoke
        self.id = lease_id
        self.ttl_s = ttl_s
        self.lost = False
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="etcd-lease")

    async def _keep(self) -> None:
        pause = self.ttl_s / 3
        while not self.lost:
            await asyncio.sleep(pause)
            pause = self.ttl_s / 3
            try:
                self.lost = await self._renew(self.id, self.ttl_s / 4) <= 0
            except MeshError:
                pause = self.ttl_s / 20

    async def stop(self) -> None:
        """Stops renewing; the lease then runs out by itself."""
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)

    async def aclose(self) -> None:
        """Revokes the lease. Where etcd cannot be told, it runs out by itself."""
        await self.stop()
        if not self.lost:
            self.lost = True
            await self._revoke(self)
