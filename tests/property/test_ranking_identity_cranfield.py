"""On real text: a federated search ranks as one central index does, however the documents are spread.

Prints the figures of both (pytest -s), which are also those of `python -m bench.cranfield`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from mesh.core.types import SpiffeId
from tests.support import cranfield
from tests.support.cranfield import METRICS, Cranfield
from tests.support.shards import Central, Hit, at_random, by_topic, federated, spread

WHY_NOT = cranfield.why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "it is there")]

COUNTRIES = ("de", "fr", "us", "it", "nl", "es", "pl", "se")
NODES = [SpiffeId(f"{country}.mesh.example", "/node/n") for country in COUNTRIES]
# What a central index was seen to reach here, and elsewhere with a little different lists of stop words.
EXPECTED = {
    "vector": (0.374, 0.776, 0.535),
    "keyword": (0.367, 0.748, 0.536),
    "hybrid": (0.409, 0.787, 0.568),
}

Ranked = list[dict[str, list[bytes]]]


@pytest.fixture(scope="module")
def collection() -> Cranfield:
    return cranfield.load()


@pytest.fixture(scope="module")
def central(collection: Cranfield) -> Ranked:
    """The central ranking of every question."""
    index = Central(collection.corpus, [NODES[0]] * len(collection.corpus.ids))
    return [_ids(index.rank(question)) for question in collection.questions]


def _ids(found: dict[str, list[Hit]]) -> dict[str, list[bytes]]:
    return {mode: [each for each, _ in hits] for mode, hits in found.items()}


def _figures(collection: Cranfield, rankings: Ranked, mode: str) -> tuple[float, float, float]:
    return cranfield.means([each[mode] for each in rankings], collection.judged)


SPREADS: dict[str, Callable[[Cranfield, int], list[int]]] = {
    "random": lambda c, count: at_random(len(c.corpus.ids), count, seed=count),
    "uneven": lambda c, count: at_random(len(c.corpus.ids), count, seed=count, uneven=True),
    "topics": lambda c, count: by_topic(c.corpus.vectors, count, seed=count),
}


@pytest.mark.parametrize("mode", EXPECTED)
def test_the_central_index_is_as_good_as_it_should_be(
    collection: Cranfield, central: Ranked, mode: str
) -> None:
    assert _figures(collection, central, mode) == pytest.approx(EXPECTED[mode], abs=0.005)


@pytest.mark.parametrize("how", SPREADS)
@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_the_top_100_of_every_question_is_the_central_one(
    collection: Cranfield,
    central: Ranked,
    count: int,
    how: str,
    record_property: Callable[[str, object], None],
) -> None:
    homes = SPREADS[how](collection, count)
    sizes = sorted(Counter(homes).values(), reverse=True)
    assert len(sizes) == count
    shards = spread(collection.corpus, homes, NODES[:count])
    found = [_ids(federated(shards, question)) for question in collection.questions]
    assert found == central
    print(f"\n{count} nodes, {how}: {sizes}")
    for mode in EXPECTED:
        both = _figures(collection, found, mode), _figures(collection, central, mode)
        record_property(f"{mode}: {', '.join(METRICS)}", both)
        print(mode, *(f"{name} {a:.3f} (central {b:.3f})" for name, a, b in zip(METRICS, *both, strict=True)))


def test_topics_are_skewed_and_local_statistics_would_not_do(collection: Cranfield, central: Ranked) -> None:
    """The comparison can fail: weighing by each node's own statistics gives another ranking."""
    homes = by_topic(collection.corpus.vectors, 5, seed=5)
    shards = spread(collection.corpus, homes, NODES[:5])
    wrong = [
        _ids(federated(shards, question, local_statistics=True)) for question in collection.questions[:50]
    ]
    for found, right in zip(wrong, central[:50], strict=True):
        assert found["vector"] == right["vector"]
    same = sum(found["keyword"] == right["keyword"] for found, right in zip(wrong, central[:50], strict=True))
    assert same < 5
