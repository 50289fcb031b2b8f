"""Whatever nodes do, a search gives the central ranking over exactly the nodes that it says have answered.

Nodes dawdle, die, hang, refuse, lie at any step and are revoked at any moment. Nothing of those that
failed is in the result, and no payload comes to a node that is not permitted at that moment (I1).
"""

from __future__ import annotations

import asyncio
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.questions import SearchQuestion, SearchResult
from mesh.core.retrieval import Outcome, ReleaseLevel, SearchMode
from mesh.core.types import SpiffeId
from node.retrieval import asker
from tests.property.generated import REPRODUCIBLE
from tests.support.asking import LIES, TIMEOUT_S, Act, Script, World, text_of
from tests.support.shards import Central, Corpus, Question, at_random, spread
from tests.support.virtual_time import run_virtually

NODES = [
    SpiffeId(f"{country}.mesh.example", f"/node/n{i}") for i in range(2) for country in ("de", "fr", "us")
]
WORDS = [f"w{i}" for i in range(8)]

acts = st.one_of(
    st.just(Act()),
    st.builds(
        Act,
        st.sampled_from(["answer", "die", "refuse", "hang", *LIES]),
        st.sampled_from([0.0, 0.01, 1.0, 3.5, 10.0]),
    ),
)
scripts = st.one_of(st.just(Script()), st.builds(Script, acts, acts, acts, acts))


def corpus_of(size: int, seed: int) -> Corpus:
    random = np.random.default_rng(seed)
    raw = random.integers(-2, 3, size=(size, 6)).astype(np.float64)
    raw[np.abs(raw).sum(axis=1) == 0, 0] = 1
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    terms = []
    for _ in range(size):
        counts: dict[str, int] = {}
        for word in random.choice(WORDS, size=random.integers(0, 6)):
            counts[str(word)] = counts.get(str(word), 0) + 1
        terms.append(counts)
    return Corpus([random.bytes(16) for _ in range(size)], vectors, terms, average_length=4.0)


@pytest.mark.slow
@settings(REPRODUCIBLE, max_examples=250)
@given(
    size=st.sampled_from([0, 5, 40, 130]),
    seed=st.integers(0, 2**16),
    behaviour=st.lists(scripts, min_size=1, max_size=5),
    revoked=st.dictionaries(st.integers(0, 4), st.sampled_from([0.0, 0.005, 0.5, 2.0, 4.0]), max_size=2),
    mode=st.sampled_from(list(SearchMode)),
    level=st.sampled_from([ReleaseLevel.REFERENCE, ReleaseLevel.SNIPPET]),
    k=st.sampled_from([1, 10, 100]),
)
def test_the_result_is_the_central_ranking_over_those_that_answered(
    size: int,
    seed: int,
    behaviour: list[Script],
    revoked: dict[int, float],
    mode: SearchMode,
    level: ReleaseLevel,
    k: int,
) -> None:
    nodes = NODES[: len(behaviour)]
    corpus, homes = corpus_of(size, seed), at_random(size, len(nodes), seed)
    counts = {"w1": 2, "w4": 1}
    asked = corpus_of(1, seed + 1).vectors[0]
    world = World(
        spread(corpus, homes, nodes),
        dict(zip(nodes, behaviour, strict=True)),
        {nodes[i]: at for i, at in revoked.items() if i < len(nodes)},
        vector=[float(value) for value in asked],
    )
    question = SearchQuestion("notes", "w1 w4 w1", k, mode, level=level, timeout_s=TIMEOUT_S, partial=True)

    async def search() -> tuple[SearchResult, float]:
        return await world.search(question), asyncio.get_running_loop().time()

    result, took = run_virtually(search())
    answered = [each.node for each in result.coverage if each.outcome is Outcome.ANSWERED]
    kept = [i for i, home in enumerate(homes) if nodes[home] in answered]
    fewer = Corpus([corpus.ids[i] for i in kept], corpus.vectors[kept], [corpus.terms[i] for i in kept], 4.0)
    central = Central(fewer, [nodes[homes[i]] for i in kept]).rank(Question(asked, counts))[mode]
    assert [(hit.reference.id, hit.reference.node) for hit in result.hits] == central[:k]
    for hit in result.hits:
        if level is ReleaseLevel.REFERENCE:
            assert (hit.released.text, hit.released.title) == ("", "")
        else:
            assert hit.released.text == text_of(hit.reference.node, hit.reference.id)
    assert world.violations == [], "I1: sent to a node that was not permitted at that moment"
    assert took <= TIMEOUT_S + 0.01, "a deadline for the whole"
    assert {each.node for each in result.coverage} == set(nodes)
    assert result.complete == (len(answered) == len(nodes))
    for node, script in zip(nodes, behaviour, strict=True):
        if script.honest and nodes.index(node) not in revoked:
            assert node in answered, "another node's failure is not this one's"
        if script.open.what != "answer" or script.connect.what != "answer":
            assert node not in answered
    assert all(call.cancelled for call in world.calls), "no call outlives the search"


@pytest.mark.slow
def test_the_comparison_can_fail() -> None:
    """Without weighing again when a node dropped out, the ranking is not the central one."""
    corpus, nodes = corpus_of(130, 3), NODES[:3]
    homes = [2 if "w1" in terms else i % 2 for i, terms in enumerate(corpus.terms)]
    counts = {"w1": 1, "w4": 1, "w5": 1}
    homes[0:20] = [0] * 20
    asked = corpus_of(1, 4).vectors[0]

    def differs() -> bool:
        world = World(
            spread(corpus, homes, nodes),
            {nodes[2]: Script(weigh=Act("die", 0.1))},
            vector=[float(value) for value in asked],
        )
        question = SearchQuestion("notes", "w1 w4 w5", 100, SearchMode.KEYWORD)
        result = run_virtually(world.search(question))
        kept = [i for i, home in enumerate(homes) if home != 2]
        fewer = Corpus(
            [corpus.ids[i] for i in kept], corpus.vectors[kept], [corpus.terms[i] for i in kept], 4.0
        )
        central = Central(fewer, [nodes[homes[i]] for i in kept]).rank(Question(asked, counts))["keyword"]
        return [(hit.reference.id, hit.reference.node) for hit in result.hits] != central[:100]

    assert not differs()
    weigh = asker._Search._stale

    def only_once(self: asker._Search) -> list[object]:
        return [member for member in weigh(self) if member.weighs == 0]

    with mock.patch.object(asker._Search, "_stale", only_once):
        assert differs()
