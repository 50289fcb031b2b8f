"""Answers where the data is: from passages that may be read for this requester, and no others (I1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import AnswerSentence, ReleaseLevel
from mesh.core.shards import Answered
from mesh.telemetry.base import Silent
from node.engine.scripted import Script, ScriptedEngine
from node.retrieval.budgets import BudgetLimits
from tests.support.retrieval import HOLDER, SPEC, Shelf, shelf

COUNT, REFERENCE = ReleaseLevel.COUNT, ReleaseLevel.REFERENCE
SNIPPET, PASSAGE = ReleaseLevel.SNIPPET, ReleaseLevel.PASSAGE
OPENS = "The pharmacy of Larkfield opens at 7 on weekdays."
CALLS = "Mr Karl Oppermann keeps the key of the pharmacy. Reach him at karl@example.org."


def fill(here: Shelf) -> None:
    here.put("d1", OPENS, owner="open")
    here.put("d2", CALLS, owner="closed")
    here.put("d3", "The canteen serves soup.", owner="open")


async def engine_that_says(*words: str) -> ScriptedEngine:
    engine = ScriptedEngine(script=Script(words=words))
    await engine.start()
    return engine


async def test_without_a_model_the_answer_is_a_sentence_of_a_passage(tmp_path: Path):
    with shelf(tmp_path) as here:
        fill(here)
        found = await here.holder.respond(here.to_answer("When does the pharmacy open?"))
    [sentence], end = found.sentences, found.answered
    assert isinstance(sentence, AnswerSentence)
    assert (sentence.text, sentence.extracted, sentence.level) == (OPENS, True, PASSAGE)
    [reference] = sentence.references
    assert (reference.node, reference.collection) == (HOLDER, SPEC.name)
    assert 0 < sentence.score <= 1
    assert end == Answered(PASSAGE, 0, False, 1)


async def test_a_grounded_sentence_is_believed_and_an_invented_one_is_not(tmp_path: Path):
    engine = await engine_that_says("It opens at 7", " [1]. ", "It closes at 9", " [1].")
    with shelf(tmp_path, engine=engine) as here:
        here.put("d1", OPENS)
        found = await here.holder.respond(here.to_answer("When does the pharmacy open?"))
    assert [(s.text, s.extracted) for s in found.sentences] == [("It opens at 7.", False)]
    assert found.answered.charged == 1


class Told(Silent):
    """What an observer hears of generations."""

    def __init__(self) -> None:
        self.firsts = 0
        self.tokens: list[tuple[int, int]] = []

    def first_token(self, seconds: float) -> None:
        self.firsts += 1

    def generated(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.tokens.append((prompt_tokens, completion_tokens))


async def test_its_tokens_are_counted_like_those_of_any_generation(tmp_path: Path):
    engine, told = await engine_that_says("It opens at 7", " [1]."), Told()
    with shelf(tmp_path, engine=engine, observer=told) as here:
        here.put("d1", OPENS)
        await here.holder.respond(here.to_answer("When does the pharmacy open?"))
    [(prompt, completion)] = told.tokens
    assert prompt > 0
    assert completion > 0
    assert told.firsts == 1


async def test_what_may_not_be_read_is_in_no_prompt(tmp_path: Path):
    """I1: below snippets nothing; at snippets, without personal data."""
    engine = await engine_that_says("Not stated.")
    with shelf(tmp_path, engine=engine) as here:
        fill(here)
        question = here.to_answer("Who keeps the key of the pharmacy?")
        here.rules.set(PASSAGE, closed=REFERENCE)
        await here.holder.respond(question)
        here.rules.set(PASSAGE, closed=SNIPPET)
        await here.holder.respond(question)
        here.rules.set(REFERENCE)
        found = await here.holder.respond(question)
    first, second = ("\n".join(m.content for m in prompt.messages) for prompt in engine.prompts)
    assert "key" not in first.partition("Question:")[0]
    assert "key" in second.partition("Question:")[0]
    assert not any(word in first + second for word in ("Oppermann", "karl@example.org"))
    assert engine.seen == 2
    assert (found.sentences, found.answered.highest) == ((), REFERENCE)


async def test_a_snippets_sentence_is_redacted_and_marked(tmp_path: Path):
    with shelf(tmp_path) as here:
        fill(here)
        here.rules.set(SNIPPET)
        found = await here.holder.respond(here.to_answer("Who keeps the key of the pharmacy?"))
    [sentence] = found.sentences
    assert sentence.level is SNIPPET
    assert "key" in sentence.text
    assert "Oppermann" not in sentence.text


async def test_a_sentence_has_the_lowest_level_of_what_it_cites(tmp_path: Path):
    engine = await engine_that_says("The pharmacy opens", " [1][2].")
    with shelf(tmp_path, engine=engine) as here:
        here.put("d1", "The pharmacy opens early.", owner="open")
        here.put("d2", "The pharmacy opens late.", owner="closed")
        here.rules.set(PASSAGE, closed=SNIPPET)
        found = await here.holder.respond(here.to_answer("When does the pharmacy open?"))
    [sentence] = found.sentences
    assert (sentence.level, len(sentence.references)) == (SNIPPET, 2)
    assert found.answered.charged == 2


async def test_what_may_only_be_counted_is_counted(tmp_path: Path):
    with shelf(tmp_path) as here:
        fill(here)
        here.rules.set(COUNT)
        found = await here.holder.respond(here.to_answer("Where is the pharmacy?"))
    assert found.sentences == ()
    assert found.answered == Answered(COUNT, 2, False, 0)


async def test_a_model_that_fails_costs_no_answer(tmp_path: Path):
    engine = await engine_that_says("It opens at 7", " [1].")
    engine.script.fail_after_tokens = 0
    with shelf(tmp_path, engine=engine) as here:
        here.put("d1", OPENS)
        found = await here.holder.respond(here.to_answer("When does the pharmacy open?"))
    assert [s.extracted for s in found.sentences] == [True]


async def test_a_policy_withdrawn_while_the_model_writes_ends_the_answer(tmp_path: Path):
    engine = await engine_that_says("It opens at 7", " [1].")
    with shelf(tmp_path, engine=engine) as here:
        here.put("d1", OPENS)

        def withdraw(asked: int) -> None:
            if engine.seen:
                here.rules.set(REFERENCE)

        here.rules.at_question = withdraw
        with pytest.raises(MeshError) as caught:
            await here.holder.respond(here.to_answer("When does the pharmacy open?"))
    assert caught.value.reason is Reason.RELEASE_DENIED


async def test_an_answer_is_charged_before_it_is_given(tmp_path: Path):
    with shelf(tmp_path, limits=BudgetLimits(passages_per_day=1)) as here:
        here.put("d1", OPENS)
        question = here.to_answer("When does the pharmacy open?")
        assert (await here.holder.respond(question)).sentences
        with pytest.raises(MeshError) as caught:
            await here.holder.respond(question)
        assert caught.value.reason is Reason.BUDGET_EXHAUSTED


async def test_an_empty_index_states_nothing(tmp_path: Path):
    with shelf(tmp_path) as here:
        found = await here.holder.respond(here.to_answer("When?"))
        assert found.answered == Answered(ReleaseLevel.NOTHING, 0, False, 0)
