"""Rates and quantiles of the last minute, from counts that only grow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.last_minute import Counts, LastMinute, quantile

BOUNDS = (0.1, 1.0, 10.0, math.inf)


def counts(requests: int, *durations: float) -> Counts:
    buckets = tuple((bound, float(sum(d <= bound for d in durations))) for bound in BOUNDS)
    return Counts(requests=requests, completion_tokens=10 * requests, durations=buckets)


def test_there_is_nothing_to_tell_before_there_are_two_counts() -> None:
    held = LastMinute()
    assert held.minute() is None
    held.add(0.0, counts(5))
    assert held.minute() is None


def test_what_was_before_the_minute_does_not_count() -> None:
    held = LastMinute(window_s=60)
    for second in range(0, 301, 5):
        held.add(float(second), counts(second))
    minute = held.minute()
    assert minute is not None
    assert (minute.window_s, minute.requests, minute.completion_tokens) == (60.0, 60, 600)


def test_after_a_silence_the_window_is_as_long_as_it_was() -> None:
    held = LastMinute(window_s=60)
    held.add(0.0, counts(0))
    held.add(300.0, counts(3))
    minute = held.minute()
    assert minute is not None
    assert (minute.window_s, minute.requests) == (300.0, 3)


def test_quantiles_are_of_what_ended_within() -> None:
    held = LastMinute()
    held.add(0.0, counts(3, 5.0, 5.0, 5.0))
    held.add(60.0, counts(5, 5.0, 5.0, 5.0, 0.05, 0.05))
    minute = held.minute()
    assert minute is not None
    assert minute.p50_s == pytest.approx(0.05)
    assert minute.p99_s == pytest.approx(0.099)


def test_nothing_has_no_quantile_and_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.5, ()) is None
    assert quantile(0.5, ((1.0, 0.0), (math.inf, 0.0))) is None
    assert quantile(0.99, ((1.0, 0.0), (math.inf, 7.0))) == 1.0


@given(st.lists(st.floats(0.0, 20.0), min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(durations: list[float], of: float) -> None:
    found = quantile(of, counts(0, *durations).durations)
    assert found is not None
    rank = max(1, math.ceil(of * len(durations)))
    true = sorted(durations)[rank - 1]
    bound = next(b for b in BOUNDS if true <= b)
    lower = max((b for b in (0.0, *BOUNDS) if b < bound), default=0.0)
    if of > 0:
        assert lower <= found <= (bound if not math.isinf(bound) else lower)


def test_counts_that_came_too_often_are_bounded() -> None:
    held = LastMinute(window_s=60)
    for tick in range(10_000):
        held.add(tick / 1000, counts(tick))
    assert len(held._held) <= 129
