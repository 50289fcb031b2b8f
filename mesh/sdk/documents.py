"""The SDK's way to a node's own documents: make an index, fill it, look at it, empty it.

    async with IndexClient.from_profile("profile", "fra-1") as index:
        files, left_out = files_under([Path("handbook")])
        async for event in index.ingest("handbook", files, DocumentInfo(classes=("internal",))):
            ...

Documents go to one node of the caller's own authority, over mutual TLS, and nowhere else: the node is
named by whoever sends them. What a node says it stored is durable and found; sending the same again
sends what changed. It does not know what is in a document.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc

from mesh.codec import index as codec
from mesh.core.documents import MAX_DELETED_AT_ONCE, DocumentInfo, HeldDocument, IndexReport
from mesh.core.errors import MeshError, Reason
from mesh.core.types import node_id
from mesh.identity.names import dns_name_of
from mesh.identity.source import SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.rpc.status import from_rpc_error
from mesh.sdk.files import SourceFile
from mesh.sdk.placers import Server
from mesh.sdk.profile import Profile
from mesh.sdk.uploads import STREAM_S, FileDone, SoFar, Upload
from sovereign.mesh.v1 import index_pb2, index_pb2_grpc

__all__ = ["FileDone", "IndexClient", "SoFar"]

_TIMEOUT_S = 30.0
# Making and removing an index moves files.
_LONG_TIMEOUT_S = 300.0

_T = TypeVar("_T")


class IndexClient:
    """Talks to one node. Use as an async context manager, inside one event loop.

    `silence_s` is how long the node may say nothing while it takes documents. Errors are MeshError.
    """

    def __init__(self, source: SvidSource, node: Server, *, silence_s: float = 60.0) -> None:
        if node.id.trust_domain != source.id.trust_domain or node.id.kind != "node":
            raise MeshError(Reason.CONFIG_INVALID, "documents go to nodes of the own authority")
        self.node = node
        self._source = source
        self._silence_s = silence_s
        self._pool: ChannelPool | None = None

    @classmethod
    def from_profile(cls, directory: Path | str, node: str) -> IndexClient:
        """For the node of this name in the profile's `nodes`; raises CONFIG_INVALID if it is not there."""
        profile = Profile.load(Path(directory))
        if node not in profile.nodes:
            raise MeshError(Reason.CONFIG_INVALID, f"profile.yaml: nodes: expected {node} and its host:port")
        source = SvidSource.load(profile.identity, clock=time.time, random=random.random)
        return cls(source, Server(node_id(profile.trust_domain, node), profile.nodes[node]))

    async def __aenter__(self) -> IndexClient:
        self._pool = ChannelPool(self._source)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None

    async def create(self, collection: str) -> IndexReport:
        """Makes an empty index for a collection that the authority has published."""
        request = index_pb2.CreateIndexRequest(collection=collection)
        answer = await _told(self._stub().CreateIndex(request, timeout=_LONG_TIMEOUT_S))
        return codec.index_report_from_pb(answer.index)

    async def status(self, collection: str = "") -> tuple[IndexReport, ...]:
        """How the indexes are, or the one."""
        request = index_pb2.GetIndexStatusRequest(collection=collection)
        answer = await _told(self._stub().GetIndexStatus(request, timeout=_TIMEOUT_S))
        return tuple(map(codec.index_report_from_pb, answer.indexes))

    async def delete(self, collection: str) -> int:
        """Removes the index with its documents, and says how many those were."""
        request = index_pb2.DeleteIndexRequest(collection=collection)
        answer = await _told(self._stub().DeleteIndex(request, timeout=_LONG_TIMEOUT_S))
        return int(answer.documents)

    async def rebuild(self, collection: str) -> AsyncGenerator[tuple[int, int], None]:
        """Has the search index written anew; yields chunks written and in all."""
        call = self._stub().RebuildIndex(index_pb2.RebuildIndexRequest(collection=collection))
        try:
            async for answer in call:
                yield answer.done, answer.total
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def documents(
        self, collection: str, *, after: str = "", limit: int = 100
    ) -> tuple[tuple[HeldDocument, ...], bool]:
        """A page of the documents, by id, and whether there are more."""
        request = index_pb2.ListDocumentsRequest(collection=collection, after=after, limit=limit)
        answer = await _told(self._stub().ListDocuments(request, timeout=_TIMEOUT_S))
        return codec.held_documents_from_pb(answer), bool(answer.more)

    async def forget(self, collection: str, documents: Sequence[str]) -> int:
        """Deletes documents, at once; says how many of them there were."""
        deleted = 0
        for start in range(0, len(documents), MAX_DELETED_AT_ONCE):
            request = index_pb2.DeleteDocumentsRequest(
                collection=collection, documents=documents[start : start + MAX_DELETED_AT_ONCE]
            )
            answer = await _told(self._stub().DeleteDocuments(request, timeout=_LONG_TIMEOUT_S))
            deleted += answer.deleted
        return deleted

    async def ingest(
        self, collection: str, files: Sequence[SourceFile], defaults: DocumentInfo
    ) -> AsyncGenerator[FileDone | SoFar, None]:
        """Sends what the node does not have yet; one FileDone for each file, in any order.

        `defaults` hold for what the files do not say. Closing the iterator ends the sending; what was
        reported as stored stays. A node that is lost on the way is an error: call again to go on.
        """
        upload = Upload(collection, files, defaults, self._silence_s)
        while not upload.ended:
            # A connection has an end, and a certificate too: a long upload takes several streams.
            async for event in upload.stream(self._stub().Ingest(), STREAM_S):
                yield event

    def _stub(self) -> Any:
        if self._pool is None:
            raise RuntimeError(
                "IndexClient is an async context manager: async with IndexClient(...) as index"
            )
        channel = self._pool.channel(
            self.node.endpoint, dns_name=dns_name_of(self.node.id), trust_domain=self.node.id.trust_domain
        )
        return index_pb2_grpc.IndexStub(channel)


async def _told(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
