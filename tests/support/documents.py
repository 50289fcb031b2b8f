"""A node with an index in a running mesh, and whoever sends it documents."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc

from mesh.core.documents import DocumentInfo, FileSkipped, FileStored
from mesh.core.retrieval import CollectionSpec
from mesh.rpc.status import from_rpc_error
from mesh.sdk.documents import FileDone, IndexClient
from mesh.sdk.files import files_under
from mesh.sdk.placers import Server
from node.config import RetrievalSettings
from node.index.embedding import ScriptedEmbedder
from node.index.stores import StoreSettings
from node.retrieval.parts import RetrievalParts
from sovereign.mesh.v1 import index_pb2, index_pb2_grpc
from tests.support.mesh import DEADLINE_S, Authority, Mesh, Node, mesh_of

COLLECTION = "handbook"
SPEC = CollectionSpec(
    COLLECTION, "scripted", "sha256:" + hashlib.sha256(b"scripted/32").hexdigest(), 32, chunk_tokens=32
)
INTERNAL = DocumentInfo(classes=("internal",))


class Documents:
    """A mesh with one node "fra-1" of DE that may hold documents, and callers of its Index service."""

    def __init__(self, mesh: Mesh, node: Node, directory: Path) -> None:
        self.mesh, self.node, self.directory = mesh, node, directory

    @property
    def de(self) -> Authority:
        return self.mesh["DE"]

    @property
    def library(self) -> Any:
        assert self.node.runtime.retrieval is not None
        return self.node.runtime.retrieval.library

    @property
    def inbox(self) -> list[Path]:
        return list((self.directory / "retrieval" / "inbox").rglob("*"))

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [entry for entry in self.node.entries if entry["kind"] == "index"]

    async def publish(self, spec: CollectionSpec = SPEC) -> None:
        await self.de.publish_collection(spec)
        await self.mesh.settled()

    @contextlib.asynccontextmanager
    async def client(self, path: str = "/admin/first") -> AsyncIterator[IndexClient]:
        source = self.de.identity.source(path, self.mesh.bundles)
        async with IndexClient(source, Server(self.node.id, self.node.endpoint)) as client:
            yield client

    def stub(self, path: str = "/admin/first", country: str = "DE") -> Any:
        channel = self.mesh[country].caller(path).channel(self.node)
        return index_pb2_grpc.IndexStub(channel)  # type: ignore[no-untyped-call]

    def write(self, files: dict[str, str | bytes], folder: str = "files") -> Path:
        """Makes these files; the folder that they are in."""
        root = self.directory / folder
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    async def ingest(
        self, paths: Iterable[Path], info: DocumentInfo = INTERNAL, path: str = "/admin/first"
    ) -> dict[str, FileStored | FileSkipped]:
        """Sends what is under the paths; what became of each file."""
        files, _ = files_under(paths)
        found: dict[str, FileStored | FileSkipped] = {}
        async with self.client(path) as client, aclosing(client.ingest(COLLECTION, files, info)) as events:
            async for event in events:
                if isinstance(event, FileDone):
                    found[event.file.name] = event.outcome
        return found


@contextlib.asynccontextmanager
async def documents_of(directory: Path, *countries: str, create: bool = True) -> AsyncIterator[Documents]:
    """The mesh, with the collection published and, unless told otherwise, an empty index."""
    async with mesh_of(directory, *(countries or ("DE",))) as mesh:
        settings = RetrievalSettings(store=StoreSettings(kind="memory"))
        parts = RetrievalParts(directory / "retrieval", ScriptedEmbedder(), settings)
        node = await mesh["DE"].node("fra-1", retrieval=parts)
        found = Documents(mesh, node, directory)
        if create:
            await found.publish()
            async with found.client() as client:
                await client.create(COLLECTION)
        yield found


class RawIngest:
    """An Ingest call, message by message."""

    def __init__(self, stub: Any) -> None:
        self.call = stub.Ingest()

    async def begin(self, **defaults: Any) -> RawIngest:
        info = index_pb2.DocumentInfo(**{"classes": ["internal"], **defaults})
        await self.send(begin=index_pb2.IngestBegin(collection=COLLECTION, defaults=info))
        return self

    async def send(self, **step: Any) -> None:
        await self.call.write(index_pb2.IngestRequest(**step))

    async def offer(self, number: int, name: str, data: bytes, **other: Any) -> Any:
        """Offers a file, and says what the node answers."""
        fields = {"sha256": hashlib.sha256(data).digest(), "bytes": len(data), **other}
        await self.send(offer=index_pb2.IngestOffer(number=number, name=name, **fields))
        return await self.answer()

    async def piece(self, data: bytes, last: bool = True) -> None:
        await self.send(piece=index_pb2.IngestPiece(data=data, last=last))

    async def answer(self) -> Any:
        """The next answer but progress."""
        while True:
            message = await self.call.read()
            if message is grpc.aio.EOF or message.WhichOneof("step") != "progress":  # type: ignore[attr-defined]
                return message

    async def refusal(self) -> Any:
        """How the node ended the call."""
        try:
            while await self.call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        code = await self.call.code()
        raise AssertionError(f"expected a refusal, not {code}")


__all__ = ["COLLECTION", "DEADLINE_S", "INTERNAL", "SPEC", "Documents", "RawIngest", "documents_of"]
