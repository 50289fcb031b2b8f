"""Uploads without a network: an index that keeps documents in memory, a parser that reads plain lines,
an embedder that can be held, and an Ingester put together from them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

from mesh.core.documents import FileOffer, FileSkipped, FileStored
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec
from node.index.documents import Block, DataClass, MetaDefaults, ParsedDocument, meta_with
from node.index.embedding import ScriptedEmbedder
from node.index.inbox import Inbox
from node.index.index import DocumentIndex, HeldDocument, NewDocument
from node.index.ingest import Ingester, IngestSizes, Upload
from node.index.parsing.complaints import Complaint
from node.index.parsing.intake import Skipped
from node.index.parsing.media import STREAMED

SPEC = CollectionSpec("handbook", "scripted", "sha256:" + "0" * 64, 32, chunk_tokens=16)
DEFAULTS = MetaDefaults(classes=frozenset({DataClass.INTERNAL}))
NOW = 1_790_000_000.0


class MemoryIndex:
    """What uploads need of a DocumentIndex. `trouble` is called before each store, with the documents."""

    spec = SPEC

    def __init__(self) -> None:
        self.held_by_id: dict[str, NewDocument] = {}
        self.files: dict[str, bytes] = {}
        self.stores: list[int] = []
        self.trouble: Callable[[Sequence[NewDocument]], None] = lambda documents: None

    def held(self, document_id: str) -> tuple[HeldDocument, str] | None:
        found = self.held_by_id.get(document_id)
        return (HeldDocument(found.meta, found.digest, len(found.chunks)), found.file) if found else None

    def file_digest(self, name: str) -> bytes | None:
        return self.files.get(name)

    def note_file(self, name: str, sha256: bytes) -> None:
        self.files[name] = sha256

    def put_many(self, documents: Sequence[NewDocument], *, tenant: str | None = None) -> None:
        held = [self.held_by_id[d.meta.id].meta for d in documents if d.meta.id in self.held_by_id]
        if tenant is not None and any(meta.tenant != tenant for meta in held):
            raise MeshError(Reason.DOCUMENT_INVALID, "id: expected one that is not taken")
        self.trouble(documents)
        self.stores.append(len(documents))
        for document in documents:
            assert all(len(chunk.vector) == 32 for chunk in document.chunks)
            self.held_by_id[document.meta.id] = document

    def delete(self, document_id: str) -> None:
        self.files.pop(self.held_by_id.pop(document_id).file, None)


class LineParser:
    """.txt: one document; .jsonl: one per line, where "bad" is a bad row and "id=x ..." names itself;
    a line of "broken" ends the file with an error."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def parse(
        self, path: Path, media: str, defaults: MetaDefaults
    ) -> AsyncIterator[ParsedDocument | Skipped]:
        text = await asyncio.to_thread(path.read_text)
        self.read.append(defaults.id)
        streamed = media in STREAMED
        for position, line in enumerate(text.splitlines() if streamed else [text], 1):
            await asyncio.sleep(0)
            if line == "broken":
                raise Complaint.BROKEN.error()
            if line == "bad":
                yield Skipped(position, Complaint.ROW_SYNTAX.error())
                continue
            said = dict(part.split("=", 1) for part in line.split() if "=" in part)
            named = defaults.for_row(position) if streamed else defaults
            yield ParsedDocument(meta_with(named, said), (Block("paragraph", 0, line),))


class HeldEmbedder(ScriptedEmbedder):
    """Works on nothing while `go` is cleared; keeps the sizes of batches, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.batches: list[int] = []
        self.asked = asyncio.Event()
        self.failure: MeshError | None = None

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        self.batches.append(len(texts))
        self.asked.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return await super().embed(texts)


class Told:
    """What an upload told."""

    def __init__(self) -> None:
        self.files: dict[int, FileStored | FileSkipped] = {}
        self.last = (0, 0)
        self.changed = asyncio.Condition()

    async def file(self, number: int, outcome: FileStored | FileSkipped) -> None:
        assert number not in self.files
        async with self.changed:
            self.files[number] = outcome
            self.changed.notify_all()

    async def progress(self, documents: int, chunks: int) -> None:
        self.last = (documents, chunks)

    async def of(self, number: int) -> FileStored | FileSkipped:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: number in self.files)
        return self.files[number]


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) + 2 for text in texts]


def offer_of(number: int, name: str, data: bytes) -> FileOffer:
    return FileOffer(number, name, hashlib.sha256(data).digest(), len(data))


class Bench:
    """An Ingester over an index, and uploads through it."""

    def __init__(self, folder: Path, **sizes: Any) -> None:
        self.folder = folder / "inbox"
        self.index = MemoryIndex()
        self.parser = LineParser()
        self.embedder = HeldEmbedder()
        self.told = Told()
        self.now = NOW
        self.ingester = Ingester(
            self.embedder,
            self.parser,
            count_words,
            Inbox.open(self.folder),
            lambda: self.now,
            sizes=IngestSizes(**sizes),
        )

    def upload(self, defaults: MetaDefaults = DEFAULTS, tenant: str = "", told: Told | None = None) -> Any:
        self.told = told or Told()
        return self.ingester.upload(cast(DocumentIndex, self.index), defaults, self.told, tenant)

    async def send(self, upload: Upload, number: int, name: str, text: str) -> bool:
        """Offers a file, and sends it if it is wanted; whether it was."""
        data = text.encode()
        outcome = await upload.look(offer_of(number, name, data))
        if outcome is not None:
            await self.told.file(number, outcome)
            return False
        receiving = upload.tray.receive(offer_of(number, name, data))
        receiving.add(data)
        await upload.add(receiving.close())
        return True

    async def ingest(
        self, files: dict[str, str], defaults: MetaDefaults = DEFAULTS
    ) -> dict[str, FileStored | FileSkipped]:
        """One upload of these files; what became of each."""
        async with self.upload(defaults) as upload:
            for number, (name, text) in enumerate(files.items(), 1):
                await self.send(upload, number, name, text)
        return {name: self.told.files[number] for number, name in enumerate(files, 1)}

    @property
    def left_over(self) -> list[Path]:
        return sorted(self.folder.rglob("*"))


def disk_full(documents: Sequence[NewDocument]) -> None:
    raise MeshError(Reason.INDEX_UNAVAILABLE, "the index's own files cannot be used (SQLITE_FULL)")


__all__ = ["DEFAULTS", "SPEC", "Bench", "Told", "disk_full", "offer_of"]
