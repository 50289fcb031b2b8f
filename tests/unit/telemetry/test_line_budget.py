"""A peer that is refused without end writes a bounded number of lines."""

from __future__ import annotations

from mesh.telemetry.line_budget import LineBudget


def test_a_burst_is_cut_and_counted():
    budget = LineBudget(5)
    assert [budget.take(10.0) for _ in range(8)] == [0, 0, 0, 0, 0, None, None, None]
    assert budget.take(10.25) == 3
    assert budget.take(10.25) is None


def test_no_more_than_so_many_a_second_over_a_long_time():
    budget = LineBudget(5)
    written = sum(budget.take(1.0 + step / 100) is not None for step in range(1000))  # ten seconds
    assert written <= 5 + 5 * 10


def test_a_quiet_time_gives_back_no_more_than_a_second():
    budget = LineBudget(2)
    for _ in range(3):
        budget.take(0.0)
    assert [budget.take(1000.0) for _ in range(3)] == [1, 0, None]
