"""Texts as patterns tell them apart: every kind is found, and every example is of its kind."""

from __future__ import annotations

import itertools
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.wildcards import Form, Pattern, kinds, matches
from tests.property.generated import REPRODUCIBLE

ABC = frozenset("abc")
SMALL = Form(ABC, frozenset("ab"), 4, empty=True)
WORDS = Form(frozenset(string.ascii_lowercase + "-/"), frozenset(string.ascii_lowercase), 63, empty=False)


def pattern(text: str) -> Pattern:
    return tuple(None if char == "*" else char for char in text)


patterns = st.lists(st.text("abc*", max_size=5).map(pattern), max_size=3)


@REPRODUCIBLE
@given(st.text("abc*", max_size=6), st.text("abc", max_size=6))
def test_a_pattern_matches_what_the_regular_expression_does(wild: str, text: str) -> None:
    expression = ".*".join(re.escape(part) for part in wild.split("*"))
    assert matches(pattern(wild), text) is (re.fullmatch(expression, text) is not None)


@REPRODUCIBLE
@given(patterns, st.frozensets(st.text("abc", max_size=3), max_size=4), st.integers(1, 3))
def test_every_kind_is_found(wild: list[Pattern], known: frozenset[str], count: int) -> None:
    """Against all texts of a small form, one by one."""
    every: dict[tuple[bool, ...], set[str]] = {}
    for size in range(5):
        for letters in itertools.product("abc", repeat=size):
            text = "".join(letters)
            if SMALL.accepts(text) and text not in known:
                every.setdefault(tuple(matches(p, text) for p in wild), set()).add(text)
    found = kinds(wild, SMALL, known, count)
    assert set(found) == set(every)
    for kind, examples in found.items():
        assert len(set(examples)) == min(count, len(every[kind]))
        assert set(examples) <= every[kind]


def test_examples_are_of_the_form() -> None:
    found = kinds([pattern("care/*"), pattern("*/x")], WORDS, frozenset({"care/x"}), 2)
    assert set(found) == set(itertools.product((False, True), repeat=2))
    assert all(WORDS.accepts(text) for examples in found.values() for text in examples)


def test_a_pattern_that_no_text_of_the_form_can_match_makes_no_kind() -> None:
    assert set(kinds([pattern("UPPER*")], WORDS, frozenset(), 1)) == {(False,)}
    assert set(kinds([pattern("a" * 64 + "*")], WORDS, frozenset(), 1)) == {(False,)}


def test_all_letters_being_named_leaves_texts_that_are_not() -> None:
    known = frozenset(string.ascii_lowercase)
    (examples,) = kinds([pattern("*")], WORDS, known, 3).values()
    assert len(examples) == 3
    assert not known & set(examples)


def test_hostile_patterns_end_with_a_reason() -> None:
    hostile = [pattern("*" + "*".join(p)) for p in itertools.permutations("abcdefg", 6)][:40]
    with pytest.raises(MeshError) as refused:
        kinds(hostile, WORDS, frozenset(), 2)
    assert refused.value.reason is Reason.POLICY_UNDECIDED


def test_what_two_forms_have_in_common() -> None:
    both = WORDS.meet(Form(None, None, 3, empty=True))
    assert both.accepts("abc")
    assert not both.accepts("")
    assert not both.accepts("abcd")
    assert not both.accepts("é")
