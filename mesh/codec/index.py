"""Index messages and the values of mesh/core/documents.py.

A node is of the caller's own authority, but what it says is shown to people and bounded all the same:
texts lose what could drive a terminal, lists are cut.
"""

from __future__ import annotations

from dataclasses import asdict

from mesh.core.documents import (
    MAX_PAGE,
    MAX_ROWS_LISTED,
    DocumentInfo,
    FileOffer,
    FileSkipped,
    FileStored,
    HeldDocument,
    IndexReport,
    SkippedRow,
)
from mesh.core.text import printable
from sovereign.mesh.v1 import index_pb2

_MAX_TEXT = 1024
_MAX_CLASSES = 64


def document_info_to_pb(info: DocumentInfo) -> index_pb2.DocumentInfo:
    """Writes what a document is."""
    return index_pb2.DocumentInfo(**asdict(info))


def document_info_from_pb(message: index_pb2.DocumentInfo) -> DocumentInfo:
    """Reads what a caller says of documents, unchecked: whoever keeps them reads it strictly."""
    return DocumentInfo(
        id=message.id,
        title=message.title,
        source=message.source,
        classes=tuple(message.classes),
        owner=message.owner,
        language=message.language,
        retain_until=message.retain_until,
        tenant=message.tenant,
    )


def held_document_to_pb(held: HeldDocument) -> index_pb2.HeldDocument:
    """Writes a held document."""
    return index_pb2.HeldDocument(info=document_info_to_pb(held.info), digest=held.digest, chunks=held.chunks)


def held_documents_from_pb(message: index_pb2.ListDocumentsResponse) -> tuple[HeldDocument, ...]:
    """Reads one page."""
    return tuple(
        HeldDocument(_shown_info(held.info), _shown(held.digest), held.chunks)
        for held in message.documents[:MAX_PAGE]
    )


def index_report_to_pb(report: IndexReport) -> index_pb2.IndexStatus:
    """Writes how an index is."""
    return index_pb2.IndexStatus(**asdict(report))


def index_report_from_pb(message: index_pb2.IndexStatus) -> IndexReport:
    """Reads how an index is."""
    return IndexReport(
        collection=_shown(message.collection),
        digest=_shown(message.digest),
        documents=message.documents,
        chunks=message.chunks,
        behind=message.behind,
        state=_shown(message.state),
        detail=_shown(message.detail),
        bytes=message.bytes,
        classes={_shown(k): v for k, v in sorted(message.classes.items())[:_MAX_CLASSES]},
    )


def offer_to_pb(offer: FileOffer) -> index_pb2.IngestOffer:
    """Writes an offer."""
    return index_pb2.IngestOffer(number=offer.number, name=offer.name, sha256=offer.sha256, bytes=offer.bytes)


def offer_from_pb(message: index_pb2.IngestOffer) -> FileOffer:
    """Reads an offer; raises REQUEST_INVALID."""
    return FileOffer(message.number, message.name, message.sha256, message.bytes)


def outcome_to_pb(number: int, outcome: FileStored | FileSkipped) -> index_pb2.IngestResponse:
    """Writes what became of a file."""
    if isinstance(outcome, FileSkipped):
        skipped = index_pb2.IngestSkipped(number=number, reason=outcome.reason, detail=outcome.detail)
        return index_pb2.IngestResponse(skipped=skipped)
    stored = index_pb2.IngestStored(
        number=number,
        documents=outcome.documents,
        chunks=outcome.chunks,
        unchanged=outcome.unchanged,
        rows=[
            index_pb2.SkippedRow(row=row.row, reason=row.reason, detail=row.detail)
            for row in outcome.rows[:MAX_ROWS_LISTED]
        ],
        rows_total=outcome.rows_total,
    )
    return index_pb2.IngestResponse(stored=stored)


def stored_from_pb(message: index_pb2.IngestStored) -> FileStored:
    """Reads that a file is held."""
    rows = tuple(
        SkippedRow(row.row, _shown(row.reason), _shown(row.detail)) for row in message.rows[:MAX_ROWS_LISTED]
    )
    return FileStored(message.documents, message.chunks, message.unchanged, rows, message.rows_total)


def skipped_from_pb(message: index_pb2.IngestSkipped) -> FileSkipped:
    """Reads that a file is not held."""
    return FileSkipped(_shown(message.reason), _shown(message.detail))


def _shown_info(message: index_pb2.DocumentInfo) -> DocumentInfo:
    return DocumentInfo(
        id=message.id,  # as it is: it is what `forget` names
        title=_shown(message.title),
        source=_shown(message.source),
        classes=tuple(map(_shown, message.classes[:_MAX_CLASSES])),
        owner=_shown(message.owner),
        language=_shown(message.language),
        retain_until=_shown(message.retain_until),
        tenant=_shown(message.tenant),
    )


def _shown(text: str) -> str:
    return printable(text[:_MAX_TEXT])
