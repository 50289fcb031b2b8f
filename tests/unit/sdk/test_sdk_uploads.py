"""Uploads against nodes that keep the protocol, and nodes that do not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.core.documents import DocumentInfo, FileSkipped, FileStored
from mesh.core.errors import MeshError, Reason
from mesh.sdk.files import SourceFile, files_under
from mesh.sdk.uploads import FileDone, SoFar, Upload
from sovereign.mesh.v1 import index_pb2

EOF = grpc.aio.EOF  # type: ignore[attr-defined]


class ScriptedCall:
    """A call whose other side answers each request as `node` says."""

    def __init__(self, node: Callable[[Any], list[Any]]) -> None:
        self.node = node
        self.requests: list[Any] = []
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.ended = False

    async def write(self, request: Any) -> None:
        self.requests.append(request)
        for answer in self.node(request):
            self.answers.put_nowait(answer)

    async def read(self) -> Any:
        return await self.answers.get()

    async def done_writing(self) -> None:
        self.ended = True
        self.answers.put_nowait(EOF)

    def cancel(self) -> bool:
        return True


def wanted(number: int) -> Any:
    return index_pb2.IngestResponse(wanted=index_pb2.IngestWanted(number=number))


def stored(number: int) -> Any:
    return index_pb2.IngestResponse(stored=index_pb2.IngestStored(number=number, documents=1, chunks=1))


def progress() -> Any:
    return index_pb2.IngestResponse(progress=index_pb2.IngestProgress(documents=1, chunks=1))


def honest(request: Any) -> list[Any]:
    """Wants odd files, holds even ones, and stores what it was sent."""
    step = request.WhichOneof("step")
    if step == "begin":
        honest.number = 0  # type: ignore[attr-defined]
        return [progress()]
    if step == "offer":
        honest.number = number = request.offer.number  # type: ignore[attr-defined]
        return [wanted(number) if number % 2 else stored(number)]
    return [stored(honest.number)] if request.piece.last else []  # type: ignore[attr-defined]


@pytest.fixture
def files(tmp_path: Path) -> list[SourceFile]:
    for number in range(1, 5):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * (number * 200_000))
    (tmp_path / "5.txt").touch()
    return files_under([tmp_path])[0]


def upload_of(files: list[SourceFile], **options: Any) -> Upload:
    return Upload("handbook", files, DocumentInfo(classes=("internal",)), 5.0, **options)


async def follow(upload: Upload, node: Callable[[Any], list[Any]], last_s: float = 60.0) -> Any:
    call = ScriptedCall(node)
    async with asyncio.timeout(10):
        return call, [event async for event in upload.stream(call, last_s)]


async def test_only_wanted_files_travel_in_pieces(files: list[SourceFile]):
    upload = upload_of(files)
    call, events = await follow(upload, honest)
    done = {event.file.path.name: event for event in events if isinstance(event, FileDone)}
    assert {name: event.sent for name, event in done.items()} == {
        "1.txt": True, "2.txt": False, "3.txt": True, "4.txt": False, "5.txt": True,
    }  # fmt: skip
    assert all(isinstance(event.outcome, FileStored) for event in done.values())
    pieces = [len(r.piece.data) for r in call.requests if r.WhichOneof("step") == "piece"]
    assert pieces == [200_000, 262_144, 262_144, 75_712, 0]
    assert any(isinstance(event, SoFar) for event in events)
    assert upload.ended
    assert call.ended


async def test_an_old_stream_is_ended_and_the_next_one_goes_on(files: list[SourceFile]):
    now = [0.0]

    def slow(request: Any) -> list[Any]:
        now[0] += 10 if request.WhichOneof("step") == "offer" else 0
        return honest(request)

    upload = upload_of(files, monotonic=lambda: now[0])
    names: list[str] = []
    streams = 0
    while not upload.ended:
        _, events = await follow(upload, slow, last_s=15.0)
        names += [event.file.path.name for event in events if isinstance(event, FileDone)]
        streams += 1
    assert sorted(names) == [f"{n}.txt" for n in range(1, 6)]
    assert streams == 3


async def test_a_file_that_went_meanwhile_is_reported(files: list[SourceFile]):
    os.unlink(files[1].path)
    _, events = await follow(upload_of(files), honest)
    done = {event.file.path.name: event.outcome for event in events if isinstance(event, FileDone)}
    assert len(done) == 5
    lost = done["2.txt"]
    assert isinstance(lost, FileSkipped)
    assert lost.reason == Reason.DOCUMENT_UNREADABLE.code


@pytest.mark.parametrize(
    "answers",
    [
        [stored(99)],
        [stored(1), stored(1)],
        [wanted(1), wanted(1)],
        [wanted(2)],
        [index_pb2.IngestResponse()],
    ],
    ids=["never offered", "twice", "wanted twice", "another wanted", "nothing"],
)
async def test_a_node_that_answers_what_it_was_not_asked_ends_the_upload(
    files: list[SourceFile], answers: list[Any]
):
    def hostile(request: Any) -> list[Any]:
        return answers if request.WhichOneof("step") == "offer" else [progress()]

    with pytest.raises(MeshError) as error:
        await follow(upload_of(files), hostile)
    assert error.value.reason is Reason.PEER_MISBEHAVED


async def test_a_stream_that_ends_before_its_answers_is_a_lost_node(files: list[SourceFile]):
    def forgetful(request: Any) -> list[Any]:
        answers = honest(request)
        return answers if request.WhichOneof("step") != "piece" else []

    with pytest.raises(MeshError) as error:
        await follow(upload_of(files[:1]), forgetful)
    assert error.value.reason is Reason.NODE_LOST


async def test_a_silent_node_is_a_lost_node(files: list[SourceFile]):
    upload = Upload("handbook", files, DocumentInfo(), 0.05)
    with pytest.raises(MeshError) as error:
        await follow(upload, lambda request: [])
    assert error.value.reason is Reason.NODE_LOST
