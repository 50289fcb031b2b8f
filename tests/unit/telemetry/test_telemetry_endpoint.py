"""/metrics, /livez and /readyz as Prometheus and a kubelet ask for them, and everything else turned away."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from mesh.core.errors import MeshError, Reason
from mesh.telemetry.endpoint import MAX_HEAD_BYTES, Endpoint
from tests.support.scraping import OPENMETRICS, fetch, get, scrape
from tests.support.waiting import DEADLINE_S, until

HAS_IPV6 = Path("/proc/net/if_inet6").exists()


@asynccontextmanager
async def listening(
    registry: CollectorRegistry | None = None, not_ready: Any = lambda: (), **options: Any
) -> AsyncIterator[Endpoint]:
    made = Endpoint("127.0.0.1:0", registry or CollectorRegistry(), not_ready, **{"fresh_s": 0.0, **options})
    made.start(asyncio.get_running_loop())
    try:
        yield made
    finally:
        await asyncio.to_thread(made.close)


def exchange(port: int, sent: bytes, *, close: bool = True) -> bytes:
    """Sends bytes and reads to the end."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        got = b""
        try:
            connection.sendall(sent)
            if close:
                connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                got += data
        except ConnectionError:
            pass  # it was cut off, which is an answer as well
        return got


def status_of(answer: bytes) -> int:
    """0 for no answer."""
    return int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else 0


async def test_metrics_in_both_forms_and_compressed():
    registry = CollectorRegistry()
    counter = Counter("things_total", "Things.", ["kind"], registry=registry)
    counter.labels("a").inc(3)
    async with listening(registry) as endpoint:
        assert (await scrape(endpoint.port)).value("things_total", kind="a") == 3
        status, headers, body = await asyncio.to_thread(fetch, endpoint.port, "/metrics")
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'things_total{kind="a"} 3.0' in body
        packed = {**OPENMETRICS, "Accept-Encoding": "br, gzip;q=0.9"}
        _, headers, body = await asyncio.to_thread(fetch, endpoint.port, "/metrics?name[]=x", packed)
        assert headers["content-encoding"] == "gzip"
        assert gzip.decompress(body).endswith(b"# EOF\n")
        status, headers, body = await asyncio.to_thread(fetch, endpoint.port, "/metrics", OPENMETRICS, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 10


async def test_a_page_is_made_once_for_those_who_ask_in_a_loop():
    registry, made = CollectorRegistry(), 0

    class Expensive:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            nonlocal made
            made += 1
            yield GaugeMetricFamily("expensive", "It is.", value=made)

    registry.register(Expensive())  # type: ignore[arg-type]
    async with listening(registry, fresh_s=3600.0) as endpoint:
        pages = await asyncio.gather(*(get(endpoint.port, "/metrics") for _ in range(20)))
        assert len({body for _, body in pages}) == 1
        assert made == 1


async def test_ready_says_why_not():
    whys: list[str] = ["the engine is starting", "it is draining"]
    async with listening(not_ready=lambda: whys) as endpoint:
        assert await get(endpoint.port, "/readyz") == (503, "the engine is starting\nit is draining\n")
        assert await get(endpoint.port, "/livez") == (200, "ok\n")
        whys.clear()
        assert await get(endpoint.port, "/readyz") == (200, "ok\n")


@pytest.mark.slow
async def test_alive_is_about_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "mesh.telemetry.pulse.Pulse.__init__.__kwdefaults__", {"stuck_after_s": 0.3, "patience_s": 0.05}
    )
    async with listening() as endpoint:
        assert (await get(endpoint.port, "/livez"))[0] == 200
        answers: list[int] = []

        def probe() -> None:
            deadline = time.monotonic() + DEADLINE_S
            while not answers or (answers[-1] != 503 and time.monotonic() < deadline):
                answers.append(fetch(endpoint.port, "/livez")[0])
            answers.append(fetch(endpoint.port, "/readyz")[0])
            answers.append(fetch(endpoint.port, "/metrics")[0])

        asking = threading.Thread(target=probe)
        asking.start()
        asking.join(2 * DEADLINE_S)  # and this loop hangs meanwhile
        assert answers[0] == 200, "busy is not stuck"
        assert answers[-3:] == [503, 503, 200], "a stuck daemon can still be scraped"
        while (await get(endpoint.port, "/livez"))[0] != 200:
            pass


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /livez HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nBad\x00Name: 1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500, 400),
        (b"\x00" * 100, 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 2 * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"", 0),
    ],
)
async def test_what_is_not_a_request_for_a_page(request_head: bytes, status: int):
    async with listening() as endpoint:
        answer = await asyncio.to_thread(exchange, endpoint.port, request_head)
        assert status_of(answer) == status, answer[:200]
        assert answer.count(b"HTTP/1.1 ") <= 1
        assert (await get(endpoint.port, "/livez"))[0] == 200


async def test_one_request_a_connection():
    async with listening() as endpoint:
        twice = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2
        answer = await asyncio.to_thread(exchange, endpoint.port, twice)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in answer.lower()


