"""`telemetry.listen`: /metrics, /livez and /readyz over plain HTTP, from a thread of its own.

A thread with an event loop of its own, so that a scrape does not hold up the calls that the daemon serves,
and so that /livez answers also when the daemon's loop does not: then it says so. h11 reads the requests.

Anybody who reaches the port is a stranger, so all of it is bounded: the size of a request's head, how long it
may take, how long its answer may take to be read, connections at once (beyond that the oldest
gives way, so that those who hold on to theirs keep no probe out), and how often the page of metrics
is made. GET and HEAD alone; one request a connection. Nothing of a request is logged or repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import NamedTuple

import h11
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from mesh.core.errors import MeshError, Reason
from mesh.telemetry.logs import describe
from mesh.telemetry.pulse import Pulse

_LOG = logging.getLogger(__name__)

MAX_HEAD_BYTES = 8 * 1024
MAX_CONNECTIONS = 64
REQUEST_TIMEOUT_S = 5.0
RENDER_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 10.0
# A page is handed out again for so long: whoever asks in a loop costs no more than this.
FRESH_S = 0.2

_TEXT = "text/plain; charset=utf-8"
_PLAIN_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = (b"GET", b"HEAD")
_openmetrics: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest


class Answer(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


class Endpoint:
    """Listens from `start` to `close`. `registry` is what /metrics shows.

    `not_ready` says why the daemon takes no calls, and nothing while it does. It is called from the thread
    of the endpoint, and its words are shown to strangers.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        not_ready: Callable[[], Iterable[str]],
        *,
        fresh_s: float = FRESH_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._address = address
        self._not_ready = not_ready
        self._pages = Pages(registry, fresh_s)
        self._request_timeout_s = request_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._max_connections = max_connections
        self._open: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pulse: Pulse | None = None
        self.port = 0

    @property
    def delay_s(self) -> float:
        """How long the daemon's event loop took to answer when it was last asked, in seconds."""
        return self._pulse.delay_s if self._pulse is not None else 0.0

    def start(self, watched: asyncio.AbstractEventLoop) -> None:
        """Listens; `watched` is the event loop that /livez is about. CONFIG_INVALID if it cannot."""
        listening = _bound(self._address)
        self.port = listening.getsockname()[1]
        self._pulse = Pulse(watched, time.monotonic)
        self._loop = asyncio.new_event_loop()
        work = (self._loop, listening, self._pulse)
        self._thread = threading.Thread(target=self._run, args=work, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends every connection, and the thread. Blocking, for as long as a page takes to be made."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None
        self._pages.close()

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, pulse: Pulse) -> None:
        try:
            loop.run_until_complete(
                asyncio.start_server(
                    lambda reader, writer: self._accept(reader, writer, pulse), sock=listening
                )
            )
            loop.run_forever()
            loop.run_until_complete(_ended(tuple(self._open)))
        finally:
            listening.close()
            loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pulse: Pulse) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("asyncio runs every connection in a task of its own")
        if len(self._open) >= self._max_connections:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            await self._serve(reader, writer, pulse)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # too slow, gone, displaced, or the end: nobody is there to be told
        except Exception as error:
            _LOG.error("the telemetry endpoint: %s", describe(error))
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pulse: Pulse) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        head = False
        try:
            async with asyncio.timeout(self._request_timeout_s):
                request = await _read(connection, reader)
        except h11.RemoteProtocolError as error:
            answer = _error(HTTPStatus(error.error_status_hint))
        else:
            if request is None:
                return
            head = request.method == b"HEAD"
            answer = await self._answer(request, pulse)
        async with asyncio.timeout(self._answer_timeout_s):
            writer.write(_bytes(connection, answer, head))
            await writer.drain()
            writer.write_eof()
            # Until the peer has read it: closing on what it still sends would take the answer back.
            while await reader.read(MAX_HEAD_BYTES):
                pass

    async def _answer(self, request: h11.Request, pulse: Pulse) -> Answer:
        path = request.target.partition(b"?")[0]
        if path not in (b"/metrics", b"/livez", b"/readyz"):
            return _error(HTTPStatus.NOT_FOUND)
        if request.method not in _METHODS:
            return _error(HTTPStatus.METHOD_NOT_ALLOWED)._replace(headers=(("Allow", "GET, HEAD"),))
        beats = await pulse.beats()
        if path == b"/metrics":
            return await self._pages.page(_accepts(request.headers))
        if not beats:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the event loop does not answer\n")
        reasons = tuple(self._not_ready()) if path == b"/readyz" else ()
        if reasons:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{why}\n" for why in reasons).encode())
        return Answer(HTTPStatus.OK, b"ok\n")


