"""Index: a node's own documents, for administrators and clients of its own authority.

Administrators make, remove and rebuild indexes and see every document. A client adds, lists and deletes
documents of its own tenant, which its files cannot change, and of nobody else's; what it is told of an
index is about those. Callers of other authorities have no business here, whatever any policy says.

Who did what to which collection, and how many documents it concerned, is in the decision log before it is
acknowledged; which documents is not (I1, I7).

Looking into an index takes threads and the event loop that searches need as well. So few do it at once,
askers take turns, and a tenant that asks for more than its share is told to come back before anything is
looked up or written down. Uploads have bounds of their own (node/index/upload.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from mesh.codec import index as codec
from mesh.core import documents as said
from mesh.core.documents import MAX_DELETED_AT_ONCE, MAX_PAGE, IndexReport
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import require_collection_name
from mesh.core.types import DataClass
from mesh.identity.peer import Peer
from mesh.rpc.callers import ADMIN, CLIENT
from mesh.rpc.pace import Pace, asker_of
from node.admission import Admission
from node.api.ingest_stream import Answers, Requests
from node.gate import Entry, Gate
from node.index.documents import DocumentMeta, MetaDefaults, meta_with
from node.index.index import HeldDocument, IndexStatus
from node.index.ingest import Ingester, Upload
from node.index.library import Library
from sovereign.mesh.v1 import index_pb2, index_pb2_grpc

SERVICE_NAME = "sovereign.mesh.v1.Index"

_DEFAULT_PAGE = 100
_MAX_ID_BYTES = 1024
_LOOKING_AT_ONCE = 2
_WAITING = 64
_WAIT_S = 10.0

_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(slots=True)
class _Act:
    """Something that a caller has done; `outcome` is what the log will say of it. `tenant` is None for an
    administrator: all of them. `asker` is who shares one share."""

    tenant: str | None
    asker: str
    outcome: Entry = field(default_factory=dict)


class IndexService(index_pb2_grpc.IndexServicer):
    """Serves one node's library. `monotonic`: seconds."""

    def __init__(
        self,
        gate: Gate,
        library: Library,
        ingester: Ingester,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate
        self._library = library
        self._ingester = ingester
        self._monotonic = monotonic
        self._turns = Admission(
            slots=_LOOKING_AT_ONCE, queue=_WAITING, queue_timeout_s=_WAIT_S, clock=monotonic
        )
        self._pace = Pace()

    # --- indexes -----------------------------------------------------------------------------------

    async def CreateIndex(
        self, request: index_pb2.CreateIndexRequest, context: _Context
    ) -> index_pb2.CreateIndexResponse:
        """Makes an empty index."""
        async with self._act("create", request.collection, context, (ADMIN,)) as act:
            index = await self._library.create(request.collection)
            status = await asyncio.to_thread(index.status)
            act.outcome["digest"] = status.digest
        return index_pb2.CreateIndexResponse(index=codec.index_report_to_pb(_report(status)))

    async def GetIndexStatus(
        self, request: index_pb2.GetIndexStatusRequest, context: _Context
    ) -> index_pb2.GetIndexStatusResponse:
        """How the indexes are; for a client, as far as its tenant's documents go."""
        act = await self._caller(self._entry("status"), context, (ADMIN, CLIENT))
        async with self._turn(act):
            statuses = await asyncio.to_thread(self._library.statuses)
            if request.collection:
                name = require_collection_name(request.collection)
                statuses = tuple(status for status in statuses if status.collection == name)
                if not statuses:
                    raise MeshError(Reason.COLLECTION_UNKNOWN, "this node holds no collection of that name")
            reports = [_report(status) for status in statuses]
            if (tenant := act.tenant) is not None:
                reports = [await asyncio.to_thread(self._report_for, each, tenant) for each in reports]
        return index_pb2.GetIndexStatusResponse(indexes=map(codec.index_report_to_pb, reports))

    async def DeleteIndex(
        self, request: index_pb2.DeleteIndexRequest, context: _Context
    ) -> index_pb2.DeleteIndexResponse:
        """Removes an index with its documents."""
        async with self._act("delete", request.collection, context, (ADMIN,)) as act:
            documents = act.outcome["documents"] = await self._library.delete(request.collection)
        return index_pb2.DeleteIndexResponse(documents=documents)

    async def RebuildIndex(self, request: index_pb2.RebuildIndexRequest, context: _Context) -> None:
        """Writes the search index anew, and says how far it is. It goes on if the caller leaves."""
        async with self._act("rebuild", request.collection, context, (ADMIN,)) as act:
            index = self._library.get(request.collection)
            loop = asyncio.get_running_loop()
            moved = asyncio.Event()
            so_far = (0, 0)

            def note(done: int, total: int) -> None:
                nonlocal so_far
                so_far = (done, total)
                loop.call_soon_threadsafe(moved.set)

            working = asyncio.ensure_future(asyncio.to_thread(index.rebuild, note))
            working.add_done_callback(lambda _: moved.set())
            while not working.done():
                await moved.wait()
                moved.clear()
                if not working.done():
                    await context.write(index_pb2.RebuildIndexResponse(done=so_far[0], total=so_far[1]))
            await working
            act.outcome["chunks"] = so_far[1]
        await context.write(index_pb2.RebuildIndexResponse(done=so_far[1], total=so_far[1]))

    # --- documents ---------------------------------------------------------------------------------

    async def Ingest(
        self, request_iterator: AsyncIterator[index_pb2.IngestRequest], context: _Context
    ) -> None:
        """Takes files, and tells what became of each; see index.proto."""
        # Before anything of it is read: a stranger's stream is none.
        await self._caller(self._entry("ingest"), context, (ADMIN, CLIENT))
        requests = Requests(request_iterator, self._monotonic)
        begin = await requests.begin()
        async with self._act("ingest", begin.collection, context, (ADMIN, CLIENT)) as act:
            defaults = _defaults(codec.document_info_from_pb(begin.defaults), act.tenant)
            index = self._library.get(begin.collection)
            await self._library.require_embedder(index.spec)
            answers = Answers(context)
            upload: Upload | None = None
            try:
                async with self._ingester.upload(index, defaults, answers, act.tenant or "") as upload:
                    await answers.progress(0, 0)  # it may begin
                    await requests.feed(
                        upload, answers, lambda: self._gate.identify(context, {}, (ADMIN, CLIENT))
                    )
            finally:
                if upload is not None:
                    act.outcome.update(
                        documents=upload.documents, chunks=upload.chunks, skipped=upload.skipped
                    )

    async def DeleteDocuments(
        self, request: index_pb2.DeleteDocumentsRequest, context: _Context
    ) -> index_pb2.DeleteDocumentsResponse:
        """Deletes documents; a client's, those of its own tenant among them."""
        async with self._act("forget", request.collection, context, (ADMIN, CLIENT), in_turn=True) as act:
            ids = list(dict.fromkeys(request.documents))
            if not 1 <= len(request.documents) <= MAX_DELETED_AT_ONCE:
                raise MeshError(Reason.REQUEST_INVALID, f"documents: expected 1 to {MAX_DELETED_AT_ONCE}")
            _check_ids(ids)
            index = self._library.find(request.collection)
            deleted = await asyncio.to_thread(lambda: index.delete(ids, tenant=act.tenant))
            act.outcome["documents"] = deleted
        return index_pb2.DeleteDocumentsResponse(deleted=deleted)

    async def ListDocuments(
        self, request: index_pb2.ListDocumentsRequest, context: _Context
    ) -> index_pb2.ListDocumentsResponse:
        """A page of documents; a client's, those of its own tenant among them."""
        async with self._act("list", request.collection, context, (ADMIN, CLIENT), in_turn=True) as act:
            limit = request.limit or _DEFAULT_PAGE
            if limit > MAX_PAGE:
                raise MeshError(Reason.REQUEST_INVALID, f"limit: expected at most {MAX_PAGE}")
            _check_ids([request.after] if request.after else [])
            index = self._library.find(request.collection)
            found = await asyncio.to_thread(
                lambda: index.documents(request.after, limit + 1, tenant=act.tenant)
            )
            act.outcome["documents"] = len(found[:limit])
        documents = [codec.held_document_to_pb(_held(document)) for document in found[:limit]]
        return index_pb2.ListDocumentsResponse(documents=documents, more=len(found) > limit)

    # --- who, and what the log says ----------------------------------------------------------------

    @asynccontextmanager
    async def _act(
        self,
        what: str,
        collection: str,
        context: _Context,
        kinds: Collection[str],
        *,
        in_turn: bool = False,
    ) -> AsyncIterator[_Act]:
        """Around what a caller does: in the log before it is done, and with its outcome before it is
        acknowledged. Raises IDENTITY_*, EVIDENCE_UNAVAILABLE, OVERLOADED."""
        entry = self._entry(what)
        act = await self._caller(entry, context, kinds, collection)
        async with self._turn(act) if in_turn else nullcontext(), self._recorded(entry, act):
            yield act

    @asynccontextmanager
    async def _recorded(self, entry: Entry, act: _Act) -> AsyncIterator[None]:
        await self._gate.record({**entry, "outcome": "begun"})
        try:
            yield
        except BaseException as error:
            reason = error.reason if isinstance(error, MeshError) else Reason.INTERNAL
            if isinstance(error, asyncio.CancelledError | GeneratorExit):
                reason = Reason.CANCELLED
            with suppress(MeshError):  # that it failed is told, recorded or not
                await self._record_end(entry, {**act.outcome, "outcome": "failed", "reason": reason.code})
            raise
        await self._record_end(entry, {**act.outcome, "outcome": "done"})

    @asynccontextmanager
    async def _turn(self, act: _Act) -> AsyncIterator[None]:
        """Waits for a turn, and counts what it takes. Not recorded if it is refused: a flood must not fill
        the disk that decisions need (I7). Administrators wait like all others, and have no share."""
        if act.tenant is not None:
            self._pace.require(act.asker, self._monotonic())
        with await self._turns.enter(act.asker):
            began = self._monotonic()
            try:
                yield
            finally:
                ended = self._monotonic()
                self._pace.spend(act.asker, ended - began, ended)

    def _entry(self, what: str) -> Entry:
        entry = self._gate.begin("index")
        entry["action"] = what
        return entry

    async def _caller(
        self, entry: Entry, context: _Context, kinds: Collection[str], collection: str | None = None
    ) -> _Act:
        """Who acts, and on which collection, if on one; a refusal is recorded."""
        try:
            peer = self._gate.identify(context, entry, kinds)
            act = _Act(self._tenant_of(peer), asker_of(peer.id, self._gate.node.trust_domain))
            if collection is not None:
                entry["collection"] = require_collection_name(collection)
        except MeshError as refusal:
            await self._gate.refuse(entry, refusal)
            raise
        return act

    async def _record_end(self, entry: Entry, outcome: Entry) -> None:
        at = self._gate.clock()
        await self._gate.record({"kind": "index", "id": entry["id"], "at": at, **outcome})

    def _tenant_of(self, peer: Peer) -> str | None:
        """Whose documents the caller may see: None for all; IDENTITY_NOT_ALLOWED for foreigners."""
        if peer.id.trust_domain != self._gate.node.trust_domain:
            raise MeshError(
                Reason.IDENTITY_NOT_ALLOWED, "expected a caller of this node's own authority: documents stay"
            )
        return None if peer.id.kind == ADMIN else peer.id.tenant

    def _report_for(self, report: IndexReport, tenant: str) -> IndexReport:
        """The same index, as far as one tenant's documents go. Blocking."""
        try:
            index = self._library.get(report.collection)
        except MeshError:
            return _emptied(report)
        documents = chunks = 0
        classes: Counter[str] = Counter()
        after = ""
        while page := index.documents(after, MAX_PAGE, tenant=tenant):
            for document in page:
                documents += 1
                chunks += document.chunks
                classes.update(dict.fromkeys(map(str, document.meta.classes), document.chunks))
            after = page[-1].meta.id
        return _emptied(report, documents, chunks, classes)


def _emptied(
    report: IndexReport, documents: int = 0, chunks: int = 0, classes: Counter[str] | None = None
) -> IndexReport:
    return IndexReport(
        report.collection,
        report.digest,
        documents,
        chunks,
        behind=0,
        state=report.state,
        detail=report.detail,
        bytes=0,
        classes=dict(classes or {}),
    )


def _report(status: IndexStatus) -> IndexReport:
    return IndexReport(
        status.collection,
        status.digest,
        status.documents,
        status.chunks,
        status.behind,
        status.state,
        status.detail,
        status.bytes,
        dict(status.classes),
    )


def _held(document: HeldDocument) -> said.HeldDocument:
    meta: DocumentMeta = document.meta
    info = said.DocumentInfo(
        id=meta.id,
        title=meta.title,
        source=meta.source,
        classes=tuple(sorted(meta.classes)),
        owner=meta.owner,
        language=meta.language,
        retain_until=meta.retain_until.isoformat() if meta.retain_until else "",
        tenant=meta.tenant,
    )
    return said.HeldDocument(info, document.digest, document.chunks)


def _defaults(info: said.DocumentInfo, tenant: str | None) -> MetaDefaults:
    """What an upload says of all its files. A tenant, once said, holds: no file may say another."""
    if info.id:
        raise MeshError(Reason.REQUEST_INVALID, "defaults: expected no id, which is each file's own")
    if tenant is not None and info.tenant not in ("", tenant):
        raise MeshError(Reason.TENANT_MISMATCH, "tenant: expected the caller's own, or nothing")
    # Read as a document's; what every document needs is filled in for that, and left out again.
    stand_in = MetaDefaults(id="-", classes=frozenset({DataClass.PUBLIC}))
    fields = {
        "title": info.title,
        "source": info.source,
        "classes": list(info.classes),
        "owner": info.owner,
        "language": info.language,
        "retain_until": info.retain_until,
        "tenant": tenant if tenant is not None else info.tenant,
    }
    meta = meta_with(stand_in, fields)
    return MetaDefaults(
        title=meta.title,
        source=meta.source,
        classes=meta.classes if info.classes else frozenset(),
        owner=meta.owner,
        language=meta.language,
        retain_until=meta.retain_until,
        tenant=meta.tenant,
        locked=frozenset({"tenant"}) if meta.tenant else frozenset(),
    )


def _check_ids(ids: Collection[str]) -> None:
    if any(not 1 <= len(document.encode()) <= _MAX_ID_BYTES for document in ids):
        raise MeshError(Reason.REQUEST_INVALID, f"a document's id: expected 1 to {_MAX_ID_BYTES} bytes")
