"""The durable store of one collection: documents, chunks, terms, and how often each term occurs.

Everything else is derived from it. In one transaction with each change it keeps:
- document frequencies and chunk counts per release group, exact;
- `changes`, the chunks that the vector store may not have on its disk yet (`flushed` is the watermark);
- nothing of what is gone: a term that no chunk has any more, and a group without documents, are removed.
Numbers of groups, terms and documents are never used again, so a number that somebody still holds can
come to mean nothing, but never something else.

It does not know the vector store, and ranks nothing (ranking.py); view.py reads it.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ID_BYTES, CollectionSpec, ReleaseGroup
from node.index.base import Entry
from node.index.checks import check_batch
from node.index.documents import DocumentMeta
from node.index.stored import MAX_CHUNK_BYTES, MAX_CHUNK_TERMS, MAX_GROUPS, MAX_GROUPS_OF_TENANT, NewDocument

SCHEMA_VERSION = 1
_AT_ONCE = 1000  # values in one IN (...)

SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, owner TEXT NOT NULL,
    classes TEXT NOT NULL, documents INTEGER NOT NULL CHECK (documents >= 0),
    chunks INTEGER NOT NULL CHECK (chunks >= 0),
    UNIQUE (tenant, owner, classes));
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, digest TEXT NOT NULL,
    grp INTEGER NOT NULL, chunks INTEGER NOT NULL, title TEXT NOT NULL, source TEXT NOT NULL,
    language TEXT NOT NULL, retain_until TEXT, file TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS documents_retained ON documents (retain_until) WHERE retain_until IS NOT NULL;
CREATE TABLE IF NOT EXISTS chunks (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, document INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, length INTEGER NOT NULL, vector BLOB NOT NULL, terms BLOB NOT NULL,
    text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_of_document ON chunks (document);
CREATE TABLE IF NOT EXISTS terms (number INTEGER PRIMARY KEY AUTOINCREMENT, term TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS frequencies (
    term INTEGER NOT NULL, grp INTEGER NOT NULL, chunks INTEGER NOT NULL CHECK (chunks >= 0),
    PRIMARY KEY (term, grp)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, sha256 BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, chunk BLOB NOT NULL);
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class PreparedChunk:
    """A chunk analysed and checked. `vector` is float32 of unit length."""

    id: bytes
    text: str
    vector: Any
    counts: Mapping[str, int]
    length: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is ready to be written."""

    document: NewDocument
    group: ReleaseGroup
    chunks: Sequence[PreparedChunk]


@dataclass(slots=True)
class Change:
    """What a transaction did: what the vector store has to do after it."""

    upserts: list[Entry] = field(default_factory=list)
    deletes: list[bytes] = field(default_factory=list)
    documents_removed: int = 0
    frequencies: dict[int, Counter[int]] = field(default_factory=dict)  # by group, by term

    @property
    def ids(self) -> set[bytes]:
        """Every chunk that is not what it was."""
        return {entry.id for entry in self.upserts}.union(self.deletes)


def chunk_id(secret: bytes, collection: str, document: str, ordinal: int) -> bytes:
    """The chunk's global id: says nothing to whoever lacks the node's secret, and survives rebuilding."""
    said = b"\0".join((collection.encode(), document.encode(), str(ordinal).encode()))
    return hmac.digest(secret, said, "sha256")[:ID_BYTES]


def term_weight(spec: CollectionSpec, frequency: Any, length: Any) -> Any:
    """BM25's weight of a term that occurs `frequency` times in a chunk of `length` terms (float64 arrays)."""
    return frequency / (frequency + spec.k1 * (1 - spec.b + spec.b * length / spec.average_length))


def entry_fields(meta: DocumentMeta) -> dict[str, tuple[str, ...]]:
    """What a question may filter by; what is empty is not there."""
    said = {"document": meta.id, "source": meta.source, "language": meta.language, "owner": meta.owner}
    fields = {name: (value,) for name, value in said.items() if value}
    return fields | {"class": tuple(sorted(meta.classes))}


