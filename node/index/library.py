"""All the indexes of a node. (Under construction: signatures first.)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mesh.core.retrieval import CollectionSpec
from mesh.core.types import HeldCollection
from node.index.embedding import TextEmbedder
from node.index.index import DocumentIndex, IndexStatus
from node.index.stores import StoreSettings


class Library:
    """Signatures."""

    def __init__(
        self,
        folder: Path,
        specs: Callable[[], Mapping[str, CollectionSpec]],
        embedder: TextEmbedder,
        store_settings: StoreSettings,
        clock: Callable[[], float],
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Begins to open what is there, in threads; returns at once."""

    async def create(self, name: str) -> DocumentIndex:
        raise NotImplementedError

    async def require_embedder(self, spec: CollectionSpec) -> None:
        """EMBEDDER_MISMATCH if this node's embedder is not the spec's."""

    def get(self, name: str) -> DocumentIndex:
        """COLLECTION_UNKNOWN, COLLECTION_MISMATCH, INDEX_UNAVAILABLE (opening or failed)."""
        raise NotImplementedError

    async def delete(self, name: str) -> int:
        """How many documents it had."""
        raise NotImplementedError

    def held(self) -> tuple[HeldCollection, ...]:
        raise NotImplementedError

    def statuses(self) -> tuple[IndexStatus, ...]:
        """Blocking: reads each index's figures."""
        raise NotImplementedError

    def close(self) -> None:
        """Blocking."""
