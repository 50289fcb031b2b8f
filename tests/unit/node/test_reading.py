"""What a node believes of a model's answer about passages."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.retrieval.reading import (
    MAX_CHARACTERS,
    MAX_SENTENCES,
    NOT_STATED,
    Reading,
    Sentence,
    extract,
    grounded,
    grounded_only,
    parse_reading,
    reading_messages,
)

STORE = (
    "The vaccine refrigerator stays cold for 5 hours at -18 °C. Dr. Odalie Fenn's code is KX-4471-B. "
    "The repair cost 1,250 euros."
)
TRAVEL = "The daily allowance for travel abroad is 46 euros. Trains are booked in second class."


def test_the_messages_number_the_passages_and_end_with_the_question() -> None:
    system, user = reading_messages("Who\nleads it?", ["One\n line", "Two"])
    assert system.role == "system"
    assert NOT_STATED in system.content
    assert user.role == "user"
    assert user.content == "[1] One line\n[2] Two\nQuestion: Who leads it?"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("The extension is 4417. [2]", [("The extension is 4417.", (1,))]),
        ("The extension is 4417 [2].", [("The extension is 4417.", (1,))]),
        ("It is A. [1][2]", [("It is A.", (0, 1))]),
        ("It is A. [2, 1, 2]", [("It is A.", (1, 0))]),
        ("It is A. [Passage 1] It is B [2].", [("It is A.", (0,)), ("It is B.", (1,))]),
        ("Dr. Fenn is on call. [1]", [("Dr. Fenn is on call.", (0,))]),
        ("Nobody cites this. Somebody cites this. [1]", [("Somebody cites this.", (0,))]),
        ("It is A. [3]", []),
        ("It is A. [0]", []),
        ("It is A. [1][99]", [("It is A.", (0,))]),
        ("It is A.", []),
        ("Not stated.", []),
        ("not stated [1]", []),
        ("", []),
        ("[1]", []),
        ("[1] It is A.", []),
        ("<think>It is B. [2]</think>It is A. [1]", [("It is A.", (0,))]),
        ("x" * MAX_CHARACTERS + ". [1]", []),
    ],
)
def test_what_an_output_states(output: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert parse_reading(output, 2) == Reading(tuple(Sentence(*one) for one in expected))


def test_a_long_output_is_cut() -> None:
    output = " ".join(f"It is {number}. [1]" for number in range(100_000))
    assert len(parse_reading(output, 1).sentences) == MAX_SENTENCES


HOSTILE = st.text() | st.lists(
    st.sampled_from(
        ["[1]", "[", "]", " [2,", "3]", "[Passage ", ". ", "Dr.", "\x00", "\u202e", "٣", "A b", "</think>"]
    ),
    max_size=60,
).map("".join)


@pytest.mark.slow
@given(HOSTILE, st.integers(0, 4))
def test_any_output_is_read_within_bounds(output: str, count: int) -> None:
    reading = parse_reading(output, count)
    assert len(reading.sentences) <= MAX_SENTENCES
    for sentence in reading.sentences:
        assert 0 < len(sentence.text) <= MAX_CHARACTERS
        assert sentence.text.isprintable()
        assert sentence.passages
        assert all(0 <= at < count for at in sentence.passages)
        assert len(set(sentence.passages)) == len(sentence.passages)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("It stays cold for 5 hours.", True),
        ("It stays cold for five hours.", True),
        ("It stays cold for 6 hours.", False),
        ("It stays cold for six hours.", False),
        ("It stays cold for 15 hours.", False),
        ("Keep it at -18 °C.", True),
        ("Keep it at 18 °C.", False),
        ("Odalie Fenn has the code KX-4471-B.", True),
        ("Odalie Fenn has the code KX-4471.", False),
        ("odalie FENN is there.", True),
        ("Odalie Kelm is there.", False),
        ("Kelm is there.", False),
        ("The repair cost 1,250 euros.", True),
        ("The repair cost €1,250.", False),
        ("The repair cost 1250 euros.", False),
        ("According to this, one refrigerator is cold.", True),
    ],
)
def test_what_a_passage_grounds(sentence: str, expected: bool) -> None:
    assert grounded(sentence, STORE) is expected


def test_citations_that_ground_nothing_go_and_so_do_sentences_without_any() -> None:
    reading = Reading((Sentence("It costs 46 euros.", (0, 1)), Sentence("It costs 47 euros.", (0, 1))))
    assert grounded_only(reading, [STORE, TRAVEL]) == Reading((Sentence("It costs 46 euros.", (1,)),))
    assert grounded_only(Reading((Sentence("It costs 46 euros.", (7,)),)), [STORE]) == Reading()


@given(st.text())
def test_a_passage_grounds_itself(passage: str) -> None:
    assert grounded(passage, passage)


@given(st.text(), st.integers(10**7, 10**8))
def test_a_number_that_is_not_there_is_never_grounded(passage: str, number: int) -> None:
    if str(number) not in passage:
        assert not grounded(f"It is {number}.", passage)


NAMES = st.text(string.ascii_lowercase, min_size=4, max_size=9).map(lambda word: "Zq" + word)


@given(NAMES, st.text(string.ascii_lowercase + " .,", max_size=80))
def test_a_name_that_is_not_there_is_never_grounded(name: str, passage: str) -> None:
    if name.casefold() not in passage:
        assert not grounded(f"{name} is there.", passage)
        assert grounded(f"{name} is there.", f"{passage} {name}")


def test_extraction_takes_the_sentence_that_shares_most() -> None:
    assert extract("How long does the vaccine refrigerator stay cold?", [TRAVEL, STORE]) == Reading(
        (Sentence("The vaccine refrigerator stays cold for 5 hours at -18 °C.", (1,)),)
    )
    assert extract("What is the daily allowance for travel abroad?", [TRAVEL, STORE]) == Reading(
        (Sentence("The daily allowance for travel abroad is 46 euros.", (0,)),)
    )


def test_extraction_says_nothing_when_little_is_shared() -> None:
    assert extract("Who is the queen of the harbour?", [TRAVEL, STORE]) == Reading()
    assert extract("", [TRAVEL]) == Reading()
    assert extract("What?", []) == Reading()


@given(st.text(), st.lists(st.text(), max_size=4))
def test_extraction_only_quotes(question: str, passages: list[str]) -> None:
    for sentence in extract(question, passages).sentences:
        (at,) = sentence.passages
        assert sentence.text in " ".join(passages[at].split())
        assert grounded(sentence.text, passages[at])


def test_extraction_looks_only_where_the_names_asked_about_are() -> None:
    assert extract("What is the code of Odalie Fenn?", [TRAVEL, STORE]).sentences[0].passages == (1,)
    assert extract("What is the code of Odalie Fern?", [TRAVEL, STORE]) == Reading()
    assert extract("What is the daily allowance for travel abroad in 2031?", [TRAVEL]) == Reading()


def test_a_sentence_is_not_backed_by_a_passage_about_something_else():
    """What another passage told a model to say is not cited to this one."""
    told = "everybody may enter the laboratory without a mask"
    passage = "The hotel limit is 110 euros a night. Receipts are handed in within 14 days."
    assert not grounded(told, passage)
    assert grounded("the hotel limit for a night is 110 euros", passage)
    assert grounded(told, "Everybody may enter the laboratory, and nobody needs a mask without a reason.")
