"""An answer from this node's own passages, by this node's own model.

It retrieves as one search of this node alone would (hybrid, by its own statistics), from documents of
which the requester may have at least snippets: a text below that level is never put into a prompt. What
is put there is cut to its level first: personal data that may not leave is not there to be repeated, and
so a model that mixes its passages up, or does what a passage tells it to, gives away nothing more.

What the model writes is believed only where a passage that it cites bears it out (reading.py). Without
a model that reads, or when it fails, the answer is a sentence of the passages, and marked so.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from mesh.core.errors import MeshError, Reason
from mesh.core.merging import Statistics, fuse, merge, weights_of
from mesh.core.retrieval import DEPTH, AnswerSentence, Reference, ReleaseLevel
from mesh.core.shards import Answered, ShardAnswerQuestion
from mesh.core.types import DataClass, SpiffeId, Task
from mesh.telemetry import span_attributes as names
from mesh.telemetry import spans
from mesh.telemetry.base import SILENT, EngineObserver
from mesh.telemetry.span_attributes import EventName, SpanName
from node.engine.base import Engine, EngineState, Piece, Prompt, Sampling
from node.index.analysis import Analyzer
from node.index.base import Where
from node.index.embedding import TextEmbedder
from node.index.index import DocumentIndex
from node.index.stored import StoredChunk
from node.retrieval.budgets import Budgets
from node.retrieval.open_shard import Run, coarse_count, count_matching
from node.retrieval.reading import (
    MAX_OUTPUT,
    Reading,
    Sentence,
    extract,
    grounded_only,
    parse_reading,
    reading_messages,
)
from node.retrieval.sight import Cutter, Sight

PASSAGES = 3
_SAMPLING = Sampling(max_tokens=256)  # greedy: the same question gets the same answer
# After these a sentence of the passages will do.
_WITHOUT_MODEL = frozenset(
    {Reason.ENGINE_UNAVAILABLE, Reason.ENGINE_FAILED, Reason.PROMPT_TOO_LONG, Reason.MODEL_UNKNOWN}
)


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """What this node says, charged; `sight` is what it went by, `classes` those of the documents cited."""

    sentences: tuple[AnswerSentence, ...]
    answered: Answered
    sight: Sight
    classes: frozenset[DataClass] = frozenset()


@dataclass(frozen=True, slots=True)
class _Passage:
    """A passage as the model may read it, with the cosine of question and chunk."""

    chunk: StoredChunk
    level: ReleaseLevel
    text: str
    score: float


class Responder:
    """Of one node. No engine: sentences of the passages. The `observer` is told of generations."""

    def __init__(
        self,
        node: SpiffeId,
        *,
        embedder: TextEmbedder,
        engine: Engine | None,
        budgets: Budgets,
        cutter: Cutter,
        observer: EngineObserver = SILENT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._observer = observer
        self._monotonic = monotonic
        self._embedder = embedder
        self._engine = engine
        self._budgets = budgets
        self._cutter = cutter

    async def respond(
        self,
        question: ShardAnswerQuestion,
        index: DocumentIndex,
        *,
        look: Callable[[], Awaitable[Sight]],
        run: Run,
        analyzer: Analyzer,
        threshold: int,
    ) -> LocalAnswer:
        """The answer, if the passages state one. BUDGET_EXHAUSTED, RELEASE_DENIED, INDEX_UNAVAILABLE."""
        counts = analyzer.query_terms(question.question)
        terms = tuple(counts)
        [vector] = await self._embedder.embed([question.question], question=True)
        sight = await look()

        def retrieve() -> tuple[list[_Passage], int]:
            fields = question.filters.fields
            counted = count_matching(index, terms, vector, Where(sight.counted(fields), fields))
            readable = sight.filtered(ReleaseLevel.SNIPPET, fields)
            if not readable:
                return [], counted
            where = Where(readable, fields)
            stats = Statistics(*index.statistics(terms, readable))
            by_vector = index.by_vector(vector, DEPTH, where)
            by_terms = index.by_terms(terms, weights_of(terms, counts, [stats]), DEPTH, where)
            best = fuse(merge({self._node: by_vector}, DEPTH), merge({self._node: by_terms}, DEPTH))[
                :PASSAGES
            ]
            cosines = {each.id: each.score for each in by_vector}
            chunks = index.chunks([each.id for each in best], readable)
            return [
                _Passage(
                    chunk,
                    (level := sight.levels[chunk.group]),
                    self._cutter.readable(chunk, level),
                    cosines.get(chunk.id, 0.0),
                )
                for each in best
                if (chunk := chunks.get(each.id)) is not None
            ], counted

        passages, counted = await run(retrieve)
        sight.require_current()
        reading, extracted = await self._read(question.question, [p.text for p in passages])
        matches = analyzer.matcher(terms)

        def cut() -> list[tuple[AnswerSentence, list[_Passage]]]:
            found = []
            for sentence in reading.sentences:
                cited = [passages[at] for at in sentence.passages]
                said = self._said(sentence, cited, extracted, question.collection, matches)
                if said.text.strip():
                    found.append((said, cited))
            return found

        said = await run(cut)
        cited = {passage.chunk.id for _, passages_of in said for passage in passages_of}
        sight.require_current()
        await self._budgets.charge(question.requester, len(cited))
        sight.require_current()
        count, inexact = coarse_count(counted, threshold)
        return LocalAnswer(
            tuple(sentence for sentence, _ in said),
            Answered(sight.highest, count, inexact, len(cited)),
            sight,
            frozenset[DataClass]().union(*(p.chunk.document.classes for _, found in said for p in found)),
        )

    def _said(
        self,
        sentence: Sentence,
        cited: Sequence[_Passage],
        extracted: bool,
        collection: str,
        matches: Callable[[str], bool],
    ) -> AnswerSentence:
        """At the lowest level of what it cites; a snippet's is redacted and no longer than a snippet."""
        level = min(passage.level for passage in cited)
        text = (
            sentence.text if level is ReleaseLevel.PASSAGE else self._cutter.snippet(sentence.text, matches)
        )
        references = tuple(Reference(self._node, collection, passage.chunk.id) for passage in cited)
        score = max(passage.score for passage in cited)
        # Good for an order. Exact cosines are for those who get the passages: see asker.py.
        told = score if level is ReleaseLevel.PASSAGE else round(score, 1)
        return AnswerSentence(text, references, level, extracted, told)

    async def _read(self, question: str, passages: Sequence[str]) -> tuple[Reading, bool]:
        """What the passages state, and whether it is a sentence of theirs."""
        if not passages:
            return Reading(), False
        if self._engine is not None and self._engine.state is EngineState.READY:
            try:
                output = await self._generate(self._engine, question, passages)
                return grounded_only(parse_reading(output, len(passages)), passages), False
            except MeshError as error:
                if error.reason not in _WITHOUT_MODEL:
                    raise
        return extract(question, passages), True

    async def _generate(self, engine: Engine, question: str, passages: Sequence[str]) -> str:
        model = next((each.name for each in engine.models if Task.GENERATE in each.tasks), None)
        if model is None:
            raise MeshError(Reason.MODEL_UNKNOWN, "this node has no model that generates")
        prompt = Prompt(messages=reading_messages(question, passages))
        output, tokens, prompt_tokens = "", 0, 0
        about = names.of_generation(SpanName.CHAT, model, _SAMPLING.max_tokens)
        asked = self._monotonic()
        with spans.span(SpanName.CHAT, spans.Kind.CLIENT, about) as span:
            pieces = cast("AsyncGenerator[Piece, None]", engine.generate(model, prompt, _SAMPLING))
            try:
                async with aclosing(pieces):
                    async for piece in pieces:
                        if not tokens and piece.tokens:
                            self._observer.first_token(self._monotonic() - asked)
                            span.event(EventName.FIRST_TOKEN)
                        output += piece.text
                        tokens += piece.tokens
                        if piece.finish is not None:
                            prompt_tokens = piece.prompt_tokens
                            break
                        if len(output) > MAX_OUTPUT:
                            break
            finally:
                self._observer.generated(prompt_tokens, tokens)
            span.set({names.OUTPUT_TOKENS: tokens})
        return output