@pytest.mark.slow
async def test_whoever_sends_byte_by_byte_is_cut_off_in_time():
    async with listening(request_timeout_s=0.3) as endpoint:

        def drip() -> bytes:
            with socket.create_connection(("127.0.0.1", endpoint.port), DEADLINE_S) as connection:
                connection.settimeout(0.02)
                ends = time.monotonic() + DEADLINE_S
                while time.monotonic() < ends:
                    try:
                        connection.sendall(b"G")
                        if connection.recv(100) == b"":
                            return b""
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        return b""
            return b"still open"

        assert await asyncio.to_thread(drip) == b""


@pytest.mark.slow
async def test_whoever_does_not_read_is_cut_off_in_time():
    registry = CollectorRegistry()
    big = Counter("big_total", "Big.", ["n"], registry=registry)
    for number in range(400):
        big.labels(f"{number:0100000}")
    async with listening(registry, answer_timeout_s=0.3) as endpoint:

        def deaf() -> int:
            """How much there was to be read, by somebody who comes back too late."""
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(("127.0.0.1", endpoint.port))
                connection.settimeout(DEADLINE_S)
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                received = len(connection.recv(1))
                gone.wait(DEADLINE_S)
                try:
                    while data := connection.recv(1 << 20):
                        received += len(data)
                except ConnectionError:
                    pass
                return received

        gone = threading.Event()
        asking = asyncio.create_task(asyncio.to_thread(deaf))
        await until(lambda: endpoint._open)
        await until(lambda: not endpoint._open)
        gone.set()
        assert 0 < await asking < 30_000_000


async def test_those_who_hold_on_to_connections_keep_no_probe_out():
    async with listening(max_connections=8) as endpoint:
        held = [
            await asyncio.to_thread(socket.create_connection, ("127.0.0.1", endpoint.port)) for _ in range(40)
        ]
        try:
            for _ in range(5):
                assert (await get(endpoint.port, "/livez"))[0] == 200
            assert len(endpoint._open) <= 8
        finally:
            for each in held:
                each.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    garbage=st.binary(max_size=300)
    | st.builds(
        lambda method, target, name, value: (
            method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + name + b": " + value + b"\r\n\r\n"
        ),
        st.sampled_from([b"GET", b"HEAD", b"PUT"]) | st.binary(max_size=10),
        st.sampled_from([b"/metrics", b"/livez", b"/readyz"]) | st.binary(max_size=30),
        st.sampled_from([b"Accept", b"Accept-Encoding", b"Content-Length", b"Transfer-Encoding"]),
        st.binary(max_size=60)
        | st.sampled_from(
            [b"application/openmetrics-text;version=abc", b"gzip;q=0", b"chunked", b"text/plain;,;"]
        ),
    )
)
def test_garbage_is_answered_and_breaks_nothing(endpoint: Endpoint, garbage: bytes, caplog: Any):
    answer = exchange(endpoint.port, garbage)
    assert status_of(answer) in (0, 200, 400, 404, 405, 431, 501)
    assert garbage[:20] not in answer.partition(b"\r\n\r\n")[2] or len(garbage) < 8
    assert fetch(endpoint.port, "/livez")[0] == 200
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """One whose daemon's event loop runs in a thread."""
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever)
    running.start()
    made = Endpoint("127.0.0.1:0", CollectorRegistry(), lambda: (), fresh_s=0.0)
    made.start(loop)
    yield made
    made.close()
    loop.call_soon_threadsafe(loop.stop)
    running.join(DEADLINE_S)
    loop.close()


@pytest.mark.parametrize("address", ["localhost:0", "0.0.0.0:0", "[::]:0"])
async def test_addresses_of_every_form(address: str):
    if address.startswith("[") and not HAS_IPV6:
        pytest.skip("this machine has no IPv6")
    made = Endpoint(address, CollectorRegistry(), lambda: ())
    made.start(asyncio.get_running_loop())
    try:
        assert await get(made.port, "/livez") == (200, "ok\n")
    finally:
        await asyncio.to_thread(made.close)


async def test_an_address_that_is_taken_or_not_ours():
    async with listening() as endpoint:
        for address in (f"127.0.0.1:{endpoint.port}", "192.0.2.1:9464", "no-such-host.invalid:9464"):
            with pytest.raises(MeshError) as caught:
                Endpoint(address, CollectorRegistry(), lambda: ()).start(asyncio.get_running_loop())
            assert caught.value.reason is Reason.CONFIG_INVALID
            assert "telemetry.listen" in caught.value.message


async def test_it_lets_go_of_everything(tmp_path: Path):
    before = {thread.name for thread in threading.enumerate()}
    async with listening() as endpoint:
        port = endpoint.port
        held = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
        assert (await get(port, "/livez"))[0] == 200
    assert {thread.name for thread in threading.enumerate()} - before <= {
        "asyncio_0",
        "asyncio_1",
        "asyncio_2",
    }
    assert await asyncio.to_thread(held.recv, 1) == b""
    held.close()
    with socket.create_server(("127.0.0.1", port)):
        pass
