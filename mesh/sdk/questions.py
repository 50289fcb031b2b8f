"""The questions that MeshClient takes: search, answer, fetch.

    async for event in mesh.search("who is on call?", "wards", context=context):
        if isinstance(event, SearchResult):
            for hit in event.hits: ...

Words become values here, checked before anything is placed. How questions travel is retrieval.py's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from mesh.core.errors import MeshError, Reason
from mesh.core.questions import (
    ANSWER_TIMEOUT_S,
    DEFAULT_K,
    SEARCH_TIMEOUT_S,
    AnswerEvent,
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    SearchEvent,
    SearchQuestion,
    SearchResult,
)
from mesh.core.retrieval import Filters, Hit, Reference, ReleaseLevel, SearchMode, parse_level
from mesh.core.types import RequestContext
from mesh.sdk.retrieval import Retrievals

# For each field, one value or several of which a document must have one.
FilterWords = Mapping[str, str | Iterable[str]]


class Questions:
    """The part of MeshClient that asks collections."""

    def _retrieval(self) -> Retrievals:
        raise NotImplementedError

    def search(
        self,
        query: str,
        collection: str,
        *,
        context: RequestContext,
        k: int = DEFAULT_K,
        mode: SearchMode | str = SearchMode.HYBRID,
        filters: FilterWords | None = None,
        level: ReleaseLevel | str = ReleaseLevel.REFERENCE,
        partial: bool = False,
        timeout_s: float = SEARCH_TIMEOUT_S,
        exact: bool = False,
    ) -> AsyncGenerator[SearchEvent, None]:
        """The best `k` chunks over every node that may be asked, ranked as one central index would.

        Yields SearchDecided, with `partial` a Partial for each node that answers, and SearchResult last;
        what its coverage lacks is not in it. `mode`: vector, keyword or hybrid. `level`: at most so much
        of each hit; more is charged to a budget. Raises REQUEST_INVALID, FILTER_UNKNOWN, PlacementRefused
        or, if no node of ours can ask, what the last one said.
        """
        question = SearchQuestion(
            collection, query, k, _mode(mode), _filters(filters), _level(level), partial, timeout_s, exact
        )
        return self._retrieval().search(question, context)

    def answer(
        self,
        question: str,
        collection: str,
        *,
        context: RequestContext,
        filters: FilterWords | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """An answer that every permitted node derives from its own passages.

        Yields SearchDecided, AnswerSentence as they come, NodeDone for each node, and AnswerResult last.
        Only what AnswerResult holds is the answer: a sentence of a node that failed afterwards is not in
        it. Raises like `search`.
        """
        asked = AnswerQuestion(collection, question, _filters(filters), timeout_s)
        return self._retrieval().answer(asked, context)

    async def fetch(
        self,
        reference: Reference | str,
        *,
        context: RequestContext,
        level: ReleaseLevel | str = ReleaseLevel.PASSAGE,
        timeout_s: float = SEARCH_TIMEOUT_S,
    ) -> Hit:
        """One passage, by the reference of a hit; whether it may leave its node is decided anew.

        Raises like `search`, and the refusal of the reference's node, REFERENCE_UNKNOWN, RELEASE_DENIED
        or BUDGET_EXHAUSTED.
        """
        parsed = Reference.parse(reference) if isinstance(reference, str) else reference
        return await self._retrieval().fetch(FetchQuestion(parsed, _level(level), timeout_s), context)


async def collect_search(stream: AsyncGenerator[SearchEvent, None]) -> SearchResult:
    """Reads a search to its end."""
    async with aclosing(stream) as events:
        async for event in events:
            if isinstance(event, SearchResult):
                return event
    raise MeshError(Reason.INTERNAL, "the search ended without a result")


async def collect_answer(stream: AsyncGenerator[AnswerEvent, None]) -> AnswerResult:
    """Reads an answer to its end."""
    async with aclosing(stream) as events:
        async for event in events:
            if isinstance(event, AnswerResult):
                return event
    raise MeshError(Reason.INTERNAL, "the answer ended without a result")


def _mode(mode: SearchMode | str) -> SearchMode:
    try:
        return SearchMode(mode)
    except ValueError:
        known = ", ".join(SearchMode)
        raise MeshError(Reason.REQUEST_INVALID, f"mode: expected one of {known}") from None


def _level(level: ReleaseLevel | str) -> ReleaseLevel:
    return parse_level(level) if isinstance(level, str) else level


def _filters(filters: FilterWords | None) -> Filters:
    return Filters(
        {
            name: frozenset([values] if isinstance(values, str) else values)
            for name, values in (filters or {}).items()
        }
    )
