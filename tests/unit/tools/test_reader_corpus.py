"""The reader's corpus: the same every time, answers that are there, and halves that do not meet."""

import re

import pytest

from node.retrieval.reading import Reading, Sentence, grounded_only, parse_reading
from tools.reader.corpus import NOT_STATED, Generator, Sample, Shape
from tools.reader.facts import ATTRIBUTES, GENERAL_QUESTIONS, GENERAL_STATEMENTS, Pair
from tools.reader.words import Halves, Maker, held_out

SHAPE = Shape((1, 2, 3), (15, 60), 6)
ALL = Halves(names=True, numbers=True, templates=True)


def samples(seed: str, halves: Halves, count: int = 40) -> list[Sample]:
    generator = Generator(seed, halves)
    return [generator.sample(SHAPE) for _ in range(count)]


@pytest.mark.parametrize("halves", [Halves(), ALL])
def test_a_seed_gives_the_same_corpus(halves: Halves) -> None:
    assert samples("a", halves, 10) == samples("a", halves, 10)
    assert samples("a", halves, 10) != samples("b", halves, 10)


@pytest.mark.parametrize("halves", [Halves(), ALL])
def test_an_answer_is_a_sentence_of_the_passage_that_it_cites(halves: Halves) -> None:
    for sample in samples("answers", halves):
        for question in sample.questions:
            reading = parse_reading(question.answer, len(sample.passages))
            if question.passage is None:
                assert question.answer == NOT_STATED
                assert reading == Reading()
                continue
            text = question.answer.rpartition(" [")[0]
            assert reading == Reading((Sentence(text, (question.passage,)),))
            assert text in sample.passages[question.passage]
            assert question.fact.casefold() in text.casefold()
            assert grounded_only(reading, sample.passages) == reading


def test_a_quarter_of_the_questions_has_no_answer() -> None:
    questions = [question for sample in samples("share", Halves(), 120) for question in sample.questions]
    silent = sum(question.passage is None for question in questions)
    assert 0.2 < silent / len(questions) < 0.32


def pairs() -> list[Pair]:
    special = [pair for attribute in ATTRIBUTES for pair in (attribute.statements, attribute.questions)]
    return [GENERAL_STATEMENTS, GENERAL_QUESTIONS, *special]


def test_held_out_templates_are_no_templates_of_training() -> None:
    for seen, unseen in pairs():
        assert seen
        assert unseen
    seen_anywhere = {template for pair in pairs() for template in pair[0]}
    assert not seen_anywhere & {template for pair in pairs() for template in pair[1]}


@pytest.mark.parametrize("unseen", [False, True])
def test_names_and_numbers_come_from_their_half(unseen: bool) -> None:
    generator = Generator("halves", Halves(names=unseen, numbers=unseen))
    make = Maker(generator.rng, generator.halves)
    for _ in range(60):
        word = make.name_word()
        assert held_out(word) is unseen
        assert held_out(make.near(word)) is unseen
        assert held_out(make.first_name()) is unseen
        assert held_out(make.digits(4)) is unseen
        assert held_out(make.time()) is unseen
        assert held_out(make.date()) is unseen


def test_numbers_of_every_length_occur() -> None:
    text = " ".join(passage for sample in samples("lengths", Halves(), 80) for passage in sample.passages)
    lengths = {len(number) for number in re.findall("[0-9]+", text)}
    assert {1, 2, 3, 4, 5, 6} <= lengths
