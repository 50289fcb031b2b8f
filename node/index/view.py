"""One moment of the durable store, as questions see it on a given day.

Whatever leaves an index is read here: what has been deleted, has expired, or is not in one of the groups
asked for does not come out, whatever a vector store may still say. Documents whose last day has come are
neither found nor counted, also before `purge` has removed them.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mesh.core.retrieval import CollectionSpec, ReleaseGroup
from mesh.core.types import DataClass
from node.index.base import Entry, Where
from node.index.documents import DocumentMeta
from node.index.durable import decode_terms, entry_fields, rows_in, term_weight
from node.index.stored import HeldDocument, StoredChunk

_CLASSES = frozenset(str(each) for each in DataClass)
_DOCUMENT = "d.id, d.title, d.source, g.classes, g.owner, d.language, d.retain_until, g.tenant "
_FROM = (
    "FROM chunks c CROSS JOIN documents d ON d.number = c.document CROSS JOIN groups g ON g.number = d.grp "
)
_ONE_OF = "IN (SELECT value FROM json_each(?))"
_LIVE = "(d.retain_until IS NULL OR d.retain_until > ?) "
_HELD = (
    f"SELECT d.file, d.digest, d.chunks, {_DOCUMENT}FROM documents d CROSS JOIN groups g ON g.number = d.grp "
)
_ENTRY = "SELECT c.number, c.id, c.vector, c.terms, c.length, g.number, " + _DOCUMENT + _FROM


@dataclass(frozen=True, slots=True)
class Expired:
    """What is still counted in the tables although its last day has come."""

    documents: int = 0
    chunks: Counter[int] = field(default_factory=Counter)  # by group
    frequencies: Mapping[int, Counter[int]] = field(default_factory=dict)  # by group, by term


NOTHING_EXPIRED = Expired()


class ExpiredToday:
    """Remembers what has expired until the day, or the documents with an end, change. Thread safe."""

    def __init__(self) -> None:
        self._key: tuple[str, int] | None = None
        self._known = NOTHING_EXPIRED

    def of(self, connection: sqlite3.Connection, today: str) -> Expired:
        """What has expired by `today` (ISO 8601)."""
        if not connection.execute(
            "SELECT EXISTS (SELECT 1 FROM documents WHERE retain_until <= ?)", (today,)
        ).fetchone()[0]:
            return NOTHING_EXPIRED
        version = connection.execute("SELECT value FROM settings WHERE name = 'retention'").fetchone()
        key = (today, int(version[0]))
        known_key, known = self._key, self._known
        if known_key != key:
            known = _read_expired(connection, today)
            self._known, self._key = known, key
        return known


def _read_expired(connection: sqlite3.Connection, today: str) -> Expired:
    documents = 0
    chunks: Counter[int] = Counter()
    frequencies: dict[int, Counter[int]] = {}
    for number, group in connection.execute(
        "SELECT number, grp FROM documents WHERE retain_until <= ?", (today,)
    ):
        rows = connection.execute("SELECT terms FROM chunks WHERE document = ?", (number,)).fetchall()
        documents += 1
        chunks[group] += len(rows)
        found, times = np.unique(decode_terms(b"".join(row[0] for row in rows))[:, 0], return_counts=True)
        frequencies.setdefault(group, Counter()).update(
            dict(zip(found.tolist(), times.tolist(), strict=True))
        )
    return Expired(documents, chunks, frequencies)


class View:
    """Reads through `connection`, which is in a transaction. `today` is ISO 8601."""

    def __init__(
        self, connection: sqlite3.Connection, spec: CollectionSpec, today: str, expired: Callable[[], Expired]
    ) -> None:
        self._sql, self._spec, self._today, self._expired = connection, spec, today, expired

    def groups(self) -> dict[int, ReleaseGroup]:
        """The release groups that have chunks to be found."""
        expired = self._expired()
        rows = self._sql.execute("SELECT number, tenant, owner, classes, chunks FROM groups")
        return {
            number: ReleaseGroup(tenant, owner, _classes(classes))
            for number, tenant, owner, classes, chunks in rows
            if chunks > expired.chunks[number]
        }

    def statistics(self, terms: Sequence[str], groups: frozenset[int]) -> tuple[int, tuple[int, ...]]:
        """How many chunks the groups have, and how many of them have each term."""
        expired = self._expired()
        documents = sum(
            chunks - expired.chunks[number]
            for number, chunks in self._sql.execute("SELECT number, chunks FROM groups")
            if number in groups
        )
        frequencies: Counter[str] = Counter()
        select = (
            "SELECT t.term, t.number, f.grp, f.chunks "
            "FROM terms t CROSS JOIN frequencies f ON f.term = t.number WHERE t.term IN"
        )
        inside = "AND f.grp IN (SELECT value FROM json_each(?))"
        for term, number, group, chunks in rows_in(
            self._sql, select, sorted(set(terms)), inside, (json.dumps(sorted(groups)),)
        ):
            gone = expired.frequencies[group][number] if group in expired.frequencies else 0
            frequencies[term] += chunks - gone
        return documents, tuple(frequencies[term] for term in terms)

    def any_expired(self) -> bool:
        """Whether there are rows that are there but must not be found."""
        return self._expired() is not NOTHING_EXPIRED

    def term_numbers(self, terms: Sequence[str]) -> dict[str, int]:
        """Of those that occur."""
        return dict(rows_in(self._sql, "SELECT term, number FROM terms WHERE term IN", sorted(set(terms))))

    def candidates(self, ids: Iterable[bytes], columns: str, where: Where) -> Iterator[tuple[Any, ...]]:
        """(id, *columns) of those of the chunks that may be found."""
        admitted, parameters = self._admitted(where)
        yield from rows_in(
            self._sql,
            f"SELECT c.id, {columns} {_FROM} WHERE c.id IN",
            list(ids),
            "AND " + admitted,
            parameters,
        )

    def every(self, columns: str, where: Where, at_once: int) -> Iterator[list[tuple[Any, ...]]]:
        """(id, *columns) of all chunks that may be found, in batches."""
        admitted, parameters = self._admitted(where)
        rows = self._sql.execute(f"SELECT c.id, {columns} {_FROM} WHERE {admitted}", parameters)
        while batch := rows.fetchmany(at_once):
            yield batch

    def chunks(self, ids: Iterable[bytes], groups: frozenset[int]) -> dict[bytes, StoredChunk]:
        """The chunks that are there and in one of the groups."""
        admitted, parameters = self._admitted(Where(groups))
        select = f"SELECT c.id, c.ordinal, c.text, g.number, {_DOCUMENT} {_FROM} WHERE c.id IN"
        return {
            each: StoredChunk(each, _meta(document), ordinal, text, group)
            for each, ordinal, text, group, *document in rows_in(
                self._sql, select, list(ids), "AND " + admitted, parameters
            )
        }

    def documents(self, after: str, limit: int, tenant: str | None) -> tuple[HeldDocument, ...]:
        """A page of the documents, in the order of their ids."""
        page = f"{_HELD} WHERE d.id > ? AND {_LIVE} AND (?3 IS NULL OR g.tenant = ?3) ORDER BY d.id LIMIT ?4"
        rows = self._sql.execute(page, (after, self._today, tenant, limit))
        return tuple(HeldDocument(_meta(document), digest, chunks) for _, digest, chunks, *document in rows)

    def held(self, each: str) -> tuple[HeldDocument, str] | None:
        """The document, expired or not, and the name of the file that it came from."""
        row = self._sql.execute(_HELD + "WHERE d.id = ?", (each,)).fetchone()
        return (HeldDocument(_meta(row[3:]), row[1], row[2]), row[0]) if row else None

    def digest_of(self, document: str) -> str | None:
        """What the document was read from."""
        row = self._sql.execute("SELECT digest FROM documents WHERE id = ?", (document,)).fetchone()
        return row[0] if row else None

    def of_tenant(self, ids: Sequence[str], tenant: str) -> list[str]:
        """Those of the documents that are the tenant's."""
        select = "SELECT d.id FROM documents d JOIN groups g ON g.number = d.grp WHERE d.id IN"
        return [row[0] for row in rows_in(self._sql, select, list(ids), "AND g.tenant = ?", (tenant,))]

    def expired_documents(self, today: str, limit: int) -> list[str]:
        """Documents to be purged by then."""
        sql = "SELECT id FROM documents WHERE retain_until <= ? LIMIT ?"
        return [row[0] for row in self._sql.execute(sql, (today, limit))]

    def file_digest(self, name: str) -> bytes | None:
        """SHA-256 of the file when it was last read to its end."""
        row = self._sql.execute("SELECT sha256 FROM files WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def totals(self) -> tuple[int, int, dict[str, int]]:
        """Documents, chunks, and chunks by data class."""
        expired = self._expired()
        documents = chunks = 0
        classes: Counter[str] = Counter()
        for number, held, has, named in self._sql.execute(
            "SELECT number, documents, chunks, classes FROM groups"
        ):
            documents += held
            chunks += has - expired.chunks[number]
            for name in named.split():
                classes[name] += has - expired.chunks[number]
        return documents - expired.documents, chunks, dict(classes)

    def setting(self, name: str) -> Any:
        """One of the index's own settings, or None."""
        row = self._sql.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def rows(self) -> int:
        """Chunks that the vector store should have, expired ones too."""
        return int(self._sql.execute("SELECT coalesce(sum(chunks), 0) FROM groups").fetchone()[0])

    def last_change(self) -> int:
        """Number of the last change ever made."""
        row = self._sql.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
        return int(row[0]) if row else 0

    def unflushed(self) -> list[bytes]:
        """Chunks that the vector store may lack, or have too many."""
        return [row[0] for row in self._sql.execute("SELECT DISTINCT chunk FROM changes")]

    def entries_after(self, number: int, limit: int) -> tuple[int, list[Entry]]:
        """What the vector store should have of the next chunks, and the last one's number."""
        rows = self._sql.execute(
            f"{_ENTRY} WHERE c.number > ? ORDER BY c.number LIMIT ?", (number, limit)
        ).fetchall()
        return (rows[-1][0] if rows else number), [self._entry(row) for row in rows]

    def entries_of(self, ids: Iterable[bytes]) -> list[Entry]:
        """What the vector store should have of those of the chunks that are there."""
        return [self._entry(row) for row in rows_in(self._sql, f"{_ENTRY} WHERE c.id IN", list(ids))]

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        _, each, vector, terms, length, group, *document = row
        pairs = decode_terms(terms)
        weights = term_weight(self._spec, pairs[:, 1].astype(np.float64), float(length))
        weighted = dict(zip(pairs[:, 0].tolist(), weights.tolist(), strict=True))
        floats: Any = np.frombuffer(vector, "<f4")
        return Entry(each, floats, weighted, group, entry_fields(_meta(document)))

    def _admitted(self, where: Where) -> tuple[str, list[Any]]:
        """`where` and the day as a condition and its parameters."""
        conditions = [f"g.number {_ONE_OF}", _LIVE]
        parameters: list[Any] = [json.dumps(sorted(where.groups)), self._today]
        columns = {"document": "d.id", "source": "d.source", "language": "d.language", "owner": "g.owner"}
        for name, values in where.fields.items():
            # Fields are printable, and "" means that there is none.
            usable = json.dumps(sorted(v for v in values if v and v.isprintable()))
            if name == "class":
                usable = json.dumps(sorted(_CLASSES.intersection(values)))
                conditions.append(
                    "EXISTS (SELECT 1 FROM json_each(?) v "
                    "WHERE instr(' ' || g.classes || ' ', ' ' || v.value || ' ') > 0)"
                )
            else:
                conditions.append(f"{columns[name]} {_ONE_OF}")
            parameters.append(usable)
        return " AND ".join(conditions), parameters


def _meta(row: Sequence[Any]) -> DocumentMeta:
    each, title, source, classes, owner, language, until, tenant = row
    day = datetime.date.fromisoformat(until) if until else None
    return DocumentMeta(each, title, source, _classes(classes), owner, language, day, tenant)


def _classes(text: str) -> frozenset[DataClass]:
    return frozenset(DataClass(name) for name in text.split())