def decode_terms(blob: bytes) -> Any:
    """Pairs (term number, occurrences), uint32, of shape (terms, 2)."""
    return np.frombuffer(blob, "<u4").reshape(-1, 2)


def prepare(
    spec: CollectionSpec, secret: bytes, terms: Callable[[str], list[str]], documents: Iterable[NewDocument]
) -> list[Prepared]:
    """All that can be done before the lock is taken. Of a document given twice, the last stands.

    Raises DOCUMENT_INVALID (a chunk or the number of its terms is too large) and REQUEST_INVALID (vectors).
    """
    prepared = []
    for document in {document.meta.id: document for document in documents}.values():
        meta = document.meta
        counted = [_counted(chunk.text, terms) for chunk in document.chunks]
        ids = [chunk_id(secret, spec.name, meta.id, ordinal) for ordinal in range(len(counted))]
        bare = [Entry(each, chunk.vector, {}, 0) for each, chunk in zip(ids, document.chunks, strict=True)]
        vectors = check_batch(bare, (), spec.dimensions).vectors
        chunks = [
            PreparedChunk(each, chunk.text, vector, counts, counts.total())
            for each, chunk, vector, counts in zip(ids, document.chunks, vectors, counted, strict=True)
        ]
        prepared.append(Prepared(document, ReleaseGroup(meta.tenant, meta.owner, meta.classes), chunks))
    return prepared


def _counted(text: str, terms: Callable[[str], list[str]]) -> Counter[str]:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise MeshError(Reason.DOCUMENT_INVALID, "a chunk: expected text that is valid Unicode") from None
    if size > MAX_CHUNK_BYTES:
        raise MeshError(Reason.DOCUMENT_INVALID, f"a chunk: expected at most {MAX_CHUNK_BYTES} bytes")
    counts = Counter(terms(text))
    if len(counts) > MAX_CHUNK_TERMS:
        raise MeshError(Reason.DOCUMENT_INVALID, f"a chunk: expected at most {MAX_CHUNK_TERMS} terms")
    return counts


