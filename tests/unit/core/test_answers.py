"""Putting an answer together: best first, said once, with everybody's references."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.answers import MAX_REFERENCES_OF_A_NODE, check_sentence, compose
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import AnswerSentence, Reference, ReleaseLevel
from mesh.core.types import node_id

NODES = [node_id(f"{country}.mesh.example", "n1") for country in ("de", "fr", "us")]


def reference(node: int, number: int) -> Reference:
    return Reference(NODES[node], "notes", bytes([number]) * 16)


GOOD = AnswerSentence("The pump is new.", (reference(0, 1),), ReleaseLevel.SNIPPET, False, 0.5)

sentences = st.builds(
    AnswerSentence,
    text=st.sampled_from(["Pump is new.", "pump  IS new.", "Pump is old.", "It leaks."]),
    references=st.lists(
        st.builds(reference, st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=3, unique=True
    ).map(tuple),
    level=st.sampled_from([ReleaseLevel.SNIPPET, ReleaseLevel.PASSAGE]),
    extracted=st.booleans(),
    score=st.sampled_from([0.1, 0.5, 0.9]),
)


def test_what_says_the_same_is_said_once():
    better = AnswerSentence("the  PUMP is new.", (reference(1, 2), reference(0, 1)), ReleaseLevel.PASSAGE,
                            True, 0.9)  # fmt: skip
    (said,) = compose([GOOD, better])
    assert said.text == better.text
    assert (said.level, said.score, said.extracted) == (ReleaseLevel.PASSAGE, 0.9, True)
    assert said.references == (reference(1, 2), reference(0, 1))


@given(st.lists(sentences, max_size=6), st.randoms(use_true_random=False))
def test_the_order_in_which_nodes_answer_does_not_show(said: list[AnswerSentence], random: object):
    shuffled = list(said)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    composed = compose(said)
    assert {(c.text.casefold(), c.references) for c in composed} == {
        (c.text.casefold(), c.references) for c in compose(shuffled)
    }
    assert all(one.score >= two.score for one, two in itertools.pairwise(composed))
    cited = {ref for sentence in said for ref in sentence.references}
    assert {ref for sentence in composed for ref in sentence.references} == cited
    assert {c.text for c in composed} <= {s.text for s in said}, "nothing is made up"


@pytest.mark.parametrize(
    "changes",
    [
        {"text": ""},
        {"text": "  "},
        {"text": "x" * 5000},
        {"references": ()},
        {"references": (reference(0, 1),) * 2},
        {"references": tuple(reference(0, i) for i in range(MAX_REFERENCES_OF_A_NODE + 1))},
        {"level": ReleaseLevel.REFERENCE},
        {"score": math.nan},
        {"score": math.inf},
        {"score": 2.0},
    ],
)
def test_a_sentence_that_no_honest_node_sends(changes: dict[str, object]):
    assert check_sentence(GOOD) == GOOD
    with pytest.raises(MeshError) as error:
        check_sentence(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert error.value.reason is Reason.PEER_MISBEHAVED
