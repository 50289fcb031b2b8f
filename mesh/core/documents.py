"""What one says of documents to a node, and what the node says of those it holds, as immutable values.

Plain texts, as people and files have them: the node reads them strictly (node/index/documents.py) and
says what is wrong. They know nothing of protobuf (mesh/codec translates) or of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.core.errors import MeshError, Reason

MAX_PIECE_BYTES = 256 * 1024
MAX_FILE_NAME_BYTES = 1024
SHA256_BYTES = 32
MAX_ROWS_LISTED = 1000
MAX_PAGE = 1000
MAX_DELETED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What a document is. What is empty is not said. `retain_until` is an ISO 8601 date."""

    id: str = ""
    title: str = ""
    source: str = ""
    classes: tuple[str, ...] = ()
    owner: str = ""
    language: str = ""
    retain_until: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """A document that a node holds. `digest` is "sha256:<hex>" of what was ingested."""

    info: DocumentInfo
    digest: str
    chunks: int


@dataclass(frozen=True, slots=True)
class IndexReport:
    """How one index is. `behind` is how many chunks cannot be found yet; `bytes` is on disk; `classes`
    counts chunks by data class; `state` is "ready", "rebuilding", "mismatch" or "failed"."""

    collection: str
    digest: str
    documents: int
    chunks: int
    behind: int
    state: str
    detail: str
    bytes: int
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of a file (from 1; 0: the file as a whole) that is not held, with the stable reason code."""

    row: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class FileStored:
    """A file whose documents are held, durably. `unchanged` of them were before; `rows` lists at most
    1,000 of the `rows_total` that could not be read."""

    documents: int
    chunks: int
    unchanged: int
    rows: tuple[SkippedRow, ...] = ()
    rows_total: int = 0


@dataclass(frozen=True, slots=True)
class FileSkipped:
    """A file that is not held, or only in part."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class FileOffer:
    """A file that could be sent: its name, the SHA-256 of its bytes (32 bytes), and how many they are."""

    number: int
    name: str
    sha256: bytes
    bytes: int

    def __post_init__(self) -> None:
        if not self.name or len(self.name.encode()) > MAX_FILE_NAME_BYTES or not self.name.isprintable():
            raise MeshError(
                Reason.REQUEST_INVALID,
                f"a file's name: expected 1 to {MAX_FILE_NAME_BYTES} bytes of printable characters",
            )
        if len(self.sha256) != SHA256_BYTES:
            raise MeshError(Reason.REQUEST_INVALID, f"a file's SHA-256: expected {SHA256_BYTES} bytes")
