"""What passes between the stages of an upload, and how much of it at once.

A file becomes documents, a document becomes texts, texts of several documents become one batch for the
embedder, and a document whose vectors are all there is stored. These are the values that carry it, and
the two bounded places where it waits. They belong to one event loop and do no work of their own.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.core.documents import MAX_ROWS_LISTED, FileSkipped, FileStored, SkippedRow
from mesh.core.errors import MeshError
from node.index.documents import DocumentMeta
from node.index.inbox import ReceivedFile
from node.index.stored import NewChunk, NewDocument


@dataclass(eq=False)
class FileUnderWay:
    """A file on its way through, and what became of its documents so far.

    `key` is the name that the index remembers it by; `ids` are of the documents that came out of it.
    """

    received: ReceivedFile
    key: str
    documents: int = 0
    chunks: int = 0
    unchanged: int = 0
    waiting: int = 0
    parsed: bool = False
    told: bool = False  # its sender has been, or is being, told
    elsewhere: bool = False  # some of its documents came from another file
    failure: MeshError | None = None
    rows: list[SkippedRow] = field(default_factory=list)
    rows_total: int = 0
    ids: set[str] = field(default_factory=set)

    @property
    def settled(self) -> bool:
        """Whether nothing of it is under way any more."""
        return self.parsed and not self.waiting

    @property
    def whole(self) -> bool:
        """Whether all that is in it is stored."""
        return self.failure is None and not self.rows_total

    def skip_row(self, row: int, problem: MeshError) -> None:
        """One document of it is not taken."""
        self.rows_total += 1
        if len(self.rows) < MAX_ROWS_LISTED:
            self.rows.append(SkippedRow(row, problem.reason.code, problem.message))

    def outcome(self) -> FileStored | FileSkipped:
        """What its sender is told, once it is settled."""
        if self.failure is not None:
            return FileSkipped(self.failure.reason.code, self.failure.message)
        if self.rows and not self.documents:
            return FileSkipped(self.rows[0].reason, self.rows[0].detail)
        return FileStored(self.documents, self.chunks, self.unchanged, tuple(self.rows), self.rows_total)


@dataclass(eq=False)
class DocumentUnderWay:
    """A document whose chunks are being embedded."""

    file: FileUnderWay
    position: int  # of its row, from 1
    meta: DocumentMeta
    digest: str
    texts: Sequence[str]
    vectors: list[array[float] | None] = field(default_factory=list)
    missing: int = 0
    failed: bool = False

    def __post_init__(self) -> None:
        self.vectors = [None] * len(self.texts)
        self.missing = len(self.texts)

    def place(self, ordinal: int, vector: Sequence[float]) -> None:
        """Keeps one chunk's vector, as the float32 values that the index keeps."""
        self.vectors[ordinal] = array("f", vector)
        self.missing -= 1

    def whole(self) -> NewDocument:
        """As it is stored, when no vector is missing."""
        chunks = [
            NewChunk(text, vector)
            for text, vector in zip(self.texts, self.vectors, strict=True)
            if vector is not None
        ]
        return NewDocument(self.meta, self.digest, chunks, self.file.key)


class Room:
    """So much of something may be under way. One that is larger than all of the room gets all of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changed = asyncio.Condition()

    async def take(self, amount: int) -> None:
        """Waits until there is room."""
        amount = min(amount, self._size)
        async with self._changed:
            await self._changed.wait_for(lambda: self._used + amount <= self._size)
            self._used += amount

    async def give_back(self, amount: int) -> None:
        """What `take` took, by the same number."""
        async with self._changed:
            self._used -= min(amount, self._size)
            self._changed.notify_all()


class TextQueue:
    """Documents that wait for vectors, taken as batches of texts across documents, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[DocumentUnderWay, int]] = deque()  # and its first text that waits
        self._changed = asyncio.Condition()
        self._closed = False

    async def put(self, document: DocumentUnderWay) -> None:
        """Its texts are wanted."""
        async with self._changed:
            self._waiting.append((document, 0))
            self._changed.notify()

    async def close(self) -> None:
        """Nothing comes any more."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def take(self, most: int) -> list[tuple[DocumentUnderWay, int]]:
        """The next texts, as documents and ordinals: what there is, at most so many; none at the end.

        It does not wait for more than one: who asks has nothing to do.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[tuple[DocumentUnderWay, int]] = []
            while self._waiting and len(batch) < most:
                document, start = self._waiting.popleft()
                end = min(len(document.texts), start + most - len(batch))
                batch.extend((document, ordinal) for ordinal in range(start, end))
                if end < len(document.texts):
                    self._waiting.appendleft((document, end))
            if self._waiting:
                self._changed.notify()
            return batch
