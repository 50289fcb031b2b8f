"""The combiner of settings: every allowed pair is there, forbidden ones are not, and it takes few cases."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.chart.pairwise import Choice, pairwise


def pairs_of(cases: list[Choice]) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(pair) for case in cases for pair in combinations(case.items(), 2)}


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_every_pair_meets_and_no_more_cases_than_the_product(sizes: list[int]) -> None:
    factors = {f"f{i}": [f"v{j}" for j in range(size)] for i, size in enumerate(sizes)}
    cases = pairwise(factors)
    wanted = {
        frozenset({(one, a), (two, b)})
        for one, two in combinations(factors, 2)
        for a, b in product(factors[one], factors[two])
    }
    assert pairs_of(cases) == wanted
    assert all(list(case) == list(factors) for case in cases)
    assert len(cases) <= len(list(product(*factors.values())))


def test_what_is_not_allowed_does_not_come() -> None:
    factors = {"kind": ["real", "made-up"], "gpu": ["yes", "no"], "ray": ["yes", "no"]}

    def allowed(case: Choice) -> bool:
        return not (case.get("kind") == "made-up" and "yes" in (case.get("gpu"), case.get("ray")))

    cases = pairwise(factors, allowed)
    assert all(allowed(case) for case in cases)
    assert frozenset({("kind", "made-up"), ("gpu", "no")}) in pairs_of(cases)
    assert frozenset({("gpu", "yes"), ("ray", "yes")}) in pairs_of(cases)


def test_it_takes_few_cases_and_always_the_same() -> None:
    factors = {f"f{i}": ["a", "b", "c"] for i in range(10)}
    cases = pairwise(factors)
    assert len(cases) <= 24
    assert pairwise(factors) == cases
