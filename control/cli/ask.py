"""`meshctl ask`: an answer made where the documents are, sentence by sentence, with its citations."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any

import typer

from control.cli.context_options import (
    BasisOption,
    ClassOption,
    OnlyInOption,
    PurposeOption,
    RequireOption,
    context_of,
)
from control.cli.coverage_view import citations, cited, coverage_json, coverage_text, nobody_answered
from control.cli.decision_view import decision_json
from control.cli.output import Output, OutputOption, console, emit_json, harmless, progress
from control.cli.prompt import read_prompt
from control.cli.receipts import ReceiptOption, answered, keep, require_new
from control.cli.retrieval_options import CollectionArgument, FilterOption, QuestionArgument, filters_of
from control.cli.session import ProfileOption, act, open_client
from mesh.core.errors import MeshError
from mesh.core.placement import Decision
from mesh.core.questions import ANSWER_TIMEOUT_S, AnswerEvent, AnswerResult, NodeDone, SearchDecided
from mesh.core.retrieval import AnswerSentence, Reference


def ask(
    collection: CollectionArgument,
    question: QuestionArgument,
    data_class: ClassOption,
    purpose: PurposeOption,
    filters: FilterOption = None,
    transfer_basis: BasisOption = "",
    only_in: OnlyInOption = None,
    require: RequireOption = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for all of it.")] = ANSWER_TIMEOUT_S,
    receipt: ReceiptOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask a collection. Every node answers from its own passages. Exit code 3 if policies leave none.

    Sentences stream to stdout as nodes give them; --output json gives one event a line.
    """
    context = context_of(data_class, purpose, transfer_basis, only_in, require)
    asked, fields = read_prompt(question), filters_of(filters)
    require_new(receipt)
    waiting = contextlib.ExitStack()
    show = _Show()

    async def work() -> MeshError | None:
        failure: MeshError | None = None
        decision: Decision | None = None
        async with (
            open_client(profile) as client,
            aclosing(
                client.answer(asked, collection, context=context, filters=fields, timeout_s=timeout)
            ) as events,
        ):
            async for event in events:
                if output is Output.JSON:
                    emit_json(answer_json(event))
                else:
                    if not isinstance(event, SearchDecided | NodeDone):
                        waiting.close()
                    show(event)
                if isinstance(event, SearchDecided):
                    decision = event.decision
                elif isinstance(event, AnswerResult):
                    failure = nobody_answered(event.coverage)
                    await keep(client, receipt, decision, answered(event.coverage))
        return failure

    with waiting:
        waiting.enter_context(progress("waiting for the first sentence", output))
        failure = act(work(), Output.JSON)  # the progress is shown here, until text comes
    if failure is not None:
        raise failure


class _Show:
    """Prints an answer for people: sentences as they come, at the end what they rest on."""

    def __init__(self) -> None:
        self._numbers: dict[Reference, int] = {}
        self._told: list[AnswerSentence] = []

    def __call__(self, event: AnswerEvent) -> None:
        if isinstance(event, AnswerSentence):
            self._told.append(event)
            sys.stdout.write(harmless(cited(event, self._numbers)) + "\n")
            sys.stdout.flush()
        elif isinstance(event, AnswerResult):
            self._finish(event)

    def _finish(self, result: AnswerResult) -> None:
        target = console()
        if not result.sentences:
            target.print("no node's passages state it")
        elif taken_back(self._told, result.sentences):
            # Some node failed after it had begun to answer.
            target.print("\nSome sentences above are not part of the answer, which is:")
            for sentence in result.sentences:
                target.print(harmless(cited(sentence, self._numbers)))
        shown = citations(result.sentences).keys()
        if shown:
            target.print("")
        for reference, number in self._numbers.items():
            if reference in shown:
                target.print(f"[{number}] {reference}")
        target.print("")
        for part in coverage_text(result.coverage, result.complete):
            target.print(part)


def taken_back(told: Sequence[AnswerSentence], kept: Sequence[AnswerSentence]) -> bool:
    """Whether something that was told is not in the answer; a sentence said twice is in it once."""
    references = {reference for sentence in kept for reference in sentence.references}
    return any(not references.issuperset(sentence.references) for sentence in told)


def answer_json(event: AnswerEvent) -> dict[str, Any]:
    """An event for programs."""
    if isinstance(event, SearchDecided):
        return {"event": "decided", "decision": decision_json(event.decision)}
    if isinstance(event, AnswerSentence):
        return {"event": "sentence", **_sentence_json(event)}
    if isinstance(event, NodeDone):
        return {"event": "node", **coverage_json(event.node)}
    return {
        "event": "result",
        "sentences": [_sentence_json(sentence) for sentence in event.sentences],
        "coverage": [coverage_json(node) for node in event.coverage],
        "complete": event.complete,
    }


def _sentence_json(sentence: AnswerSentence) -> dict[str, Any]:
    return {
        "text": sentence.text,
        "references": [str(reference) for reference in sentence.references],
        "level": sentence.level.word,
        "extracted": sentence.extracted,
        "score": sentence.score,
    }
