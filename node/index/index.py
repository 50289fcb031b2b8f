"""One collection's documents on one node: written durably, found at once, gone at once.

Rules kept here:
- what `put_many` returned from is durable and found; a document is replaced and deleted as a whole, and no
  search ever sees parts of two versions of it;
- every ranking is that of one moment, as if every chunk of that moment had been looked at (or, with an
  approximate store, as near to it as that store comes);
- nothing comes out that the durable store does not hold at that moment, in a group that was asked for: a
  vector store that lags or is damaged cannot bring anything back (I1);
- trouble with the vector store makes searches slower, trouble with the disk makes them INDEX_UNAVAILABLE;
  neither loses what was acknowledged.

All methods block, and may be called from any thread. Who may ask what is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec, ReleaseGroup, ScoredId
from node.index.analysis import analyzer_of
from node.index.base import VectorStore, Where
from node.index.checks import MAX_WEIGHT, admits_nothing, check_depth, check_question, check_where
from node.index.database import Database
from node.index.documents import DocumentMeta
from node.index.durable import SCHEMA, SCHEMA_VERSION, Change, Writer, holds_documents, prepare, store_name
from node.index.follower import FLUSH_AFTER, Follower
from node.index.follower import STEPS as FOLLOWER_STEPS
from node.index.ranking import Measure, StoreDisagreesError, TermMeasure, VectorMeasure, rank, scan
from node.index.stored import HeldDocument, IndexStatus, NewChunk, NewDocument, StoredChunk
from node.index.stores import StoreSettings, open_store
from node.index.touched import Touched
from node.index.view import ExpiredToday, View

__all__ = ["STEPS", "DocumentIndex", "HeldDocument", "IndexStatus", "NewChunk", "NewDocument", "StoredChunk"]

# Where `failpoint` is called, so that a test can end the process there.
STEPS = (
    "create:made",
    *(
        f"{kind}:{step}"
        for kind in ("put", "delete")
        for step in ("begin", "written", "committed", "applied", "truncated")
    ),
    *FOLLOWER_STEPS,
)
_MADE = "made"  # the file that says that `create` came to its end
_REMOVING = "removing"  # what becomes of it when `erase` begins
_AT_ONCE = 500  # documents deleted in one transaction


class DocumentIndex:
    """Made by `create` or `open`; one process at a time can have it open."""

    def __init__(
        self,
        folder: Path,
        spec: CollectionSpec | None,
        secret: bytes,
        store_settings: StoreSettings,
        clock: Callable[[], float],
        failpoint: Callable[[str], None],
    ) -> None:
        self._folder, self._secret, self._settings = folder, secret, store_settings
        self._clock, self._failpoint = clock, failpoint
        self._touched, self._expired = Touched(), ExpiredToday()
        self._log_has_deleted = False
        self._lock_file = _lock(folder)
        try:
            self._database = Database(folder / "index.db", SCHEMA)
            try:
                self.spec = self._found(spec) if spec is not None else self._read_spec()
                self._analyzer = analyzer_of(self.spec.analyzer)
                self._follower = Follower(
                    folder, self._database, self.spec, self._store, self._view, clock, failpoint
                )
                self._follower.start()
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock_file)
            raise

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
        """An empty index in `folder`, which must not be there yet (COLLECTION_EXISTS)."""
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise MeshError(
                Reason.COLLECTION_EXISTS, "an index of this collection is there already"
            ) from None
        except OSError:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the index's folder cannot be made", {}, 5.0) from None
        index = cls(folder, spec, secret, store_settings, clock, failpoint)
        try:
            os.close(os.open(folder / _MADE, os.O_CREAT | os.O_WRONLY, 0o600))
            _sync(folder)
            _sync(folder.parent)
        except OSError:
            index.destroy()
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the index's folder cannot be used", {}, 5.0) from None
        failpoint("create:made")
        return index

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
        """The index in `folder`, with the spec that it was made with; or INDEX_UNAVAILABLE."""
        if cls.unfinished(folder) or not (folder / "index.db").is_file():
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the index's own files are missing")
        return cls(folder, None, secret, store_settings, clock, failpoint)

    @staticmethod
    def unfinished(folder: Path) -> bool:
        """Whether what is there was never wholly made, or is partly removed: nobody relies on it. What
        holds documents and was not being removed is neither, whatever else is missing."""
        if (folder / _MADE).exists():
            return False
        return (folder / _REMOVING).exists() or not holds_documents(folder / "index.db")

    def put(self, document: DocumentMeta, digest: str, chunks: Sequence[NewChunk], *, file: str = "") -> None:
        """Stores one document, replacing the one of its id; see `put_many`."""
        self.put_many([NewDocument(document, digest, chunks, file)])

    def put_many(self, documents: Sequence[NewDocument], *, tenant: str | None = None) -> None:
        """Stores documents, all or none. When it returns they are durable and found.

        With a `tenant`, documents of others are not replaced. Raises DOCUMENT_INVALID, REQUEST_INVALID
        (vectors) and INDEX_UNAVAILABLE; each changes nothing.
        """
        prepared = prepare(self.spec, self._secret, self._analyzer.terms, documents)
        if prepared:
            self._change("put", partial(Writer.put, documents=prepared, tenant=tenant))

    def delete(self, ids: Iterable[str], *, tenant: str | None = None) -> int:
        """Deletes those of the documents that are there (and are the tenant's); returns how many."""
        wanted = list(dict.fromkeys(ids))
        if tenant is not None:
            with self._view() as view:
                wanted = view.of_tenant(wanted, tenant)
        return self._delete(wanted, forget_files=True)

    def purge(self, today: date | None = None) -> int:
        """Deletes the documents whose `retain_until` has come; returns how many."""
        day = (today or self._today()).isoformat()
        purged = 0
        while True:
            with self._view() as view:
                ids = view.expired_documents(day, _AT_ONCE)
            if not ids:
                return purged
            purged += self._delete(ids, forget_files=False)

    def digest_of(self, document_id: str) -> str | None:
        """The digest that the document was stored with, or None."""
        with self._view() as view:
            return view.digest_of(document_id)

    def held(self, document_id: str) -> tuple[HeldDocument, str] | None:
        """The document as it is held, its last day come or not, and its file's name; or None."""
        with self._view() as view:
            return view.held(document_id)

    def documents(self, after: str, limit: int, *, tenant: str | None = None) -> tuple[HeldDocument, ...]:
        """The next `limit` documents (of the tenant) after the id `after`, in the order of their ids."""
        with self._view() as view:
            return view.documents(after, limit, tenant)

    def file_digest(self, name: str) -> bytes | None:
        """SHA-256 of the file when all of it was stored, or None; a deleted document's file is forgotten."""
        with self._view() as view:
            return view.file_digest(name)

    def note_file(self, name: str, sha256: bytes) -> None:
        """Remembers that all documents of a file are stored."""
        with self._database.lock, self._database.writing() as connection:
            Writer(connection, self.spec).note_file(name, sha256)

    def groups(self) -> Mapping[int, ReleaseGroup]:
        """The release groups that have chunks to be found, by number. A number never means another group."""
        with self._view() as view:
            return view.groups()

    def statistics(self, terms: Sequence[str], groups: frozenset[int]) -> tuple[int, tuple[int, ...]]:
        """How many chunks the groups have together, and how many of those have each of the terms."""
        with self._view() as view:
            return view.statistics(terms, groups)

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, exact: bool = False
    ) -> tuple[ScoredId, ...]:
        """The `depth` chunks nearest to `vector` by cosine: score descending, then id.

        `exact` looks at every chunk also where the store is approximate. Raises REQUEST_INVALID,
        FILTER_UNKNOWN and INDEX_UNAVAILABLE.
        """
        question = check_question(vector, depth, where, self.spec.dimensions)
        return self._rank(lambda view: VectorMeasure(question, exact=exact), depth, where)

    def by_terms(
        self, terms: Sequence[str], weights: Sequence[float], depth: int, where: Where
    ) -> tuple[ScoredId, ...]:
        """The `depth` chunks with the highest BM25 scores above 0, summed in the order of `terms`.

        Terms that occur nowhere and weights of 0 change nothing. Raises REQUEST_INVALID (as many weights
        as terms, each term once, weights finite and not below 0), FILTER_UNKNOWN and INDEX_UNAVAILABLE.
        """
        check_depth(depth)
        check_where(where)
        if len(weights) != len(terms) or len(set(terms)) != len(terms):
            raise MeshError(Reason.REQUEST_INVALID, "terms: expected each once, with one weight each")
        if not all(math.isfinite(weight) and 0 <= weight <= MAX_WEIGHT for weight in weights):
            raise MeshError(
                Reason.REQUEST_INVALID, f"term weights: expected numbers from 0 to {MAX_WEIGHT:g}"
            )

        def measure(view: View) -> TermMeasure:
            numbers = view.term_numbers(terms)
            return TermMeasure(self.spec, [numbers.get(term) for term in terms], weights)

        return self._rank(measure, depth, where)

    def chunks(self, ids: Sequence[bytes], groups: frozenset[int]) -> Mapping[bytes, StoredChunk]:
        """Those of the chunks that are there and in one of the groups, all of one moment."""
        with self._view() as view:
            return view.chunks(dict.fromkeys(ids), groups)

    def status(self) -> IndexStatus:
        """Its figures. Raises INDEX_UNAVAILABLE."""
        with self._view() as view:
            documents, chunks, classes = view.totals()
        return IndexStatus(
            collection=self.spec.name,
            digest=self.spec.digest,
            state=self._follower.state,
            detail=self._follower.detail,
            documents=documents,
            chunks=chunks,
            behind=self._follower.behind() + self._touched.pending(),
            bytes=_size(self._folder),
            classes=classes,
        )

    @property
    def approximate(self) -> bool:
        """Whether `by_vector` may miss chunks unless it is asked to be exact."""
        kind = self._settings.kind
        if kind == "memory" or self._follower.state != "ready":
            return False
        if kind != "qdrant_edge":
            return True
        with self._view() as view:
            return view.rows() >= self._settings.exact_below

    def rebuild(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Writes the vector store anew while searches and writes go on; `progress(chunks done, of)`.

        Raises INDEX_UNAVAILABLE; the store that was in use then stays in use.
        """
        self._follower.rebuild(progress)

    def tend(self) -> None:
        """What is due now and then: purging, flushing, optimizing, trying again after trouble."""
        self.purge()
        with self._database.lock:
            self._empty_log()
        self._follower.tend()

    def close(self) -> None:
        """Flushes and lets go of everything. It answers INDEX_UNAVAILABLE from then on."""
        self._follower.close()
        with self._database.lock:
            self._empty_log()
        self._database.close()
        os.close(self._lock_file)

    def destroy(self) -> None:
        """Closes it and removes its folder, whatever becomes of the closing."""
        try:
            self._follower.close(erase=True)
            with contextlib.suppress(MeshError):
                self._database.close()
            os.close(self._lock_file)
        finally:
            self.erase(self._folder)

    @staticmethod
    def erase(folder: Path) -> None:
        """Removes the folder of an index that is not open."""
        with contextlib.suppress(OSError):
            (folder / _MADE).rename(folder / _REMOVING)
        shutil.rmtree(folder, ignore_errors=True)

    def _rank(self, measure_in: Callable[[View], Measure], depth: int, where: Where) -> tuple[ScoredId, ...]:
        if depth == 0 or admits_nothing(where):
            return ()
        # In this order: what changes after `watch` is known to have changed, whichever store shows it first.
        with self._touched.watch() as touched, self._follower.store() as store, self._view() as view:
            measure = measure_in(view)
            if store is not None:
                try:
                    return rank(
                        view, measure, lambda need: measure.ask(store, need, where), touched, depth, where
                    )
                except StoreDisagreesError as error:
                    self._follower.set_aside(store, error, reopen=False)
                except MeshError as error:
                    if error.reason is not Reason.INDEX_UNAVAILABLE:
                        raise
                    self._follower.set_aside(store, error, reopen=True)
            return scan(view, measure, depth, where)

    def _change(self, kind: str, work: Callable[[Writer], Change]) -> Change:
        """One change, in both stores."""
        with self._database.lock:
            self._failpoint(f"{kind}:begin")
            ids: set[bytes] = set()
            try:
                with self._database.writing() as connection:
                    change = work(Writer(connection, self.spec))
                    ids = change.ids
                    self._failpoint(f"{kind}:written")
                    self._touched.begin(ids)
                self._failpoint(f"{kind}:committed")
                self._follower.apply(change)
                self._failpoint(f"{kind}:applied")
            finally:
                self._touched.settle(ids)
            if change.documents_removed:
                self._log_has_deleted = True
                self._empty_log()
                self._failpoint(f"{kind}:truncated")
            self._follower.flush(after=FLUSH_AFTER)
            return change

    def _delete(self, ids: Sequence[str], *, forget_files: bool) -> int:
        deleted = 0
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            delete = partial(Writer.delete, ids=part, forget_files=forget_files)
            deleted += self._change("delete", delete).documents_removed
        return deleted

    def _empty_log(self) -> None:
        """So that nothing deleted stays in SQLite's log; a search in progress can put it off until `tend`."""
        if self._log_has_deleted and self._database.truncate():
            self._log_has_deleted = False

    @contextmanager
    def _view(self) -> Iterator[View]:
        today = self._today().isoformat()
        with self._database.reading() as connection:
            yield View(connection, self.spec, today, lambda: self._expired.of(connection, today))

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def _store(self, folder: Path, number: int) -> VectorStore:
        name = f"{store_name(self._secret, self.spec.name)}-{number}"
        return open_store(self._settings, folder, name, self.spec.dimensions)

    def _found(self, spec: CollectionSpec) -> CollectionSpec:
        with self._database.lock, self._database.writing() as connection:
            Writer(connection, spec).found()
        return spec

    def _read_spec(self) -> CollectionSpec:
        with self._database.reading() as connection:
            rows = dict(connection.execute("SELECT name, value FROM settings"))
        if rows.get("schema") != SCHEMA_VERSION:
            raise MeshError(Reason.INDEX_UNAVAILABLE, f"the index's files: expected version {SCHEMA_VERSION}")
        try:
            return CollectionSpec(**json.loads(rows["spec"]))
        except (KeyError, ValueError, TypeError):
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the index's files: expected its settings") from None


def _lock(folder: Path) -> int:
    """Lets one process have the index open; the lock ends with the process, however it ends."""
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        raise MeshError(Reason.INDEX_UNAVAILABLE, "the index's folder cannot be used", {}, 5.0) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise MeshError(Reason.INDEX_UNAVAILABLE, "another process has the index open", {}, 5.0) from None
    return handle


def _sync(folder: Path) -> None:
    """So that the names in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(folder: Path) -> int:
    """Bytes on disk; files may come and go meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue
    return total
