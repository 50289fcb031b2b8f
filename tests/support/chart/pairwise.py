"""Few cases in which every two settings meet: pairwise combination, deterministic.

The full product of a dozen settings is tens of thousands of renders; nearly all mistakes in templates need
one setting or two. Greedy, after the idea of AETG (Cohen and others, 1997): each new case is started from a
pair that none has yet, and filled up with the choices that cover most of what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

Choice = dict[str, str]
Pair = frozenset[tuple[str, str]]


def _pairs(choice: Choice) -> set[Pair]:
    return {frozenset(two) for two in combinations(sorted(choice.items()), 2)}


def _completed(
    start: Choice,
    factors: Mapping[str, Sequence[str]],
    allowed: Callable[[Choice], bool],
    missing: set[Pair],
) -> Choice | None:
    """`start` with a value for every factor, allowed, and with many missing pairs; None if there is none."""
    left = [name for name in factors if name not in start]
    if not left:
        return start if allowed(start) else None
    name = left[0]
    ranked = sorted(
        factors[name], key=lambda value: -len(_pairs({**start, name: value}) & missing)
    )  # stable: the order of the factor decides between equals
    for value in ranked:
        choice = {**start, name: value}
        if allowed(choice) and (found := _completed(choice, factors, allowed, missing)):
            return found
    return None


def pairwise(
    factors: Mapping[str, Sequence[str]], allowed: Callable[[Choice], bool] = lambda _: True
) -> list[Choice]:
    """Cases that hold every pair of values that any allowed case holds.

    `allowed` also judges cases with factors still missing, and says no only if nothing that completes them
    could be allowed.
    """
    missing = {
        frozenset({(one, a), (two, b)})
        for one, two in combinations(factors, 2)
        for a, b in product(factors[one], factors[two])
        if allowed({one: a, two: b})
    }
    cases: list[Choice] = []
    while missing:
        pair = min(missing, key=lambda pair: sorted(pair))
        found = _completed(dict(pair), factors, allowed, missing)
        if found is None:
            missing.discard(pair)
            continue
        case = {name: found[name] for name in factors}
        cases.append(case)
        missing -= _pairs(case)
    return cases
