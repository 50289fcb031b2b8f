"""Terms: what english-1 makes of a text, exactly, since all nodes must make the same."""

from __future__ import annotations

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import MAX_TERM_BYTES, MAX_TERMS
from node.index.analysis import Analyzer

ENGLISH = Analyzer("english-1")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The patients weren't RUNNING", ["patient", "run"]),
        ("12.5 mg, twice_daily", ["12", "5", "mg", "twice_daili"]),
        ("ﬁnd the CAFÉ, the cafe\u0301", ["find", "café", "café"]),  # compatibility and composition
        ("Größe Straße 東京", ["größe", "straße", "東京"]),
        ("relational\x00relate", ["relat", "relat"]),
        ("the of and", []),
        ("", []),
        ("x" * 65 + " y", ["y"]),
        ("é" * 33 + " " + "é" * 32, ["é" * 32]),  # bytes, not characters
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert ENGLISH.terms(text) == terms


def test_stems_are_those_that_collections_were_made_with() -> None:
    """A stemmer that was updated would make old indexes disagree with new questions: make an english-2."""
    words = "organisation national hoping hopping agreed skies dying universities generously sensational"
    stems = " ".join(ENGLISH.terms(words))
    assert stems == "organis nation hope hop agre sky die universiti generous sensat"


def test_a_question_has_few_terms_sorted_and_counted() -> None:
    assert list(ENGLISH.query_terms("wards beds ward bed bed").items()) == [("bed", 3), ("ward", 2)]
    many = ENGLISH.query_terms(" ".join(f"zz{number:03}" for number in range(500)))
    assert list(many) == [f"zz{number:03}" for number in range(MAX_TERMS)]
    assert all(len(term.encode()) <= MAX_TERM_BYTES for term in many)


def test_an_analyzer_that_is_not_known_here() -> None:
    with pytest.raises(MeshError) as refused:
        Analyzer("klingon-1")
    assert refused.value.reason is Reason.RECORD_MALFORMED
