from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateIndexRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CreateIndexResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: IndexStatus
    def __init__(self, index: _Optional[_Union[IndexStatus, _Mapping]] = ...) -> None: ...

class GetIndexStatusRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetIndexStatusResponse(_message.Message):
    __slots__ = ("indexes",)
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    indexes: _containers.RepeatedCompositeFieldContainer[IndexStatus]
    def __init__(self, indexes: _Optional[_Iterable[_Union[IndexStatus, _Mapping]]] = ...) -> None: ...

class IndexStatus(_message.Message):
    __slots__ = ("collection", "digest", "documents", "chunks", "behind", "state", "detail", "bytes", "classes")
    class ClassesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    digest: str
    documents: int
    chunks: int
    behind: int
    state: str
    detail: str
    bytes: int
    classes: _containers.ScalarMap[str, int]
    def __init__(self, collection: _Optional[str] = ..., digest: _Optional[str] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., behind: _Optional[int] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., bytes: _Optional[int] = ..., classes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class DeleteIndexRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DeleteIndexResponse(_message.Message):
    __slots__ = ("documents",)
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    documents: int
    def __init__(self, documents: _Optional[int] = ...) -> None: ...

class RebuildIndexRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class RebuildIndexResponse(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class DocumentInfo(_message.Message):
    __slots__ = ("id", "title", "source", "classes", "owner", "language", "retain_until", "tenant")
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    RETAIN_UNTIL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    source: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    owner: str
    language: str
    retain_until: str
    tenant: str
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., owner: _Optional[str] = ..., language: _Optional[str] = ..., retain_until: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("begin", "offer", "piece")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    begin: IngestBegin
    offer: IngestOffer
    piece: IngestPiece
    def __init__(self, begin: _Optional[_Union[IngestBegin, _Mapping]] = ..., offer: _Optional[_Union[IngestOffer, _Mapping]] = ..., piece: _Optional[_Union[IngestPiece, _Mapping]] = ...) -> None: ...

class IngestBegin(_message.Message):
    __slots__ = ("collection", "defaults")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    defaults: DocumentInfo
    def __init__(self, collection: _Optional[str] = ..., defaults: _Optional[_Union[DocumentInfo, _Mapping]] = ...) -> None: ...

class IngestOffer(_message.Message):
    __slots__ = ("number", "name", "sha256", "bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    sha256: bytes
    bytes: int
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., sha256: _Optional[bytes] = ..., bytes: _Optional[int] = ...) -> None: ...

class IngestPiece(_message.Message):
    __slots__ = ("data", "last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    last: bool
    def __init__(self, data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("wanted", "stored", "skipped", "progress")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    wanted: IngestWanted
    stored: IngestStored
    skipped: IngestSkipped
    progress: IngestProgress
    def __init__(self, wanted: _Optional[_Union[IngestWanted, _Mapping]] = ..., stored: _Optional[_Union[IngestStored, _Mapping]] = ..., skipped: _Optional[_Union[IngestSkipped, _Mapping]] = ..., progress: _Optional[_Union[IngestProgress, _Mapping]] = ...) -> None: ...

class IngestWanted(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class IngestStored(_message.Message):
    __slots__ = ("number", "documents", "chunks", "unchanged", "rows", "rows_total")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    number: int
    documents: int
    chunks: int
    unchanged: int
    rows: _containers.RepeatedCompositeFieldContainer[SkippedRow]
    rows_total: int
    def __init__(self, number: _Optional[int] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., unchanged: _Optional[int] = ..., rows: _Optional[_Iterable[_Union[SkippedRow, _Mapping]]] = ..., rows_total: _Optional[int] = ...) -> None: ...

class SkippedRow(_message.Message):
    __slots__ = ("row", "reason", "detail")
    ROW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    row: int
    reason: str
    detail: str
    def __init__(self, row: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class IngestSkipped(_message.Message):
    __slots__ = ("number", "reason", "detail")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    number: int
    reason: str
    detail: str
    def __init__(self, number: _Optional[int] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class IngestProgress(_message.Message):
    __slots__ = ("documents", "chunks")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    documents: int
    chunks: int
    def __init__(self, documents: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class DeleteDocumentsRequest(_message.Message):
    __slots__ = ("collection", "documents")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    documents: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., documents: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteDocumentsResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("collection", "after", "limit")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    after: str
    limit: int
    def __init__(self, collection: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("documents", "more")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[HeldDocument]
    more: bool
    def __init__(self, documents: _Optional[_Iterable[_Union[HeldDocument, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class HeldDocument(_message.Message):
    __slots__ = ("info", "digest", "chunks")
    INFO_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    info: DocumentInfo
    digest: str
    chunks: int
    def __init__(self, info: _Optional[_Union[DocumentInfo, _Mapping]] = ..., digest: _Optional[str] = ..., chunks: _Optional[int] = ...) -> None: ...
