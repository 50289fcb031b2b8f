"""One upload of files to one node: offer, send what is wanted, and keep account of what became of it.

One task offers and sends, file after file; meanwhile the node's answers are read, which also come for
files that were sent long before. A node that answers what it was not asked, or goes silent, ends the
upload. It knows nothing of connections: it is given a call, and another one when that has become old.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from mesh.codec import index as codec
from mesh.core.documents import MAX_PIECE_BYTES, DocumentInfo, FileOffer, FileSkipped, FileStored
from mesh.core.errors import MeshError, Reason
from mesh.rpc.status import from_rpc_error
from mesh.sdk.files import SourceFile, fingerprint, open_file
from sovereign.mesh.v1 import index_pb2

# A stream takes new files for so long. Servers end connections after an hour and a half.
STREAM_S = 900.0


@dataclass(frozen=True, slots=True)
class FileDone:
    """What became of a file. `sent`: whether its bytes travelled."""

    file: SourceFile
    outcome: FileStored | FileSkipped
    sent: bool


@dataclass(frozen=True, slots=True)
class SoFar:
    """Documents and chunks that the node has stored from this stream."""

    documents: int
    chunks: int


class Upload:
    """Follows one upload through as many streams as it takes. `monotonic`: seconds."""

    def __init__(
        self,
        collection: str,
        files: Sequence[SourceFile],
        defaults: DocumentInfo,
        silence_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collection, self._files, self._defaults = collection, files, defaults
        self._silence_s = silence_s
        self._monotonic = monotonic
        self._next = 0
        self._open: dict[int, SourceFile] = {}
        self._sent: set[int] = set()
        self._unreadable: list[FileDone] = []
        self._answer: asyncio.Future[bool] | None = None
        self._accepted = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether every file has been offered and answered."""
        return self._next >= len(self._files) and not self._open

    async def stream(self, call: Any, last_s: float) -> AsyncGenerator[FileDone | SoFar, None]:
        """Offers files over this call for `last_s` seconds, then waits for what is under way."""
        self._accepted.clear()
        sender = asyncio.create_task(self._send(call, self._monotonic() + last_s))
        try:
            while (message := await self._read(call, sender)) is not None:
                for event in self._take(message):
                    yield event
            await sender
            for done in self._unreadable:
                yield done
            self._unreadable.clear()
            if self._open:
                raise MeshError(Reason.NODE_LOST, "the node ended the stream before it had answered")
        except grpc.RpcError as error:
            raise from_rpc_error(error, began=True) from None
        finally:
            sender.cancel()
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sender

    async def _read(self, call: Any, sender: asyncio.Task[None]) -> Any:
        """The next answer; None at the end. What ends the sender ends this."""
        reading = asyncio.ensure_future(call.read())
        try:
            while True:
                watched = {reading} if sender.done() else {reading, sender}
                done, _ = await asyncio.wait(
                    watched, timeout=self._silence_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    raise MeshError(Reason.NODE_LOST, f"the node was silent for {self._silence_s:g} s")
                if reading in done:
                    message = reading.result()
                    return None if message is grpc.aio.EOF else message  # type: ignore[attr-defined]
                failure = sender.exception()
                if failure is not None and not isinstance(failure, grpc.RpcError | asyncio.InvalidStateError):
                    raise failure  # else the call has ended, and reading says why
        finally:
            reading.cancel()

    def _take(self, message: Any) -> list[FileDone | SoFar]:
        kind = message.WhichOneof("step")
        self._accepted.set()
        if kind == "progress":
            return [SoFar(message.progress.documents, message.progress.chunks)]
        if kind == "wanted":
            if message.wanted.number not in self._open or self._answer is None or self._answer.done():
                raise _misbehaved()
            self._answer.set_result(True)
            return []
        if kind not in ("stored", "skipped"):
            raise _misbehaved()
        answer = message.stored if kind == "stored" else message.skipped
        file = self._open.pop(answer.number, None)
        if file is None:
            raise _misbehaved()
        outcome: FileStored | FileSkipped = (
            codec.stored_from_pb(answer) if kind == "stored" else codec.skipped_from_pb(answer)
        )
        sent = answer.number in self._sent
        if not sent and self._answer is not None and not self._answer.done():
            self._answer.set_result(False)
        return [FileDone(file, outcome, sent)]

    async def _send(self, call: Any, until: float) -> None:
        begin = index_pb2.IngestBegin(
            collection=self._collection, defaults=codec.document_info_to_pb(self._defaults)
        )
        await call.write(index_pb2.IngestRequest(begin=begin))
        # A node that refuses ends the call, and whoever goes on writing then never learns why.
        await self._accepted.wait()
        while self._next < len(self._files) and self._monotonic() < until:
            number = self._next + 1
            await self._send_file(call, number, self._files[self._next])
            self._next = number
        await call.done_writing()

    async def _send_file(self, call: Any, number: int, file: SourceFile) -> None:
        try:
            opened = await asyncio.to_thread(open_file, file)
        except OSError as error:
            self._unreadable.append(_unreadable(file, error))
            return
        with opened:
            try:
                sha256, size = await asyncio.to_thread(fingerprint, opened)
            except OSError as error:
                self._unreadable.append(_unreadable(file, error))
                return
            self._open[number] = file
            self._answer = asyncio.get_running_loop().create_future()
            offer = codec.offer_to_pb(FileOffer(number, file.name, sha256, size))
            await call.write(index_pb2.IngestRequest(offer=offer))
            if not await self._answer:
                return
            self._sent.add(number)
            left = size
            while left > 0:
                data = await asyncio.to_thread(opened.read, min(left, MAX_PIECE_BYTES))
                # One that has shrunk meanwhile is sent as it is; the node sees that it is another one.
                left = left - len(data) if data else 0
                piece = index_pb2.IngestPiece(data=data, last=left == 0)
                await call.write(index_pb2.IngestRequest(piece=piece))
            if size == 0:
                await call.write(index_pb2.IngestRequest(piece=index_pb2.IngestPiece(last=True)))


def _unreadable(file: SourceFile, error: OSError) -> FileDone:
    why = error.strerror or "it cannot be read"
    return FileDone(file, FileSkipped(Reason.DOCUMENT_UNREADABLE.code, why), False)


def _misbehaved() -> MeshError:
    return MeshError(Reason.PEER_MISBEHAVED, "expected answers to what was offered, and one each")
