"""The two directions of one Ingest call: files that come in, and what is told of them.

A caller is held to the protocol, which index.proto states: whoever sends a piece that nobody wanted, more
than was offered, or a number again, has ended its call. It is held to a pace as well, because uploads are
few: a wanted file has to arrive in the time that a slow line takes, and what is told has to be read. A
file that is refused on the way is read to its end and dropped; the next one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from mesh.codec import index as codec
from mesh.core.documents import MAX_PIECE_BYTES, FileOffer, FileSkipped
from mesh.core.errors import MeshError, Reason
from node.index.inbox import Receiving
from node.index.upload import Outcome, Upload
from sovereign.mesh.v1 import index_pb2

# A caller that says nothing for so long, between files, has gone.
IDLE_S = 120.0
WRITE_S = 60.0
# A file has so long to arrive, and this much longer for each byte of it (16 KiB/s).
FILE_S = 30.0
BYTE_S = 1 / 16384

_Context = grpc.aio.ServicerContext[Any, Any]


class Answers:
    """What is told of an upload, from whichever stage, one message at a time."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        self._writing = asyncio.Lock()

    async def file(self, number: int, outcome: Outcome) -> None:
        """A file is settled."""
        await self._write(codec.outcome_to_pb(number, outcome))

    async def wanted(self, number: int) -> None:
        """A file is to be sent."""
        await self._write(index_pb2.IngestResponse(wanted=index_pb2.IngestWanted(number=number)))

    async def progress(self, documents: int, chunks: int) -> None:
        """So many are stored."""
        progress = index_pb2.IngestProgress(documents=documents, chunks=chunks)
        await self._write(index_pb2.IngestResponse(progress=progress))

    async def _write(self, message: index_pb2.IngestResponse) -> None:
        async with self._writing:
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._context.write(message)
            except TimeoutError:
                raise MeshError(
                    Reason.PEER_TOO_SLOW, f"expected answers to be read within {WRITE_S:g} s"
                ) from None


class Requests:
    """The caller's messages. `monotonic`: seconds."""

    def __init__(
        self,
        messages: AsyncIterator[index_pb2.IngestRequest],
        monotonic: Callable[[], float],
        idle_s: float = IDLE_S,
    ) -> None:
        self._messages = aiter(messages)
        self._monotonic = monotonic
        self._idle_s = idle_s

    async def begin(self) -> index_pb2.IngestBegin:
        """The first message; raises REQUEST_INVALID if it is another one."""
        message = await self._next(self._idle_s)
        if message is None or message.WhichOneof("step") != "begin":
            raise _invalid("begin first")
        return message.begin

    async def feed(self, upload: Upload, answers: Answers, recheck: Callable[[], object]) -> None:
        """Takes files until the caller has no more. `recheck` is called before each one, and raises if the
        caller may not go on."""
        last = 0
        while (message := await self._next(self._idle_s)) is not None:
            if message.WhichOneof("step") != "offer":
                raise _invalid("an offer before a piece, and begin once")
            offer = codec.offer_from_pb(message.offer)
            if offer.number <= last:
                raise _invalid("numbers of offers that grow")
            last = offer.number
            recheck()
            outcome = await upload.look(offer)
            if outcome is None:
                outcome = await self._receive(offer, upload, answers)
            if outcome is not None:
                await answers.file(offer.number, outcome)

    async def _receive(self, offer: FileOffer, upload: Upload, answers: Answers) -> Outcome | None:
        """Has a wanted file sent; None if it is on its way into the index now."""
        try:
            receiving = await asyncio.to_thread(upload.tray.receive, offer)
        except MeshError as error:
            upload.give_up(offer)
            return _skipped(error)
        try:
            await answers.wanted(offer.number)
            problem = await self._pieces(offer, receiving)
        except BaseException:
            receiving.abandon()
            raise
        if problem is None:
            try:
                received = await asyncio.to_thread(receiving.close)
            except MeshError as error:
                problem = error
        if problem is not None:
            receiving.abandon()
            upload.give_up(offer)
            return _skipped(problem)
        await upload.add(received)
        return None

    async def _pieces(self, offer: FileOffer, receiving: Receiving) -> MeshError | None:
        """Reads a file to its end; what keeps it from being kept, if anything does."""
        deadline = self._monotonic() + FILE_S + offer.bytes * BYTE_S
        problem: MeshError | None = None
        bytes_left = offer.bytes
        while True:
            message = await self._next(deadline - self._monotonic())
            if message is None or message.WhichOneof("step") != "piece":
                raise _invalid("the rest of the file that was offered")
            data = message.piece.data
            bytes_left -= len(data)
            if len(data) > MAX_PIECE_BYTES or not (data or message.piece.last):
                raise _invalid(f"pieces of 1 to {MAX_PIECE_BYTES} bytes")
            if bytes_left < 0:
                raise _invalid("no more bytes than were offered")
            if problem is None:
                try:
                    await asyncio.to_thread(receiving.add, data)
                except MeshError as error:
                    problem = error
            if message.piece.last:
                return problem

    async def _next(self, within_s: float) -> index_pb2.IngestRequest | None:
        try:
            async with asyncio.timeout(within_s):
                if within_s <= 0:  # also if the next message is there already
                    raise TimeoutError
                return await anext(self._messages, None)
        except TimeoutError:
            raise MeshError(
                Reason.PEER_TOO_SLOW, "expected the next message, or the end, sooner than that"
            ) from None


def _skipped(error: MeshError) -> FileSkipped:
    return FileSkipped(error.reason.code, error.message)


def _invalid(expected: str) -> MeshError:
    return MeshError(Reason.REQUEST_INVALID, f"an upload: expected {expected}")
