"""Keeps a vector store in step with the durable store, and replaces it when it cannot be used.

The durable store leads. After each commit the change is applied here; what may not be on the store's disk
yet is listed in `changes` and applied again when the index is opened. A store that fails, disagrees or
cannot be opened is set aside: searches look at the durable store itself (exact, but slower) while a new
one is written into a folder of its own, which takes the old one's place in one transaction. Writes go on
meanwhile; what they touch is carried over at the end.

Whoever writes holds the database's lock around `apply` and `flush`. How stores work is not known here.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec
from node.index.base import VectorStore
from node.index.database import Database
from node.index.durable import Change, Writer
from node.index.shelf import Shelf
from node.index.view import View

FLUSH_AFTER = 4096  # chunks changed: what has to be applied again after a crash
_AT_ONCE = 512
_TRY_AGAIN_S = 60.0  # after a store had to be replaced, the next time waits for this long
_ROUNDS = 8  # of carrying over without keeping writers waiting

STEPS = (
    *("flush:begin", "flush:stored", "flush:noted"),
    *("rebuild:begin", "rebuild:made", "rebuild:part", "rebuild:carried", "rebuild:flushed", "rebuild:noted"),
    "rebuild:done",
)

Progress = Callable[[int, int], None]


class Follower:
    """The vector store of one index. `open_store(folder, number)` opens number `number`, or makes it.

    `state` is "ready", "rebuilding" or "failed", and `detail` says why. Only `rebuild` raises because of the
    vector store: somebody waits for it.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        spec: CollectionSpec,
        open_store: Callable[[Path, int], VectorStore],
        view: Callable[[], AbstractContextManager[View]],
        clock: Callable[[], float],
        failpoint: Callable[[str], None],
    ) -> None:
        self._folder, self._database, self._spec = folder, database, spec
        self._open_store, self._view, self._clock, self._failpoint = open_store, view, clock, failpoint
        self.state, self.detail = "rebuilding", ""
        self._shelf: Shelf | None = None
        self._number = 0
        self._retired: list[Shelf] = []
        self._unflushed = 0
        self._missed: set[bytes] | None = None  # changed while a store is being filled
        self._filling = threading.Lock()
        self._recovery: threading.Thread | None = None
        self._optimization: threading.Thread | None = None
        self._optimal = False
        self._set_aside_at: float | None = None
        self._closing = False

    def start(self) -> None:
        """Opens the store and applies what it may lack. If it cannot be used, a new one is begun."""
        with self._view() as view:
            self._number, rows = int(view.setting("store") or 0), view.rows()
        try:
            with self._filling:
                self._fill(self._number or 1, anew=not self._number, progress=lambda done, total: None)
        except Exception as error:
            self._trouble(error)
            if rows:
                self._begin_recovery(reopen=False)
            else:
                self._recover(reopen=False)

    @contextmanager
    def store(self) -> Iterator[VectorStore | None]:
        """The store to search, or None if there is none that can be relied on."""
        shelf = self._shelf
        while shelf is not None and not shelf.take():
            shelf = self._shelf
        try:
            yield shelf.store if shelf else None
        finally:
            if shelf:
                shelf.give_back()

    def apply(self, change: Change) -> None:
        """What has been committed. The next search sees it, in this store or without it."""
        ids = change.ids
        if self._missed is not None:
            self._missed |= ids
        shelf = self._shelf
        if shelf is None:
            return
        try:
            shelf.store.apply(change.upserts, change.deletes)
        except Exception as error:
            self.set_aside(shelf.store, error, reopen=True)
            return
        self._optimal = False
        self._unflushed += len(ids)

    def flush(self, after: int = 1) -> None:
        """Makes what was applied survive a power cut, if that is `after` chunks or more."""
        shelf = self._shelf
        if shelf is None or self._unflushed < after:
            return
        with self._view() as view:
            watermark = view.last_change()
        self._failpoint("flush:begin")
        try:
            shelf.store.flush()
        except Exception as error:
            self.set_aside(shelf.store, error, reopen=True)
            return
        self._failpoint("flush:stored")
        self._note_flushed(watermark, self._number)
        self._failpoint("flush:noted")
        self._unflushed = 0

    def set_aside(self, store: VectorStore, why: Exception, *, reopen: bool) -> None:
        """Stops using the store; begins to make another, unless that was done a moment ago.

        `reopen`: it may be worth trying the same one again.
        """
        shelf = self._shelf
        if shelf is None or shelf.store is not store:
            return  # somebody else was first
        self._shelf = None
        self._trouble(why)
        self._retire(shelf, erase=not reopen)
        if self._set_aside_at is None or self._clock() - self._set_aside_at >= _TRY_AGAIN_S:
            self._begin_recovery(reopen=reopen)
        else:
            self.state = "failed"
        self._set_aside_at = self._clock()

    def rebuild(self, progress: Progress) -> None:
        """A new store from what is durable, while the old one is searched. Raises INDEX_UNAVAILABLE."""
        with self._filling:
            self._fill(self._number + 1, anew=True, progress=progress)

    def tend(self) -> None:
        """What is due now and then: flushing, trying again after trouble, optimizing in the background."""
        with self._database.lock:
            self.flush()
        waited = self._set_aside_at is None or self._clock() - self._set_aside_at >= _TRY_AGAIN_S
        if self.state == "failed" and waited:
            self._set_aside_at = self._clock()
            self._begin_recovery(reopen=True)
        shelf = self._shelf
        busy = self._optimization is not None and self._optimization.is_alive()
        if shelf is not None and not self._optimal and not busy and not self._closing:
            self._optimal = True
            self._optimization = threading.Thread(
                target=self._optimize, args=(shelf.store,), name="index-optimize", daemon=True
            )
            self._optimization.start()

    def behind(self) -> int:
        """Chunks that no store in use has yet."""
        if self._shelf is not None:
            return 0
        with self._view() as view:
            return view.rows()

    def close(self, *, erase: bool = False) -> None:
        """Flushes, stops what is going on, and lets go of the store; with `erase`, for ever."""
        self._closing = True
        with self._database.lock:
            if not erase:
                self.flush()
            shelf, self._shelf = self._shelf, None
        if shelf is not None:
            self._retire(shelf, erase=erase)
        for thread in (self._recovery, self._optimization):
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def _fill(self, number: int, *, anew: bool, progress: Progress) -> None:
        """Opens store `number`, gives it what it lacks, and puts it into use. Hold `_filling`."""
        if anew:
            self._failpoint("rebuild:begin")
            shutil.rmtree(self._path(number), ignore_errors=True)
        with self._database.lock, self._view() as view:
            self._missed = set() if anew else set(view.unflushed())
        store = self._open_store(self._path(number), number)
        try:
            if anew:
                if store.count():
                    store.clear()
                self._failpoint("rebuild:made")
                self._copy(store, progress)
            for _ in range(_ROUNDS):
                if len(self._missed) <= _AT_ONCE:
                    break
                self._carry_over(store)
            store.flush()
            with self._database.lock:
                self._carry_over(store)
                self._failpoint("rebuild:carried")
                self._put_into_use(store, number)
        except BaseException:
            Shelf(store, self._path(number)).retire(erase=anew)
            raise
        finally:
            self._missed = None
        self._sweep()
        if anew:
            self._failpoint("rebuild:done")

    def _copy(self, store: VectorStore, progress: Progress) -> None:
        done = last = 0
        while True:
            self._go_on()
            with self._view() as view:
                total = view.rows()
                last, entries = view.entries_after(last, _AT_ONCE)
            if not entries:
                return
            store.apply(entries, [])
            done += len(entries)
            progress(done, max(done, total))
            self._failpoint("rebuild:part")

    def _carry_over(self, store: VectorStore) -> None:
        """Gives the store what was changed since it was opened."""
        missed, self._missed = self._missed or set(), set()
        ids = sorted(missed)
        for start in range(0, len(ids), _AT_ONCE):
            self._go_on()
            part = ids[start : start + _AT_ONCE]
            with self._view() as view:
                entries = view.entries_of(part)
            store.apply(entries, sorted(set(part).difference(entry.id for entry in entries)))

    def _put_into_use(self, store: VectorStore, number: int) -> None:
        """Hold the database's lock: nothing changes between the last look and the switch."""
        self._go_on()
        with self._view() as view:
            watermark, rows = view.last_change(), view.rows()
        if store.count() != rows:
            raise MeshError(
                Reason.INDEX_UNAVAILABLE, "the vector store does not have the chunks that are held"
            )
        store.flush()
        self._failpoint("rebuild:flushed")
        self._note_flushed(watermark, number)
        self._failpoint("rebuild:noted")
        old, self._shelf = self._shelf, Shelf(store, self._path(number))
        self._number, self._unflushed, self._optimal = number, 0, False
        self.state, self.detail = "ready", ""
        if old is not None:
            self._retire(old, erase=True)

    def _begin_recovery(self, *, reopen: bool) -> None:
        if self._closing or (self._recovery is not None and self._recovery.is_alive()):
            return
        self.state = "rebuilding"
        self._recovery = threading.Thread(
            target=self._recover, kwargs={"reopen": reopen}, name="index-rebuild", daemon=True
        )
        self._recovery.start()

    def _recover(self, *, reopen: bool) -> None:
        with self._filling:
            if self._shelf is not None:
                return  # somebody asked for a rebuild meanwhile
            try:
                if reopen and self._number:
                    try:
                        self._fill(self._number, anew=False, progress=lambda done, total: None)
                        return
                    except Exception as error:
                        self._trouble(error)
                self._fill(self._number + 1, anew=True, progress=lambda done, total: None)
            except Exception as error:
                self._trouble(error)
                self.state = "failed"
                self._set_aside_at = self._clock()

    def _note_flushed(self, watermark: int, number: int) -> None:
        with self._database.writing() as connection:
            Writer(connection, self._spec).flushed(watermark, number)

    def _optimize(self, store: VectorStore) -> None:
        try:
            store.optimize()
        except Exception as error:
            if not self._closing:
                self.set_aside(store, error, reopen=True)

    def _retire(self, shelf: Shelf, *, erase: bool) -> None:
        self._retired = [each for each in self._retired if each.readers]
        self._retired.append(shelf)
        shelf.retire(erase=erase)

    def _sweep(self) -> None:
        """Removes the folders of stores that are no longer in use."""
        kept = {self._path(self._number)} | {shelf.folder for shelf in self._retired if shelf.readers}
        for folder in self._folder.glob("store-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _trouble(self, error: Exception) -> None:
        # Only the catalog's words: another error's text might quote what is stored.
        self.detail = (
            error.message if isinstance(error, MeshError) else f"the store failed ({type(error).__name__})"
        )

    def _go_on(self) -> None:
        if self._closing:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the index is being closed", {}, 1.0)

    def _path(self, number: int) -> Path:
        return self._folder / f"store-{number}"
