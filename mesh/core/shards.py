"""What one node is asked on a client's behalf, and what it says: the nouns between asker and holder.

They are the same whether the holder is another node or the asker's own. A question that exists keeps
every bound of retrieval.proto: constructors validate and raise REQUEST_INVALID, whether it came from the
wire or from this very process. A question's vector, terms and text, and what is released, are payload
(I1): they are in no `repr` and in no error. What a peer answers is mesh/core/merging.py's to check.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import (
    DEPTH,
    ID_BYTES,
    MAX_K,
    MAX_QUESTION_BYTES,
    MAX_TERM_BYTES,
    MAX_TERMS,
    Filters,
    Released,
    ReleaseLevel,
    ScoredId,
    require_collection_name,
    require_text,
)
from mesh.core.types import DataClass, RequestContext, SpiffeId

MAX_SHARD_REQUEST_BYTES = 64 * 1024
MAX_DIMENSIONS = 8192
# An asker weighs again when a node has dropped out, and a release is for the final hits only. What is
# beyond that is not a search that goes on but somebody trying one weight after the other.
MAX_WEIGHS = 8
MAX_RELEASES = 2
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ShardQuestion:
    """A search of one node's index. `digest` is CollectionSpec.digest.

    `vector` is float32 values of unit length, empty if not wanted; `terms` distinct and sorted, empty if
    not wanted; `depth` how many of each ranking, 1 to 100.
    """

    requester: SpiffeId
    context: RequestContext
    collection: str
    digest: str
    vector: tuple[float, ...] = field(repr=False)
    terms: tuple[str, ...] = field(repr=False)
    filters: Filters = field(repr=False)
    depth: int
    exact: bool = False

    def __post_init__(self) -> None:
        require_collection_name(self.collection)
        if self.vector:
            _require_vector(self.vector)
        _require_terms(self.terms)
        if not 1 <= self.depth <= DEPTH:
            raise _invalid(f"depth: expected 1 to {DEPTH}")


@dataclass(frozen=True, slots=True)
class ShardAnswerQuestion:
    """A question to be answered from one node's own passages."""

    requester: SpiffeId
    context: RequestContext
    collection: str
    digest: str
    question: str = field(repr=False)
    filters: Filters = field(repr=False)

    def __post_init__(self) -> None:
        require_collection_name(self.collection)
        require_text("question", self.question, MAX_QUESTION_BYTES)


@dataclass(frozen=True, slots=True)
class Opened:
    """Statistics over the chunks that the requester may see references of, and the vector ranking.

    `frequencies` are in the order of the question's terms; `counted` is how many matching chunks may only
    be counted, `counted_inexact` that this is a lower bound or was withheld; `highest` the most that any
    document may release to the requester.
    """

    documents: int
    frequencies: tuple[int, ...]
    frequencies_withheld: bool
    by_vector: tuple[ScoredId, ...] = field(repr=False)
    counted: int
    counted_inexact: bool
    highest: ReleaseLevel
    approximate: bool


@dataclass(frozen=True, slots=True)
class ReleasedBatch:
    """What was released of what was asked for, and what it took of the requester's budget.

    `classes` are those of the documents, all together: for the holder's evidence, and not told to the asker.
    """

    chunks: tuple[Released, ...] = field(repr=False)
    charged: int
    classes: frozenset[DataClass] = frozenset()


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of one node's answer."""

    highest: ReleaseLevel
    counted: int
    counted_inexact: bool
    charged: int


def require_weights(weights: tuple[float, ...], terms: int) -> None:
    """Raises REQUEST_INVALID unless they are as many as the terms, finite, 0 or more."""
    if len(weights) != terms:
        raise _invalid("weights: expected one for each term of the question")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise _invalid("weights: expected finite numbers, 0 or more")


def require_release(ids: tuple[bytes, ...], level: ReleaseLevel) -> None:
    """Raises REQUEST_INVALID unless these are at most 100 distinct ids, and a level to release at."""
    if len(ids) > MAX_K or len(set(ids)) != len(ids):
        raise _invalid(f"ids: expected at most {MAX_K}, each once")
    for each in ids:
        require_id(each)
    if level < ReleaseLevel.REFERENCE:
        raise _invalid("level: expected reference, snippet or passage")


def require_id(chunk: bytes) -> None:
    """Raises REQUEST_INVALID unless it has the length of an id."""
    if len(chunk) != ID_BYTES:
        raise _invalid(f"id: expected {ID_BYTES} bytes")


def _require_vector(vector: tuple[float, ...]) -> None:
    # Not more than 2: so that no sum of squares leaves what a float can hold. Written so that NaN fails.
    if len(vector) > MAX_DIMENSIONS or not all(abs(value) <= 2 for value in vector):
        raise _invalid(f"vector: expected at most {MAX_DIMENSIONS} finite numbers, of unit length")
    if abs(math.sqrt(math.fsum(value * value for value in vector)) - 1) > UNIT_TOLERANCE:
        raise _invalid("vector: expected one of unit length")


def _require_terms(terms: tuple[str, ...]) -> None:
    if len(terms) > MAX_TERMS:
        raise _invalid(f"terms: expected at most {MAX_TERMS}")
    for term in terms:
        # Printable first: half of a surrogate pair is not, and cannot be encoded.
        if not term or not term.isprintable() or len(term.encode()) > MAX_TERM_BYTES:
            raise _invalid(f"terms: expected each of 1 to {MAX_TERM_BYTES} printable bytes")
    if any(one >= two for one, two in itertools.pairwise(terms)):
        raise _invalid("terms: expected them sorted, each once")


def _invalid(message: str) -> MeshError:
    return MeshError(Reason.REQUEST_INVALID, message)
