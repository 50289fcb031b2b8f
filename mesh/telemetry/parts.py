"""What a daemon has for telling about itself: instruments, meters and the endpoint. Wiring only.

A daemon whose configuration names no `telemetry.listen` has none of it, and pays nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from mesh.core.types import SpiffeId
from mesh.telemetry.endpoint import FRESH_S, Endpoint
from mesh.telemetry.instruments import Instruments, Read
from mesh.telemetry.meters import CallMeter, EnrolmentMeter, NodeMeter, PlacementMeter
from mesh.telemetry.metrics import CONTROL, NODE
from mesh.telemetry.readings import BoardSeen, LogSeen, SourceSeen, of_board, of_daemon, of_identity, of_log


class Telemetry:
    """Of one daemon, which listens on `address` ("host:port") from `start` to `aclose`."""

    def __init__(self, daemon: str, address: str, fresh_s: float = FRESH_S) -> None:
        self._address = address
        self._fresh_s = fresh_s
        self._endpoint: Endpoint | None = None
        self.instruments = Instruments(daemon)
        self.calls = CallMeter(self.instruments)

    @property
    def port(self) -> int:
        """On which it listens, once started."""
        return self._endpoint.port if self._endpoint is not None else 0

    def read(self, *reads: Read) -> None:
        """Has gauges read at every scrape."""
        for each in reads:
            self.instruments.read(each)

    def start(
        self,
        *,
        version: str,
        not_ready: Callable[[], Iterable[str]],
        board: BoardSeen,
        source: SourceSeen,
        log: LogSeen,
        clock: Callable[[], float],
    ) -> None:
        """Listens, on behalf of the running event loop; CONFIG_INVALID if it cannot.

        `not_ready`: why the daemon takes no calls, in words for anybody; nothing while it does.
        """
        endpoint = Endpoint(self._address, self.instruments.registry, not_ready, fresh_s=self._fresh_s)
        self.read(
            of_daemon(version, lambda: not tuple(not_ready()), lambda: endpoint.delay_s),
            of_board(board, clock),
            of_identity(source),
            of_log(log, time.monotonic),
        )
        endpoint.start(asyncio.get_running_loop())
        self._endpoint = endpoint

    async def aclose(self) -> None:
        """Stops listening."""
        if self._endpoint is not None:
            await asyncio.to_thread(self._endpoint.close)


class NodeTelemetry(Telemetry):
    """A node's; `meter` is what its parts tell."""

    def __init__(self, node: SpiffeId, address: str, fresh_s: float = FRESH_S) -> None:
        super().__init__(NODE, address, fresh_s)
        self.meter = NodeMeter(self.instruments, node)


class ControlTelemetry(Telemetry):
    """A control plane's."""

    def __init__(self, address: str, fresh_s: float = FRESH_S) -> None:
        super().__init__(CONTROL, address, fresh_s)
        self.placements = PlacementMeter(self.instruments)
        self.enrolments = EnrolmentMeter(self.instruments)