class Writer:
    """What may be done inside one transaction of `connection`."""

    def __init__(self, connection: sqlite3.Connection, spec: CollectionSpec) -> None:
        self._sql, self._spec = connection, spec

    def put(self, documents: Sequence[Prepared], tenant: str | None) -> Change:
        """Stores the documents, each replacing the one of its id (only the tenant's, if one is named)."""
        change = Change()
        ids = [each.document.meta.id for each in documents]
        taken = "SELECT 1 FROM documents d JOIN groups g ON g.number = d.grp WHERE d.id IN"
        if tenant is not None and any(rows_in(self._sql, taken, ids, "AND g.tenant <> ?", (tenant,))):
            raise MeshError(Reason.DOCUMENT_INVALID, "id: expected one that is not taken")
        self._remove(ids, change)
        numbers = self._term_numbers({term for d in documents for c in d.chunks for term in c.counts})
        groups: Counter[int] = Counter()
        for each in documents:
            group = self._group(each.group)
            groups[group] += len(each.chunks)
            self._insert(each, group, numbers, change)
        self._sql.executemany(
            "UPDATE groups SET chunks = chunks + ? WHERE number = ?", [(n, g) for g, n in groups.items()]
        )
        self._settle(change)
        written = {entry.id for entry in change.upserts}
        change.deletes = [each for each in change.deletes if each not in written]
        self._note(change)
        return change

    def delete(self, ids: Sequence[str], *, forget_files: bool) -> Change:
        """Removes those documents that are there."""
        change = Change()
        files = self._remove(ids, change)
        if forget_files:
            # So that ingesting the file again brings the document back.
            self._sql.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in files if name])
        self._settle(change)
        self._note(change)
        return change

    def note_file(self, name: str, sha256: bytes) -> None:
        """Remembers that all documents of the file are stored."""
        self._sql.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, sha256))

    def set_one(self, name: str, value: str | int) -> None:
        """Writes one setting."""
        self._sql.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def found(self) -> None:
        """The first settings of a new index."""
        self.set_one("schema", SCHEMA_VERSION)
        self.set_one("spec", json.dumps(asdict(self._spec)))
        self.set_one("store", 0)

    def flushed(self, watermark: int, store: int) -> None:
        """The vector store `store` has all changes up to the watermark on its disk."""
        self.set_one("watermark", watermark)
        self.set_one("store", store)
        self._sql.execute("DELETE FROM changes WHERE seq <= ?", (watermark,))

    def _remove(self, ids: Sequence[str], change: Change) -> set[str]:
        """Removes the documents' rows; returns the files that they came from."""
        files: set[str] = set()
        retained = False
        for document, grp, chunks, retain_until, file in self._each(
            "SELECT number, grp, chunks, retain_until, file FROM documents WHERE id IN", list(ids)
        ):
            rows = self._sql.execute(
                "SELECT id, terms FROM chunks WHERE document = ?", (document,)
            ).fetchall()
            change.deletes += [each for each, _ in rows]
            pairs = decode_terms(b"".join(terms for _, terms in rows))
            found, times = np.unique(pairs[:, 0], return_counts=True)
            delta = change.frequencies.setdefault(grp, Counter())
            delta.subtract(dict(zip(found.tolist(), times.tolist(), strict=True)))
            self._sql.execute("DELETE FROM chunks WHERE document = ?", (document,))
            self._sql.execute("DELETE FROM documents WHERE number = ?", (document,))
            self._sql.execute(
                "UPDATE groups SET documents = documents - 1, chunks = chunks - ? WHERE number = ?",
                (chunks, grp),
            )
            change.documents_removed += 1
            files.add(file)
            retained |= retain_until is not None
        if retained:
            self._retention_changed()
        return files

    def _insert(self, each: Prepared, group: int, numbers: Mapping[str, int], change: Change) -> None:
        meta = each.document.meta
        until = meta.retain_until.isoformat() if meta.retain_until else None
        document = self._sql.execute(
            "INSERT INTO documents (id, digest, grp, chunks, title, source, language, retain_until, file) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(meta.id, each.document.digest, group, len(each.chunks), meta.title, meta.source),
                *(meta.language, until, each.document.file),
            ),
        ).lastrowid
        if until is not None:
            self._retention_changed()
        self._sql.execute("UPDATE groups SET documents = documents + 1 WHERE number = ?", (group,))
        fields = entry_fields(meta)
        delta = change.frequencies.setdefault(group, Counter())
        rows = []
        for ordinal, chunk in enumerate(each.chunks):
            pairs = np.array(sorted((numbers[t], n) for t, n in chunk.counts.items()), "<u4").reshape(-1, 2)
            found = pairs[:, 0].tolist()
            weights = term_weight(self._spec, pairs[:, 1].astype(np.float64), float(chunk.length)).tolist()
            vector = chunk.vector.astype("<f4").tobytes()
            rows.append((chunk.id, document, ordinal, chunk.length, vector, pairs.tobytes(), chunk.text))
            delta.update(found)
            weighted = dict(zip(found, weights, strict=True))
            change.upserts.append(Entry(chunk.id, chunk.vector, weighted, group, fields))
        self._sql.executemany(
            "INSERT INTO chunks (id, document, ordinal, length, vector, terms, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def _group(self, group: ReleaseGroup) -> int:
        key = (group.tenant, group.owner, " ".join(sorted(group.classes)))
        row = self._sql.execute(
            "SELECT number FROM groups WHERE tenant = ? AND owner = ? AND classes = ?", key
        ).fetchone()
        if row is not None:
            return int(row[0])
        if group.tenant and self._groups(group.tenant) >= MAX_GROUPS_OF_TENANT:
            raise MeshError(
                Reason.DOCUMENT_INVALID,
                f"expected at most {MAX_GROUPS_OF_TENANT} combinations of owner and classes of one tenant",
            )
        if self._groups() >= MAX_GROUPS:
            raise MeshError(
                Reason.DOCUMENT_INVALID,
                f"expected at most {MAX_GROUPS} combinations of tenant, owner and classes in a collection",
            )
        sql = "INSERT INTO groups (tenant, owner, classes, documents, chunks) VALUES (?, ?, ?, 0, 0)"
        return cast(int, self._sql.execute(sql, key).lastrowid)

    def _groups(self, tenant: str = "") -> int:
        """How many there are, of one tenant or of all."""
        sql = "SELECT count(*) FROM groups WHERE ?1 = '' OR tenant = ?1"
        return int(self._sql.execute(sql, (tenant,)).fetchone()[0])

    def _term_numbers(self, terms: set[str]) -> dict[str, int]:
        wanted = sorted(terms)
        numbers = dict(self._each("SELECT term, number FROM terms WHERE term IN", wanted))
        missing = [term for term in wanted if term not in numbers]
        self._sql.executemany("INSERT INTO terms (term) VALUES (?)", [(term,) for term in missing])
        numbers.update(self._each("SELECT term, number FROM terms WHERE term IN", missing))
        return numbers

    def _settle(self, change: Change) -> None:
        """Writes the frequencies, and drops terms and groups that nothing is left of."""
        more = [(t, g, n) for g, delta in change.frequencies.items() for t, n in delta.items() if n > 0]
        less = [(-n, t, g) for g, delta in change.frequencies.items() for t, n in delta.items() if n < 0]
        self._sql.executemany(
            "INSERT INTO frequencies VALUES (?, ?, ?) "
            "ON CONFLICT (term, grp) DO UPDATE SET chunks = chunks + excluded.chunks",
            sorted(more),
        )
        self._sql.executemany("UPDATE frequencies SET chunks = chunks - ? WHERE term = ? AND grp = ?", less)
        self._sql.executemany(
            "DELETE FROM frequencies WHERE term = ? AND grp = ? AND chunks = 0", [(t, g) for _, t, g in less]
        )
        # Looked up for a chunk that was replaced, or gone with the last chunk that had it.
        self._sql.executemany(
            "DELETE FROM terms WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM frequencies WHERE term = ?1)",
            [(t,) for t in {t for _, t, _ in less}],
        )
        self._sql.execute("DELETE FROM groups WHERE documents = 0")

    def _note(self, change: Change) -> None:
        self._sql.executemany(
            "INSERT INTO changes (chunk) VALUES (?)", [(each,) for each in sorted(change.ids)]
        )

    def _retention_changed(self) -> None:
        self._sql.execute(
            "INSERT INTO settings VALUES ('retention', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
        )

    def _each(self, select_in: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        yield from rows_in(self._sql, select_in, values)


def rows_in(
    connection: sqlite3.Connection,
    select_in: str,
    values: Sequence[Any],
    rest: str = "",
    parameters: Sequence[Any] = (),
) -> Iterator[tuple[Any, ...]]:
    """The rows of `<select_in> (values) <rest>`, in parts of few sizes so that SQLite's plans are reused."""
    for start in range(0, len(values), _AT_ONCE):
        part = list(values[start : start + _AT_ONCE])
        size = next(s for s in (1, 16, 128, _AT_ONCE) if s >= len(part))
        part += [None] * (size - len(part))  # NULL is in nothing
        marks = ",".join("?" * size)
        yield from connection.execute(f"{select_in} ({marks}) {rest}", [*part, *parameters]).fetchall()


def store_name(secret: bytes, collection: str) -> str:
    """A name on a vector server for this node's share of a collection, which no other node comes to use."""
    return "mesh-" + hmac.digest(secret, b"store\0" + collection.encode(), "sha256").hex()[:24]


def holds_documents(file: Path) -> bool:
    """Whether the database of an index that nobody has open has a document. What cannot be read may have."""
    if not file.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(file)) as database:
            tables = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'documents'").fetchone()
            return bool(tables and database.execute("SELECT 1 FROM documents LIMIT 1").fetchone())
    except sqlite3.Error:
        return True