class _Accepts(NamedTuple):
    openmetrics: bool
    compressed: bool


class Pages:
    """The page of metrics, made at most every `fresh_s` seconds for each form, in a thread that may block."""

    def __init__(self, registry: CollectorRegistry, fresh_s: float) -> None:
        self._registry = registry
        self._fresh_s = fresh_s
        self._made: dict[_Accepts, tuple[float, Answer]] = {}
        self._making: dict[_Accepts, asyncio.Future[Answer]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="telemetry-render")

    async def page(self, accepts: _Accepts) -> Answer:
        """The page as it is now; 503 if it takes too long."""
        loop = asyncio.get_running_loop()
        made_at, answer = self._made.get(accepts, (-1e9, None))
        if answer is not None and loop.time() - made_at < self._fresh_s:
            return answer
        making = self._making.get(accepts)
        if making is None:
            making = loop.run_in_executor(self._thread, self._render, accepts)
            self._making[accepts] = making
            making.add_done_callback(lambda done: self._keep(accepts, done, loop.time()))
        try:
            async with asyncio.timeout(RENDER_TIMEOUT_S):
                return await asyncio.shield(making)
        except TimeoutError:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE)

    def _keep(self, accepts: _Accepts, done: asyncio.Future[Answer], now: float) -> None:
        del self._making[accepts]
        if not done.cancelled() and done.exception() is None:
            self._made[accepts] = (now, done.result())

    def close(self) -> None:
        """Waits for what is being made."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _render(self, accepts: _Accepts) -> Answer:
        if accepts.openmetrics:
            body, kind = _openmetrics(self._registry), openmetrics.CONTENT_TYPE_LATEST
        else:
            body, kind = generate_latest(self._registry), _PLAIN_METRICS
        headers: tuple[tuple[str, str], ...] = (("Vary", "Accept, Accept-Encoding"),)
        if accepts.compressed:
            body, headers = gzip.compress(body, 1), (*headers, ("Content-Encoding", "gzip"))
        return Answer(HTTPStatus.OK, body, kind, headers)


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    found: socket.socket | None = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(MAX_CONNECTIONS)
        found.setblocking(False)
    except (OSError, OverflowError):
        if found is not None:
            found.close()
        raise MeshError(
            Reason.CONFIG_INVALID,
            f"telemetry.listen: cannot listen on {address}: in use, or not this machine's",
        ) from None
    return found


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The head of a request; None if there is none. What follows a head is not read."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_HEAD_BYTES))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


def _accepts(headers: Iterable[tuple[bytes, bytes]]) -> _Accepts:
    """The forms that whoever asks understands. Versions and weights are not looked at."""
    said = {name: value.lower() for name, value in headers}
    return _Accepts(
        b"application/openmetrics-text" in said.get(b"accept", b""),
        any(each.split(b";")[0].strip() == b"gzip" for each in said.get(b"accept-encoding", b"").split(b",")),
    )


def _error(status: HTTPStatus) -> Answer:
    return Answer(status, f"{status.phrase.lower()}\n".encode())


def _bytes(connection: h11.Connection, answer: Answer, head: bool) -> bytes:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        *answer.headers,
    ]
    response = h11.Response(status_code=answer.status, headers=headers, reason=answer.status.phrase.encode())
    parts = [connection.send(response)]
    if not head:
        parts.append(connection.send(h11.Data(data=answer.body)))
    with contextlib.suppress(h11.LocalProtocolError):  # of a request that was none, it knows no end
        parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
