"""One upload on its way into one index: the stages that node/index/ingest.py speaks of.

Each stage is a task or two; between them documents wait in bounded places (stages.py). Whatever goes
wrong with one file is that file's outcome; whatever else goes wrong ends the upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from mesh.core.documents import FileOffer, FileSkipped, FileStored
from mesh.core.errors import MeshError, Reason
from node.index.chunking import CountTokens, chunk, content_hash
from node.index.documents import MetaDefaults, ParsedDocument
from node.index.embedding import TextEmbedder
from node.index.file_marks import FileMarks
from node.index.inbox import ReceivedFile, Tray
from node.index.index import DocumentIndex, HeldDocument
from node.index.parsing.complaints import Complaint
from node.index.parsing.intake import Skipped
from node.index.parsing.limits import ParseLimits
from node.index.parsing.media import STREAMED, media_of
from node.index.stages import DocumentUnderWay, FileUnderWay, Room, TextQueue

Outcome = FileStored | FileSkipped

_RETRY_S = 5.0
_OF_ONE_DOCUMENT = frozenset({Reason.DOCUMENT_UNREADABLE, Reason.DOCUMENT_TOO_LARGE, Reason.DOCUMENT_INVALID})


class FileParser(Protocol):
    """What node/index/parsing/pool.py does."""

    def parse(
        self, path: Path, media: str, defaults: MetaDefaults
    ) -> AsyncIterator[ParsedDocument | Skipped]:
        """The file's documents, and the rows that are none."""
        ...


class Teller(Protocol):
    """Whoever wants to know what becomes of an upload. Its methods may wait; then the upload does."""

    async def file(self, number: int, outcome: Outcome) -> None:
        """A file is settled."""
        ...

    async def progress(self, documents: int, chunks: int) -> None:
        """So many are stored, over the whole upload; now and then also if nothing is new."""
        ...


@dataclass(frozen=True, slots=True)
class IngestSizes:
    """How much may be under way at once. Chunks and files in number, per upload."""

    uploads: int = 4  # in the node
    uploads_per_tenant: int = 2
    parsers: int = 2  # files that are read at the same time
    files: int = 8
    file_bytes: int = 256 * 1024 * 1024  # on disk, waiting to be read; a larger file waits alone
    chunks: int = 2048  # with their vectors, some 8 MiB
    chunks_per_document: int = 20_000
    batch: int = 64  # texts; the local embedder cuts it into pieces of alike lengths
    store: int = 512  # chunks in one transaction
    beat_s: float = 10.0  # between two words of progress


@dataclass(frozen=True, slots=True)
class Means:
    """What the uploads of a node share. `under_way` has the collection and key of every file that is on
    its way in: never the same one twice."""

    embedder: TextEmbedder
    parser: FileParser
    count_tokens: CountTokens
    clock: Callable[[], float]
    limits: ParseLimits
    sizes: IngestSizes
    under_way: set[tuple[str, str]] = field(default_factory=set)


