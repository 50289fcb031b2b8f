"""What a client asks of retrieval and what it is told, as immutable values.

A question that exists keeps every bound of retrieval.proto: constructors validate and raise MeshError
(REQUEST_INVALID, FILTER_UNKNOWN), whether it came from a program, from a command line or from the wire.
Times are seconds. A question's text is payload (I1): it is in no `repr` and in no error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import (
    MAX_K,
    MAX_QUERY_BYTES,
    MAX_QUESTION_BYTES,
    AnswerSentence,
    Coverage,
    Filters,
    Hit,
    Outcome,
    Reference,
    ReleaseLevel,
    SearchMode,
    require_collection_name,
    require_text,
)

DEFAULT_K = 10
MIN_TIMEOUT_S = 0.05
SEARCH_TIMEOUT_S, MAX_SEARCH_TIMEOUT_S = 5.0, 60.0
ANSWER_TIMEOUT_S, MAX_ANSWER_TIMEOUT_S = 60.0, 300.0


@dataclass(frozen=True, slots=True)
class SearchQuestion:
    """Find the best `k` chunks of a collection, wherever they are."""

    collection: str
    query: str = field(repr=False)
    k: int = DEFAULT_K
    mode: SearchMode = SearchMode.HYBRID
    filters: Filters = field(default_factory=Filters, repr=False)
    level: ReleaseLevel = ReleaseLevel.REFERENCE
    partial: bool = False
    timeout_s: float = SEARCH_TIMEOUT_S
    exact: bool = False

    def __post_init__(self) -> None:
        require_collection_name(self.collection)
        require_text("query", self.query, MAX_QUERY_BYTES)
        if not 1 <= self.k <= MAX_K:
            raise MeshError(Reason.REQUEST_INVALID, f"k: expected 1 to {MAX_K}")
        _require_level(self.level)
        _require_timeout(self.timeout_s, MAX_SEARCH_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """Answer a question from a collection, where its documents are."""

    collection: str
    question: str = field(repr=False)
    filters: Filters = field(default_factory=Filters, repr=False)
    timeout_s: float = ANSWER_TIMEOUT_S

    def __post_init__(self) -> None:
        require_collection_name(self.collection)
        require_text("question", self.question, MAX_QUESTION_BYTES)
        _require_timeout(self.timeout_s, MAX_ANSWER_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class FetchQuestion:
    """One passage, by the reference that a search gave."""

    reference: Reference
    level: ReleaseLevel = ReleaseLevel.PASSAGE
    timeout_s: float = SEARCH_TIMEOUT_S

    def __post_init__(self) -> None:
        _require_level(self.level)
        _require_timeout(self.timeout_s, MAX_SEARCH_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class SearchDecided:
    """First: which nodes are asked and which are not. Comes before anything left the asker's node."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Partial:
    """One node has answered. Provisional: ranks and scores may change with the next answer."""

    hits: tuple[Hit, ...]
    node: Coverage


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Last: the merged ranking, every node that holds the collection, whether all of them are in it."""

    hits: tuple[Hit, ...]
    coverage: tuple[Coverage, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class NodeDone:
    """One node's answer has come to its end, or failed."""

    node: Coverage


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """Last: the composed answer. Sentences of nodes that failed are not in it."""

    sentences: tuple[AnswerSentence, ...]
    coverage: tuple[Coverage, ...]
    complete: bool


SearchEvent = SearchDecided | Partial | SearchResult
AnswerEvent = SearchDecided | AnswerSentence | NodeDone | AnswerResult


def is_complete(coverage: Sequence[Coverage], holders: int) -> bool:
    """Whether every node that holds the collection answered; with no holder at all, nothing did."""
    answered = sum(node.outcome is Outcome.ANSWERED for node in coverage)
    return answered == holders > 0


def _require_level(level: ReleaseLevel) -> None:
    if level is ReleaseLevel.NOTHING:
        raise MeshError(Reason.REQUEST_INVALID, "level: expected count, reference, snippet or passage")


def _require_timeout(seconds: float, most: float) -> None:
    if not (math.isfinite(seconds) and MIN_TIMEOUT_S <= seconds <= most):
        raise MeshError(Reason.REQUEST_INVALID, f"timeout: expected {MIN_TIMEOUT_S:g} to {most:g} s")
