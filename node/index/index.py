"""One collection's documents on one node. (Under construction: signatures first.)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

from mesh.core.retrieval import CollectionSpec, ReleaseGroup, ScoredId
from node.index.base import Where
from node.index.documents import DocumentMeta
from node.index.stored import HeldDocument, IndexStatus, NewChunk, NewDocument, StoredChunk
from node.index.stores import StoreSettings

__all__ = ["DocumentIndex", "HeldDocument", "IndexStatus", "NewChunk", "NewDocument", "StoredChunk"]


class DocumentIndex:
    """Signatures."""

    spec: CollectionSpec
    approximate: bool

    @classmethod
    def create(
        cls,
        folder: Path,
        spec: CollectionSpec,
        secret: bytes,
        store_settings: StoreSettings,
        clock: Callable[[], float],
        *,
        failpoint: Callable[[str], None] = lambda _: None,
    ) -> DocumentIndex:
        raise NotImplementedError

    @classmethod
    def open(
        cls,
        folder: Path,
        secret: bytes,
        store_settings: StoreSettings,
        clock: Callable[[], float],
        *,
        failpoint: Callable[[str], None] = lambda _: None,
    ) -> DocumentIndex:
        """The spec is the index's own, from its file."""
        raise NotImplementedError

    def put(self, document: DocumentMeta, digest: str, chunks: Sequence[NewChunk], *, file: str = "") -> None:
        raise NotImplementedError

    def put_many(self, documents: Sequence[NewDocument]) -> None:
        raise NotImplementedError

    def delete(self, ids: Iterable[str], *, tenant: str | None = None) -> int:
        raise NotImplementedError

    def purge(self, today: date | None = None) -> int:
        raise NotImplementedError

    def digest_of(self, document_id: str) -> str | None:
        raise NotImplementedError

    def documents(self, after: str, limit: int, *, tenant: str | None = None) -> tuple[HeldDocument, ...]:
        raise NotImplementedError

    def file_digest(self, name: str) -> bytes | None:
        raise NotImplementedError

    def note_file(self, name: str, sha256: bytes) -> None:
        raise NotImplementedError

    def groups(self) -> Mapping[int, ReleaseGroup]:
        raise NotImplementedError

    def statistics(self, terms: Sequence[str], groups: frozenset[int]) -> tuple[int, tuple[int, ...]]:
        raise NotImplementedError

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, exact: bool = False
    ) -> tuple[ScoredId, ...]:
        raise NotImplementedError

    def by_terms(
        self, terms: Sequence[str], weights: Sequence[float], depth: int, where: Where
    ) -> tuple[ScoredId, ...]:
        raise NotImplementedError

    def chunks(self, ids: Sequence[bytes], groups: frozenset[int]) -> Mapping[bytes, StoredChunk]:
        raise NotImplementedError

    def status(self) -> IndexStatus:
        raise NotImplementedError

    def rebuild(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def destroy(self) -> None:
        raise NotImplementedError
