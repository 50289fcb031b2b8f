"""What goes into an index and what comes out of it. Plain values; they know nothing of any store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.index.documents import DocumentMeta

MAX_CHUNK_BYTES = 64 * 1024
MAX_CHUNK_TERMS = 8192  # distinct ones
MAX_GROUPS = 4096
MAX_GROUPS_OF_TENANT = 256  # so that one tenant's many owners do not leave the others without any


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A piece of a document to be stored: at most MAX_CHUNK_BYTES of UTF-8, and its vector."""

    text: str
    vector: Sequence[float]


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to be stored, replacing the one of the same id.

    `digest` is "sha256:<hex>" of what it was read from. `file` is the name under which `note_file`
    remembers the file it came from: deleting the document forgets that the file was read.
    """

    meta: DocumentMeta
    digest: str
    chunks: Sequence[NewChunk]
    file: str = ""


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """A document that is held, without its text."""

    meta: DocumentMeta
    digest: str
    chunks: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is stored: whatever leaves the node is cut from this by release level."""

    id: bytes
    document: DocumentMeta
    ordinal: int
    text: str
    group: int


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """`state`: "ready", "rebuilding" (complete answers, but slower), "mismatch" (the authority's settings are
    others now), "opening" or "failed"; `behind` chunks are not in the vector store yet; `classes` has
    chunks by data class."""

    collection: str
    digest: str
    state: str
    detail: str = ""
    documents: int = 0
    chunks: int = 0
    behind: int = 0
    bytes: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
