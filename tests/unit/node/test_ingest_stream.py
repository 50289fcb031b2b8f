"""Callers of Ingest that take their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.core.errors import MeshError, Reason
from node.api.ingest_stream import Answers, Requests
from sovereign.mesh.v1 import index_pb2
from tests.support.ingest import Bench


async def nothing() -> AsyncIterator[index_pb2.IngestRequest]:
    await asyncio.Event().wait()
    yield index_pb2.IngestRequest()


async def test_a_caller_that_says_nothing_has_gone():
    with pytest.raises(MeshError) as error:
        await Requests(nothing(), lambda: 0.0, idle_s=0.01).begin()
    assert error.value.reason is Reason.PEER_TOO_SLOW


async def test_a_file_that_trickles_in_ends_the_call(tmp_path: Path):
    """Every piece is in time, the file is not."""
    now = [0.0]

    async def trickle() -> AsyncIterator[index_pb2.IngestRequest]:
        offer = index_pb2.IngestOffer(number=1, name="a.txt", sha256=b"0" * 32, bytes=16384)
        yield index_pb2.IngestRequest(offer=offer)
        for _ in range(16384):
            now[0] += 20.0
            yield index_pb2.IngestRequest(piece=index_pb2.IngestPiece(data=b"x"))

    class Sink:
        async def write(self, message: Any) -> None:
            pass

    async def take() -> None:
        bench = Bench(tmp_path)
        answers = Answers(Sink())  # type: ignore[arg-type]
        async with bench.upload() as upload:
            await Requests(trickle(), lambda: now[0]).feed(upload, answers, lambda: None)

    with pytest.raises(MeshError) as error:
        await asyncio.wait_for(take(), 10)
    assert error.value.reason is Reason.PEER_TOO_SLOW
    assert now[0] < 100
    assert list((tmp_path / "inbox").rglob("*")) == []


async def test_answers_that_nobody_reads_end_the_call(monkeypatch: pytest.MonkeyPatch):
    class Stuck:
        async def write(self, message: Any) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("node.api.ingest_stream.WRITE_S", 0.01)
    with pytest.raises(MeshError) as error:
        await Answers(Stuck()).progress(1, 1)  # type: ignore[arg-type]
    assert error.value.reason is Reason.PEER_TOO_SLOW
