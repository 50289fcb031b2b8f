"""One collection on a Milvus server, through pymilvus.

Every search is exact: Milvus chooses its index when a collection is made and not when it is asked, and
the port promises exact search on demand. It scales by adding query nodes. Reads are strongly consistent,
so that what was written or deleted shows in the next search; an answered write is in Milvus' own log, so
there is nothing left to flush.

Field values are kept as digests: filters are text here, and a digest has nothing in it that could end a
string. A sparse vector may not be empty and has no number 2**32 - 1, so the last two term numbers are not
for callers. The client's own log repeats filters and is silenced (I1).

Tried against Milvus Lite only; a server has not been available to test with.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
from pymilvus import DataType, MilvusClient, MilvusException

from mesh.core.errors import MeshError, Reason
from node.index import ties
from node.index.base import FILTER_FIELDS, Entry, Scored, Where
from node.index.checks import (
    MAX_TERM,
    MAX_VALUES,
    admits_nothing,
    check_batch,
    check_depth,
    check_question,
    check_weights,
    check_where,
)

logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)

_ID, _DENSE, _TERMS, _GROUP, _FIELD = "id", "dense", "terms", "release_group", "field_"
_NO_TERMS = MAX_TERM - 1  # stands for having none
_AT_ONCE = 256  # rows in one request: about 1 MB
_DIGEST_CHARACTERS = 64
_T = TypeVar("_T")


class MilvusStore:
    """A VectorStore on a server. `client` brings address, credentials and TLS, and is closed with it.

    The collection is made if it is missing. `timeout_s` bounds every call. Raises INDEX_UNAVAILABLE if the
    server cannot be reached, or holds vectors of another length.
    """

    def __init__(
        self, client: MilvusClient, collection: str, dimensions: int, timeout_s: float = 10.0
    ) -> None:
        self._client, self._dimensions, self._timeout_s = client, dimensions, timeout_s
        self._collection = _name(collection)
        _guard(self._ensure)

    def apply(self, upserts: Sequence[Entry], deletes: Sequence[bytes]) -> None:
        """Writes and removes; the next search sees it."""
        batch = check_batch(upserts, deletes, self._dimensions)
        for entry in batch.entries:
            _check_terms(entry.terms)
        for start in range(0, len(batch.deletes), _AT_ONCE):
            gone = [each.hex() for each in batch.deletes[start : start + _AT_ONCE]]
            _guard(partial(self._client.delete, self._collection, ids=gone, timeout=self._timeout_s))
        for start in range(0, len(batch.entries), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            pairs = zip(batch.entries[part], batch.vectors[part], strict=True)
            rows = [_row(entry, vector.tolist()) for entry, vector in pairs]
            _guard(partial(self._client.upsert, self._collection, rows, timeout=self._timeout_s))

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, *, exact: bool = False
    ) -> list[Scored]:
        """The nearest by cosine; always exact."""
        question = check_question(vector, depth, where, self._dimensions).tolist()
        return self._search(question, _DENSE, "COSINE", depth, where)

    def by_terms(self, weights: Mapping[int, float], depth: int, where: Where) -> list[Scored]:
        """The highest sums of weight x weight."""
        check_weights(weights)
        _check_terms(weights)
        check_depth(depth)
        check_where(where)
        if not weights:
            return []
        found = self._search(dict(weights), _TERMS, "IP", depth, where)
        return [each for each in found if each.score > 0]

    def flush(self) -> None:
        """Every write was in the server's log before it was answered."""

    def count(self) -> int:
        """How many chunks it holds."""
        rows = _guard(
            lambda: self._client.query(
                self._collection, filter="", output_fields=["count(*)"], timeout=self._timeout_s
            )
        )
        return int(rows[0]["count(*)"])

    def optimize(self) -> None:
        """The server does that by itself."""

    def clear(self) -> None:
        """Removes everything."""

        def again() -> None:
            self._client.drop_collection(self._collection, timeout=self._timeout_s)
            self._ensure()

        _guard(again)

    def close(self) -> None:
        """Closes the client."""
        _guard(self._client.close)

    def _search(self, question: Any, using: str, metric: str, depth: int, where: Where) -> list[Scored]:
        if depth == 0 or admits_nothing(where):
            return []
        condition = _filter(where)

        def ask(limit: int) -> list[Scored]:
            (found,) = _guard(
                lambda: self._client.search(
                    self._collection,
                    [question],
                    filter=condition,
                    limit=limit,
                    output_fields=[_ID],
                    search_params={"metric_type": metric},
                    anns_field=using,
                    timeout=self._timeout_s,
                )
            )
            scored = [Scored(bytes.fromhex(each[_ID]), float(each["distance"])) for each in found]
            return sorted(scored, key=lambda each: -each.score)

        return ties.best(ask, depth)

    def _ensure(self) -> None:
        client, wait = self._client, self._timeout_s
        if not client.has_collection(self._collection, timeout=wait):
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field(_ID, DataType.VARCHAR, is_primary=True, max_length=32)
            schema.add_field(_DENSE, DataType.FLOAT_VECTOR, dim=self._dimensions)
            schema.add_field(_TERMS, DataType.SPARSE_FLOAT_VECTOR)
            schema.add_field(_GROUP, DataType.INT64)
            indexes = MilvusClient.prepare_index_params()
            indexes.add_index(_DENSE, index_type="FLAT", metric_type="COSINE")
            indexes.add_index(_TERMS, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
            indexes.add_index(_GROUP, index_type="INVERTED")
            for name in sorted(FILTER_FIELDS):
                schema.add_field(
                    _FIELD + name,
                    DataType.ARRAY,
                    element_type=DataType.VARCHAR,
                    max_capacity=MAX_VALUES,
                    max_length=_DIGEST_CHARACTERS,
                )
            client.create_collection(
                self._collection,
                schema=schema,
                index_params=indexes,
                consistency_level="Strong",
                timeout=wait,
            )
            self._index_fields()
        found = client.describe_collection(self._collection, timeout=wait)["fields"]
        lengths = {each["name"]: each.get("params", {}).get("dim") for each in found}
        if str(lengths.get(_DENSE)) != str(self._dimensions) or _TERMS not in lengths:
            raise MeshError(Reason.INDEX_UNAVAILABLE, "store: expected a collection of our own making")
        client.load_collection(self._collection, timeout=wait)

    def _index_fields(self) -> None:
        """Indexes only make filters faster, and Milvus Lite has none for lists of values."""
        for name in sorted(FILTER_FIELDS):
            index = MilvusClient.prepare_index_params()
            index.add_index(_FIELD + name, index_type="INVERTED")
            with contextlib.suppress(MilvusException):
                self._client.create_index(self._collection, index, timeout=self._timeout_s)


def connect(
    url: str, token: str | None, ca: Path | None, timeout_s: float, collection: str, dimensions: int
) -> MilvusStore:
    """A store on the server at `url`; `token` is "user:password" or an API key, `ca` replaces the system's
    trust roots."""
    secure: dict[str, Any] = {"secure": True} if url.startswith("https://") else {}
    if ca is not None:
        secure["server_pem_path"] = str(ca)
    client = _guard(lambda: MilvusClient(url, token=token or "", timeout=timeout_s, dedicated=True, **secure))
    return MilvusStore(client, collection, dimensions, timeout_s)


def _guard(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError, OSError, RuntimeError, ValueError):
        # Without the cause: it may repeat what was sent (I1).
        raise MeshError(
            Reason.INDEX_UNAVAILABLE, "store: expected the Milvus server to answer in time"
        ) from None


def _name(collection: str) -> str:
    """Letters, digits and "_" are all that Milvus takes; different names stay different."""
    return "c_" + "".join(
        each if each.isascii() and each.isalnum() else f"_{each.encode().hex()}_" for each in collection
    )


def _check_terms(weights: Mapping[int, float]) -> None:
    if weights and max(weights) >= _NO_TERMS:
        raise MeshError(Reason.REQUEST_INVALID, f"terms: expected numbers below {_NO_TERMS} for Milvus")


def _row(entry: Entry, vector: list[float]) -> dict[str, Any]:
    row: dict[str, Any] = {_ID: entry.id.hex(), _DENSE: vector, _GROUP: entry.group}
    row[_TERMS] = dict(entry.terms) or {_NO_TERMS: 1.0}
    for name in FILTER_FIELDS:
        row[_FIELD + name] = [_digest(value) for value in entry.fields.get(name, ())]
    return row


def _filter(where: Where) -> str:
    groups = ", ".join(str(group) for group in sorted(where.groups))
    conditions = [f"{_GROUP} in [{groups}]"]
    for name, values in sorted(where.fields.items()):
        listed = ", ".join(f'"{_digest(value)}"' for value in sorted(values))
        conditions.append(f"array_contains_any({_FIELD}{name}, [{listed}])")
    return " and ".join(conditions)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