class Upload:
    """One upload on its way into one index. Only Ingester makes one."""

    def __init__(
        self, means: Means, index: DocumentIndex, defaults: MetaDefaults, teller: Teller, tray: Tray
    ) -> None:
        self.tray = tray
        self._means, self._index, self._defaults, self._teller = means, index, defaults, teller
        self._marks = FileMarks(defaults)
        self._sizes = sizes = means.sizes
        self._files: asyncio.Queue[FileUnderWay | None] = asyncio.Queue(sizes.files)
        self._bytes = Room(sizes.file_bytes)
        self._texts = TextQueue()
        self._chunks = Room(sizes.chunks)
        self._whole: asyncio.Queue[DocumentUnderWay | None] = asyncio.Queue()  # bounded by _chunks
        self._keys: set[tuple[str, str]] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._embedding: list[asyncio.Task[None]] = []
        self._storing: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self.documents = 0
        self.chunks = 0
        self.skipped = 0

    # --- for whoever receives the files ------------------------------------------------------------

    async def look(self, offer: FileOffer) -> Outcome | None:
        """What is known of a file that could be sent; None: it is wanted."""
        try:
            media = media_of(offer.name)
            most = self._means.limits.stream_bytes if media in STREAMED else self._means.limits.file_bytes
            if offer.bytes > most:
                raise Complaint.FILE_SIZE.error()
            key = self._marks.key(offer.name)
            if (self._index.spec.name, key) in self._means.under_way:
                raise MeshError(
                    Reason.INDEX_UNAVAILABLE, "a file of this name is on its way in already", {}, _RETRY_S
                )
            mark = await asyncio.to_thread(self._index.file_digest, key)
            held = self._marks.recall(mark, offer)
            if held is not None:
                return held
            await asyncio.to_thread(self.tray.require_room, offer.bytes)
        except MeshError as error:
            self.skipped += 1
            return FileSkipped(error.reason.code, error.message)
        # Claimed here, not when it has arrived: nobody else may begin with it meanwhile.
        self._claim(key)
        return None

    async def add(self, received: ReceivedFile) -> None:
        """A wanted file has arrived; returns when there is room for another one."""
        await self._bytes.take(received.offer.bytes)
        await self._files.put(FileUnderWay(received, self._marks.key(received.offer.name)))

    def give_up(self, offer: FileOffer) -> None:
        """A wanted file did not arrive."""
        self.skipped += 1
        self._unclaim(self._marks.key(offer.name))

    # --- the stages --------------------------------------------------------------------------------

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begins to work."""
        self._workers = [tasks.create_task(self._parse_files()) for _ in range(self._sizes.parsers)]
        # Two, so that the embedder has the next batch at hand when it has done one.
        self._embedding = [tasks.create_task(self._embed_batches()) for _ in range(2)]
        self._storing = tasks.create_task(self._store_documents())
        self._beating = tasks.create_task(self._beat())

    async def finish(self) -> None:
        """Nothing more comes: returns when all that came is settled."""
        for _ in self._workers:
            await self._files.put(None)
        await asyncio.gather(*self._workers)
        await self._texts.close()
        await asyncio.gather(*self._embedding)
        await self._whole.put(None)
        if self._storing is not None:
            await self._storing
        if self._beating is not None:
            self._beating.cancel()

    def release(self) -> None:
        """Lets others send the files that were not settled."""
        for key in tuple(self._keys):
            self._unclaim(key[1])

    async def _parse_files(self) -> None:
        while (file := await self._files.get()) is not None:
            try:
                await self._parse(file)
            except MeshError as error:
                file.failure = file.failure or error
            finally:
                await asyncio.to_thread(file.received.remove)
                await self._bytes.give_back(file.received.offer.bytes)
            file.parsed = True
            await self._settle([file])

    async def _parse(self, file: FileUnderWay) -> None:
        name = file.received.offer.name
        found = self._means.parser.parse(file.received.path, media_of(name), self._marks.defaults(name))
        position = 0
        async with aclosing(cast("AsyncGenerator[ParsedDocument | Skipped, None]", found)) as documents:
            async for document in documents:
                position += 1
                if file.failure is not None:
                    return  # it will be skipped anyway
                try:
                    if isinstance(document, Skipped):
                        position = document.position
                        raise document.reason
                    await self._take(file, document, position)
                except MeshError as error:
                    self._refuse(file, position, error)

    def _refuse(self, file: FileUnderWay, position: int, error: MeshError) -> None:
        """A document that cannot be held: a row of its file, or the whole of it."""
        rows = media_of(file.received.offer.name) in STREAMED
        if rows and error.reason in _OF_ONE_DOCUMENT:
            file.skip_row(position, error)
        else:
            file.failure = file.failure or error

    async def _take(self, file: FileUnderWay, document: ParsedDocument, position: int) -> None:
        """One document: unchanged, or to be embedded."""
        if document.meta.id in file.ids:
            raise MeshError(Reason.DOCUMENT_INVALID, "id: expected another one in every row")
        file.ids.add(document.meta.id)
        prepared = await asyncio.to_thread(self._prepare, file, document)
        file.documents += 1
        if isinstance(prepared, HeldDocument):
            file.unchanged += 1
            file.chunks += prepared.chunks
            return
        digest, texts = prepared
        await self._chunks.take(len(texts))
        file.waiting += 1
        await self._texts.put(DocumentUnderWay(file, position, document.meta, digest, texts))

    def _prepare(self, file: FileUnderWay, document: ParsedDocument) -> tuple[str, list[str]] | HeldDocument:
        """Its digest and chunks, or what is held of it if nothing has changed. Blocking."""
        meta = document.meta
        today = datetime.fromtimestamp(self._means.clock(), UTC).date()
        if meta.retain_until is not None and meta.retain_until <= today:
            raise MeshError(Reason.DOCUMENT_INVALID, "retain_until: expected a day after today")
        found = self._index.held(meta.id)
        held, from_file = found if found is not None else (None, "")
        if held is not None and "tenant" in self._defaults.locked and held.meta.tenant != meta.tenant:
            # Whose it is, is not told.
            raise MeshError(Reason.DOCUMENT_INVALID, "id: expected one that is not taken")
        digest = content_hash(document)
        if held is not None and held.digest == digest:
            # One that came from elsewhere will not make the index forget this file when it is deleted.
            file.elsewhere |= from_file != file.key
            return held
        try:
            chunks = chunk(document, self._means.count_tokens, self._index.spec.chunk_tokens)
        except FileNotFoundError:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the embedder's tokenizer is not installed") from None
        if not chunks:
            raise Complaint.NO_TEXT.error()
        if len(chunks) > self._sizes.chunks_per_document:
            raise MeshError(
                Reason.DOCUMENT_TOO_LARGE, f"expected at most {self._sizes.chunks_per_document} chunks"
            )
        return digest, [piece.text for piece in chunks]

    async def _embed_batches(self) -> None:
        while batch := await self._texts.take(self._sizes.batch):
            try:
                vectors = await self._means.embedder.embed(
                    [document.texts[ordinal] for document, ordinal in batch]
                )
                for (document, ordinal), vector in zip(batch, vectors, strict=True):
                    document.place(ordinal, vector)
            except MeshError as error:
                for document, _ in batch:
                    document.missing -= 1
                    document.failed = True
                    document.file.failure = document.file.failure or error
            for document in dict.fromkeys(document for document, _ in batch):
                if not document.missing:
                    await self._whole.put(document)

    async def _store_documents(self) -> None:
        ended = False
        while not ended:
            batch: list[DocumentUnderWay] = []
            size = 0
            while size < self._sizes.store and (not batch or not self._whole.empty()):
                document = await self._whole.get()
                if document is None:
                    ended = True
                    break
                batch.append(document)
                size += len(document.texts)
            if batch:
                await self._store(batch)

    async def _store(self, batch: list[DocumentUnderWay]) -> None:
        whole = [document for document in batch if not document.failed]
        try:
            if whole:
                await asyncio.to_thread(self._put, whole)
        except MeshError:
            # One of them may be the cause: each for itself then.
            for document in whole:
                try:
                    await asyncio.to_thread(self._put, [document])
                except MeshError as error:
                    document.failed = True
                    self._refuse(document.file, document.position, error)
                    document.file.documents -= 1
        for document in batch:
            document.file.waiting -= 1
            await self._chunks.give_back(len(document.texts))
            if not document.failed:
                document.file.chunks += len(document.texts)
                self.documents += 1
                self.chunks += len(document.texts)
        await self._settle(dict.fromkeys(document.file for document in batch))
        await self._teller.progress(self.documents, self.chunks)

    def _put(self, documents: Iterable[DocumentUnderWay]) -> None:
        """Stores them. Another tenant's document may have come in since they were prepared. Blocking."""
        tenant = self._defaults.tenant if "tenant" in self._defaults.locked else None
        self._index.put_many([document.whole() for document in documents], tenant=tenant)

    async def _settle(self, files: Iterable[FileUnderWay]) -> None:
        """Tells of the files of which nothing is under way any more."""
        for file in files:
            if not file.settled or file.told:
                continue
            file.told = True  # before anything is awaited: its last document and its parser may both come
            outcome = file.outcome()
            if file.whole and not file.elsewhere:
                mark = self._marks.mark(file.received.offer, file.documents, file.chunks)
                with suppress(MeshError):  # then it is sent again another time
                    await asyncio.to_thread(self._index.note_file, file.key, mark)
            if isinstance(outcome, FileSkipped):
                self.skipped += 1
            self._unclaim(file.key)
            await self._teller.file(file.received.offer.number, outcome)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._sizes.beat_s)
            await self._teller.progress(self.documents, self.chunks)

    def _claim(self, key: str) -> None:
        self._keys.add((self._index.spec.name, key))
        self._means.under_way.add((self._index.spec.name, key))

    def _unclaim(self, key: str) -> None:
        self._keys.discard((self._index.spec.name, key))
        self._means.under_way.discard((self._index.spec.name, key))
