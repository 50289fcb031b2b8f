"""One collection on a Qdrant server or cluster, through qdrant-client.

Writes wait until they can be read back, and Qdrant writes its log before it answers, so there is nothing
left to flush. The same goes here as for the embedded Qdrant (qdrant_edge.py): payload indexes are made
before the first point, filters go inside the search, and no weight is changed on the store's side.

Tried against the client's local mode only, which looks at every point and knows no payload indexes; a
server has not been available to test with.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from mesh.core.errors import MeshError, Reason
from node.index import ties
from node.index.base import FILTER_FIELDS, Entry, Scored, Where
from node.index.checks import (
    admits_nothing,
    check_batch,
    check_depth,
    check_question,
    check_weights,
    check_where,
)

_DENSE, _TERMS, _GROUP = "dense", "terms", "group"
_AT_ONCE = 256  # points in one request: about 1 MB
_T = TypeVar("_T")


class QdrantClusterStore:
    """A VectorStore on a server. `client` brings address, credentials and timeout, and is closed with it.

    The collection is made if it is missing. Raises INDEX_UNAVAILABLE if it cannot be reached, or holds
    vectors of another length.
    """

    def __init__(self, client: QdrantClient, collection: str, dimensions: int) -> None:
        self._client, self._collection, self._dimensions = client, collection, dimensions
        self._ask(self._ensure)

    def apply(self, upserts: Sequence[Entry], deletes: Sequence[bytes]) -> None:
        """Writes and removes, waiting until the next search sees it."""
        batch = check_batch(upserts, deletes, self._dimensions)
        for start in range(0, len(batch.deletes), _AT_ONCE):
            gone: list[Any] = [str(UUID(bytes=each)) for each in batch.deletes[start : start + _AT_ONCE]]
            self._ask(partial(self._client.delete, self._collection, gone, wait=True))
        for start in range(0, len(batch.entries), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            points = [
                _point(entry, vector.tolist())
                for entry, vector in zip(batch.entries[part], batch.vectors[part], strict=True)
            ]
            self._ask(partial(self._client.upsert, self._collection, points, wait=True))

    def by_vector(
        self, vector: Sequence[float], depth: int, where: Where, *, exact: bool = False
    ) -> list[Scored]:
        """The nearest by cosine."""
        question = check_question(vector, depth, where, self._dimensions).tolist()
        return self._query(question, _DENSE, depth, where, models.SearchParams(exact=exact))

    def by_terms(self, weights: Mapping[int, float], depth: int, where: Where) -> list[Scored]:
        """The highest sums of weight x weight."""
        check_weights(weights)
        check_depth(depth)
        check_where(where)
        if not weights:
            return []
        found = self._query(_sparse(weights), _TERMS, depth, where, None)
        return [each for each in found if each.score > 0]

    def flush(self) -> None:
        """Every write was in the server's log before it was answered."""

    def count(self) -> int:
        """How many chunks it holds."""
        return self._ask(lambda: self._client.count(self._collection, exact=True).count)

    def optimize(self) -> None:
        """The server does that by itself."""

    def clear(self) -> None:
        """Removes everything."""

        def again() -> None:
            self._client.delete_collection(self._collection)
            self._ensure()

        self._ask(again)

    def close(self) -> None:
        """Closes the client."""
        self._ask(self._client.close)

    def _query(
        self, question: Any, using: str, depth: int, where: Where, params: models.SearchParams | None
    ) -> list[Scored]:
        if depth == 0 or admits_nothing(where):
            return []
        condition = _filter(where)

        def ask(limit: int) -> list[Scored]:
            found = self._ask(
                lambda: (
                    self._client.query_points(
                        self._collection,
                        query=question,
                        using=using,
                        query_filter=condition,
                        search_params=params,
                        limit=limit,
                        with_payload=False,
                    ).points
                )
            )
            return [Scored(UUID(str(point.id)).bytes, float(point.score)) for point in found]

        return ties.best(ask, depth)

    def _ensure(self) -> None:
        if not self._client.collection_exists(self._collection):
            self._client.create_collection(
                self._collection,
                vectors_config={
                    _DENSE: models.VectorParams(size=self._dimensions, distance=models.Distance.COSINE)
                },
                sparse_vectors_config={_TERMS: models.SparseVectorParams()},
            )
        else:
            params = self._client.get_collection(self._collection).config.params
            vectors, sparse = params.vectors, params.sparse_vectors
            dense = vectors.get(_DENSE) if isinstance(vectors, dict) else None
            kind = (dense.size, dense.distance) if dense is not None else None
            if kind != (self._dimensions, models.Distance.COSINE) or _TERMS not in (sparse or {}):
                raise MeshError(Reason.INDEX_UNAVAILABLE, "store: expected a collection of our own making")
        # Also after a start that was cut short: making one that is there changes nothing.
        for name in sorted(FILTER_FIELDS):
            self._client.create_payload_index(self._collection, name, models.PayloadSchemaType.KEYWORD)
        self._client.create_payload_index(self._collection, _GROUP, models.PayloadSchemaType.INTEGER)

    def _ask(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except (ApiException, UnexpectedResponse, httpx.HTTPError, OSError, RuntimeError, ValueError):
            # Without the cause: a server's answer may repeat what it was sent (I1).
            raise MeshError(
                Reason.INDEX_UNAVAILABLE, "store: expected the Qdrant server to answer in time"
            ) from None


def connect(
    url: str, api_key: str | None, ca: Path | None, timeout_s: float, collection: str, dimensions: int
) -> QdrantClusterStore:
    """A store on the server at `url`; `ca` replaces the system's trust roots."""
    try:
        trust = ssl.create_default_context(cafile=ca)
    except OSError as error:  # an SSLError is one
        raise MeshError(Reason.CONFIG_INVALID, "store.ca_file: expected certificates") from error
    trust.minimum_version = ssl.TLSVersion.TLSv1_3
    client = QdrantClient(
        url=url,
        port=None,  # the URL says it
        api_key=api_key,
        timeout=max(1, round(timeout_s)),
        check_compatibility=False,  # it would ask before anybody can catch a failure
        verify=trust,
        trust_env=False,  # no proxy that happens to be in the environment is given vectors to read
    )
    return QdrantClusterStore(client, collection, dimensions)


def _point(entry: Entry, vector: list[float]) -> models.PointStruct:
    vectors: dict[str, Any] = {_DENSE: vector}
    if entry.terms:
        vectors[_TERMS] = _sparse(entry.terms)
    payload = {_GROUP: entry.group, **{name: list(values) for name, values in entry.fields.items()}}
    return models.PointStruct(id=str(UUID(bytes=entry.id)), vector=vectors, payload=payload)


def _sparse(weights: Mapping[int, float]) -> models.SparseVector:
    return models.SparseVector(indices=list(weights), values=list(weights.values()))


def _filter(where: Where) -> models.Filter:
    groups = models.FieldCondition(key=_GROUP, match=models.MatchAny(any=sorted(where.groups)))
    fields = [
        models.FieldCondition(key=name, match=models.MatchAny(any=sorted(values)))
        for name, values in where.fields.items()
    ]
    return models.Filter(must=[groups, *fields])
