"""What one node is asked on a client's behalf, and what it says: the nouns between asker and holder.

They are the same whether the holder is another node or the asker's own. A question's vector, terms and
text are payload (I1): they are in no `repr`. Bounds of what travels are mesh/codec's and
mesh/core/merging.py's to check.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.core.retrieval import Filters, Released, ReleaseLevel, ScoredId
from mesh.core.types import RequestContext, SpiffeId


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


@dataclass(frozen=True, slots=True)
class ShardAnswerQuestion:
    """A question to be answered from one node's own passages."""

    requester: SpiffeId
    context: RequestContext
    collection: str
    digest: str
    question: str = field(repr=False)
    filters: Filters = field(repr=False)


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
    by_vector: tuple[ScoredId, ...]
    counted: int
    counted_inexact: bool
    highest: ReleaseLevel
    approximate: bool


@dataclass(frozen=True, slots=True)
class ReleasedBatch:
    """What was released of what was asked for, and what it took of the requester's budget."""

    chunks: tuple[Released, ...]
    charged: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of one node's answer."""

    highest: ReleaseLevel
    counted: int
    counted_inexact: bool
    charged: int
