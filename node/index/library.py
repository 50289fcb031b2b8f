"""All the indexes of a node, one per collection: opened at start, made, removed and looked after.

Rules kept here:
- only what agrees with the authority's current record of the collection is handed out and advertised;
- an index that cannot be opened is reported and left as it is, and keeps nothing else from starting;
- chunk ids are made with a secret that never leaves this folder, and is made once.

    <folder>/secret              32 random bytes
    <folder>/<collection>/       one index (index.py)

Which collections there are comes from the records, at the time of asking: `specs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec, require_collection_name
from mesh.core.types import HeldCollection
from mesh.telemetry.logs import describe
from node.index.embedding import TextEmbedder
from node.index.index import DocumentIndex, IndexStatus
from node.index.stores import StoreSettings

_LOG = logging.getLogger(__name__)
_SECRET_BYTES = 32
_TEND_EVERY_S = 15.0


@dataclass(slots=True)
class _Place:
    """Where an index is, is being opened ("opening"), or could not be opened ("failed", and why)."""

    index: DocumentIndex | None = None
    state: str = "opening"
    detail: str = ""


class Library:
    """The indexes in `folder`, which is made if it is missing. `specs` are the own authority's, by name.

    `on_change` is called from any thread when `held` may say something else. Raises INDEX_UNAVAILABLE if the
    folder cannot be used or the secret is not what it was.
    """

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
        self._folder, self._specs, self._embedder = folder, specs, embedder
        self._settings, self._clock, self._on_change = store_settings, clock, on_change
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._secret = _secret(folder / "secret")
        except OSError as error:
            raise MeshError(
                Reason.INDEX_UNAVAILABLE, f"the folder of the indexes cannot be used ({type(error).__name__})"
            ) from None

    def start(self) -> None:
        """Begins to open what is there, each in a thread of its own; returns at once."""
        for path in sorted(self._folder.iterdir()):
            if not path.is_dir():
                continue
            if DocumentIndex.unfinished(path):
                shutil.rmtree(path, ignore_errors=True)
                continue
            self._places[path.name] = _Place()
            self._begin(partial(self._open, path.name), "index-open")
        self._begin(self._tend, "index-tend")

    async def create(self, name: str) -> DocumentIndex:
        """Makes an empty index for a collection that the authority has published.

        Raises COLLECTION_UNKNOWN, COLLECTION_EXISTS, EMBEDDER_MISMATCH, INDEX_UNAVAILABLE.
        """
        spec = self._spec(name)
        await self.require_embedder(spec)
        with self._lock:
            if name in self._places:
                raise MeshError(Reason.COLLECTION_EXISTS, "this node has an index of the collection already")
            place = self._places[name] = _Place()
        return await asyncio.to_thread(self._make, place, spec)

    async def require_embedder(self, spec: CollectionSpec) -> None:
        """Raises EMBEDDER_MISMATCH if this node's embedder is not the collection's."""
        if (
            self._embedder.dimensions != spec.dimensions
            or await self._embedder.digest() != spec.embedder_digest
        ):
            raise MeshError(
                Reason.EMBEDDER_MISMATCH,
                f"expected this node to embed with {spec.embedder} as the collection's record describes it",
            )

    def get(self, name: str) -> DocumentIndex:
        """The index of the collection, if it agrees with the record.

        Raises COLLECTION_UNKNOWN, COLLECTION_MISMATCH and INDEX_UNAVAILABLE (being opened, or broken).
        """
        index, spec = self.find(name), self._spec(name)
        if index.spec.digest != spec.digest:
            raise MeshError(Reason.COLLECTION_MISMATCH, _mismatch(index.spec, spec))
        return index

    def find(self, name: str) -> DocumentIndex:
        """The index of the collection, whatever the record says by now: to list and delete what is in it.

        Raises COLLECTION_UNKNOWN and INDEX_UNAVAILABLE (being opened, or broken).
        """
        place = self._places.get(name)
        if place is None:
            raise MeshError(Reason.COLLECTION_UNKNOWN, "this node has no index of the collection")
        if place.index is None:
            raise MeshError(
                Reason.INDEX_UNAVAILABLE,
                f"the index of the collection is {place.state}",
                {},
                retry_after_s=1.0,
            )
        return place.index

    async def delete(self, name: str) -> int:
        """Removes an index, broken or not; returns how many documents it had, as far as is known.

        Raises COLLECTION_UNKNOWN, and INDEX_UNAVAILABLE while it is being opened.
        """
        with self._lock:
            place = self._places.get(require_collection_name(name))
            if place is None:
                raise MeshError(Reason.COLLECTION_UNKNOWN, "this node has no index of the collection")
            if place.state == "opening":
                raise MeshError(Reason.INDEX_UNAVAILABLE, "the index is being opened", {}, 1.0)
            index, place.index = place.index, None
            place.state = "opening"  # nobody makes one of that name until this one is gone
        return await asyncio.to_thread(self._remove, name, index)

    def held(self) -> tuple[HeldCollection, ...]:
        """What the node's record says: the collections that can be searched here, by name."""
        specs = self._specs()
        return tuple(
            HeldCollection(name, place.index.spec.digest)
            for name, place in sorted(self._places.copy().items())
            if place.index is not None and name in specs and specs[name].digest == place.index.spec.digest
        )

    def statuses(self) -> tuple[IndexStatus, ...]:
        """What is here and the state of it, by name. Blocking."""
        specs = self._specs()
        return tuple(self._status(name, place, specs) for name, place in sorted(self._places.copy().items()))

    def close(self) -> None:
        """Closes all of them. Blocking: what is written now is written to its end."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        for place in self._places.values():
            if place.index is not None:
                place.index.close()

    def _spec(self, name: str) -> CollectionSpec:
        spec = self._specs().get(require_collection_name(name))
        if spec is None:
            raise MeshError(
                Reason.COLLECTION_UNKNOWN, "expected a collection that the authority has published"
            )
        return spec

    def _open(self, name: str) -> None:
        place = self._places[name]
        try:
            index = DocumentIndex.open(self._folder / name, self._secret, self._settings, self._clock)
        except Exception as error:
            _LOG.error("an index cannot be opened: %s", describe(error))
            place.detail = error.message if isinstance(error, MeshError) else "it cannot be opened"
            place.state = "failed"
            return
        self._put_into(place, index)

    def _put_into(self, place: _Place, index: DocumentIndex) -> None:
        with self._lock:
            place.index, place.state = index, "open"
        self._on_change()

    # Making and removing go on to their end in their thread, also if nobody waits for it any more.

    def _make(self, place: _Place, spec: CollectionSpec) -> DocumentIndex:
        folder = self._folder / spec.name
        try:
            index = DocumentIndex.create(folder, spec, self._secret, self._settings, self._clock)
        except BaseException:
            with self._lock:
                del self._places[spec.name]
            raise
        self._put_into(place, index)
        return index

    def _remove(self, name: str, index: DocumentIndex | None) -> int:
        documents = 0
        try:
            if index is None:
                DocumentIndex.erase(self._folder / name)
            else:
                with contextlib.suppress(MeshError):  # a disk that fails must not keep it from being removed
                    documents = index.status().documents
                index.destroy()
        finally:
            with self._lock:
                del self._places[name]
            self._on_change()
        return documents

    def _status(self, name: str, place: _Place, specs: Mapping[str, CollectionSpec]) -> IndexStatus:
        index = place.index
        if index is None:
            return IndexStatus(name, "", place.state, place.detail)
        try:
            status = index.status()
        except MeshError as error:
            return IndexStatus(name, index.spec.digest, "failed", error.message)
        spec = specs.get(name)
        if spec is None:
            return replace(status, state="mismatch", detail="the authority has no record of the collection")
        if spec.digest != index.spec.digest:
            return replace(status, state="mismatch", detail=_mismatch(index.spec, spec))
        return status

    def _tend(self) -> None:
        while not self._closing.wait(_TEND_EVERY_S):
            for place in list(self._places.values()):
                index = place.index
                if index is None or self._closing.is_set():
                    continue
                try:
                    index.tend()
                except Exception as error:
                    _LOG.warning("an index could not be looked after: %s", describe(error))

    def _begin(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _mismatch(held: CollectionSpec, published: CollectionSpec) -> str:
    return f"made with another {', '.join(held.difference(published))} than the authority's record says now"


def _secret(path: Path) -> bytes:
    """The node's index secret: made whole or not at all, and never made anew over one that is damaged."""
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise MeshError(Reason.INDEX_UNAVAILABLE, f"{path.name}: expected {_SECRET_BYTES} bytes")
    return secret
