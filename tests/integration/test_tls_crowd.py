"""A thousand peers that hold a connection and say nothing; and one who wants to be served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from pathlib import Path

import pytest

from tests.support.echo import ask, echo_server
from tests.support.identities import AuthorityForTests
from tests.support.raw_tls import EMPTY_SETTINGS, PREFACE, context_of

DE = "de.mesh.example"
FRA_1 = f"fra-1.node.{DE}"
CROWD = 1000


@pytest.mark.slow
async def test_a_thousand_idle_connections(tmp_path: Path) -> None:
    """Half of them authenticated, half still silent before the handshake."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * CROWD:
        pytest.skip("too few file descriptors")
    if soft < 3 * CROWD:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3 * CROWD, hard))
    de = AuthorityForTests(tmp_path, DE)
    source, caller = de.source("/node/fra-1"), de.source("/client/clinic-a")
    context = context_of(tmp_path, de.svid("/client/clinic-b"))
    gate = asyncio.Semaphore(50)
    async with asyncio.timeout(90), contextlib.AsyncExitStack() as stack, echo_server(source) as server:
        host, _, port = server.address.rpartition(":")

        async def idle(number: int) -> None:
            async with gate:
                reader, writer = await asyncio.open_connection(
                    host, int(port), ssl=context if number % 2 else None
                )
                stack.callback(writer.close)
                if number % 2:
                    writer.write(PREFACE + EMPTY_SETTINGS)
                    await reader.readexactly(9)

        async with asyncio.TaskGroup() as group:
            for number in range(CROWD):
                group.create_task(idle(number))
        started = time.monotonic()
        assert await ask(caller, server.address, DE, FRA_1) == str(caller.id)
        assert time.monotonic() - started < 5
