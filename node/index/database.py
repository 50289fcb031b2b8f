"""One SQLite file with one writer and any number of readers, and what goes wrong with it.

Rules kept here:
- what `writing` has committed is on the disk (write-ahead log, synchronous=FULL);
- a reader sees one moment and nothing of what is written meanwhile;
- what is deleted is overwritten (secure_delete), and `truncate` empties the log of it;
- trouble with the disk is INDEX_UNAVAILABLE, and leaves what was committed before as it was.

It does not know what the tables mean.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.core.errors import MeshError, Reason

_PAGE = 8192  # a chunk's row is about 3 KB: two to a page, and seldom an overflow
_SPARE_READERS = 16
_OUR_FAULT = ("SQLITE_ERROR", "SQLITE_MISUSE", "SQLITE_RANGE")


class Database:
    """The file at `path`, made by `script` if it is not there. Raises INDEX_UNAVAILABLE."""

    def __init__(self, path: Path, script: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._open = True
        with _told():
            made = not path.exists()
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._writer = self._connect()
            try:
                if made:
                    self._writer.executescript(f"PRAGMA page_size={_PAGE};")
                self._writer.executescript(
                    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;"
                    "PRAGMA foreign_keys=OFF; PRAGMA cache_size=-32768; PRAGMA temp_store=MEMORY;"
                )
                self._writer.executescript(script)
            except BaseException:
                self._writer.close()
                raise

    @property
    def lock(self) -> threading.Lock:
        """Held by whoever writes; take it before `writing`."""
        return self._lock

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed when the block ends and undone if it raises. Hold `lock`."""
        with _told():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A view of one moment: the last commit before the block."""
        with _told():
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = self._connect()
                connection.executescript("PRAGMA query_only=ON; PRAGMA cache_size=-16384;")
            try:
                connection.execute("BEGIN")
                # A transaction's moment is that of its first read.
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._give_back(connection)

    def truncate(self) -> bool:
        """Moves the log into the file and empties it, if no reader is in the way. Hold `lock`."""
        with _told():
            busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def bytes(self) -> int:
        """Size of the file and its log."""
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += os.stat(f"{self._path}{suffix}").st_size
            except OSError:
                continue  # the log is not always there
        return total

    def close(self) -> None:
        """Closes it. What is still reading gets INDEX_UNAVAILABLE next time."""
        self._open = False
        with self._lock, _told():
            while True:
                try:
                    self._readers.get_nowait().close()
                except queue.Empty:
                    break
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        if not self._open:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "the index is closed", {}, 1.0)
        # Transactions are written out; a connection is used by one thread at a time, never by two at once.
        return sqlite3.connect(
            self._path, timeout=0.2, isolation_level=None, check_same_thread=False, cached_statements=256
        )

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._open and self._readers.qsize() < _SPARE_READERS:
            self._readers.put(connection)
        else:
            connection.close()


@contextmanager
def _told() -> Iterator[None]:
    """Trouble with the files as INDEX_UNAVAILABLE, of which only the kind is told.

    What is wrong with a statement, or with what the tables promise, is a fault of this code and crashes.
    """
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        kind = getattr(error, "sqlite_errorname", None) or type(error).__name__
        if kind in _OUR_FAULT or isinstance(error, sqlite3.IntegrityError):
            raise
        raise MeshError(
            Reason.INDEX_UNAVAILABLE, f"the index's own files cannot be used ({kind})", {}, 5.0
        ) from None
