"""Budgets: an index cannot be drained by asking, not by many names, not after a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from node.retrieval.budgets import Account, BudgetLimits, Budgets, Charge, Ledger

HOME = "de.mesh.example"
NOON = 20_000 * 86_400 + 43_200.0
LIMITS = BudgetLimits(searches_per_minute=6, passages_per_day=10, per_authority_factor=2)


def client(tenant: str, domain: str = "fr.mesh.example") -> SpiffeId:
    return SpiffeId(domain, f"/client/{tenant}")


def refusal(act: object) -> MeshError:
    with pytest.raises(MeshError) as caught:
        act()  # type: ignore[operator]
    assert caught.value.reason is Reason.BUDGET_EXHAUSTED
    return caught.value


def test_searches_flow_back_at_their_rate():
    ledger = Ledger(LIMITS, HOME)
    for _ in range(6):
        ledger.search(client("a", HOME), NOON)
    error = refusal(lambda: ledger.search(client("a", HOME), NOON))
    assert error.retry_after_s == 10
    refusal(lambda: ledger.search(client("a", HOME), NOON + 9))
    ledger.search(client("a", HOME), NOON + 10.001)
    refusal(lambda: ledger.search(client("a", HOME), NOON + 10.001))
    ledger.search(client("b", HOME), NOON)


def test_two_names_of_one_tenant_share_its_budget():
    ledger = Ledger(LIMITS, HOME)
    for n in range(6):
        ledger.search(SpiffeId(HOME, f"/client/a/desk-{n}"), NOON)
    refusal(lambda: ledger.search(client("a", HOME), NOON))


def test_another_authority_gets_no_more_for_having_many_tenants():
    ledger = Ledger(LIMITS, HOME)
    for n in range(12):
        ledger.search(client(f"t{n}"), NOON)
    assert "fr.mesh.example" in refusal(lambda: ledger.search(client("fresh"), NOON)).message
    for n in range(10):
        ledger.charge(client(f"t{n}"), 2, NOON)
    refusal(lambda: ledger.charge(client("fresh"), 1, NOON))
    ledger.charge(client("fresh", "us.mesh.example"), 10, NOON)
    for n in range(50):  # at home names are given out by the node's own authority
        ledger.charge(client(f"t{n}", HOME), 10, NOON)


def test_a_charge_is_taken_whole_or_not_at_all():
    ledger = Ledger(LIMITS, HOME)
    ledger.charge(client("a"), 8, NOON)
    error = refusal(lambda: ledger.charge(client("a"), 3, NOON))
    assert error.retry_after_s == 43_200
    ledger.charge(client("a"), 2, NOON)
    refusal(lambda: ledger.charge(client("a"), 1, NOON))
    ledger.charge(client("a"), 10, NOON + 43_200)
    refusal(lambda: ledger.charge(client("a"), 1, NOON))  # the clock was set back
    assert ledger.charge(client("a"), 0, NOON) == ()


def test_a_refused_search_counts_for_nobody():
    ledger = Ledger(BudgetLimits(searches_per_minute=2, per_authority_factor=2), HOME)
    for _ in range(2):
        ledger.search(client("a"), NOON)
    for _ in range(10):
        refusal(lambda: ledger.search(client("a"), NOON))
    for _ in range(2):
        ledger.search(client("b"), NOON)


def test_what_was_charged_before_a_restart_is_known():
    ledger = Ledger(LIMITS, HOME)
    ledger.restore([Charge(20_000, Account("fr.mesh.example", "a"), 9)])
    refusal(lambda: ledger.charge(client("a"), 2, NOON))
    ledger.charge(client("a"), 1, NOON)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 3)), max_size=40))
def test_nobody_ever_takes_more_than_a_day_allows(charges: list[tuple[str, int, int]]):
    ledger = Ledger(LIMITS, HOME)
    taken: dict[tuple[str, int], int] = {}
    for tenant, passages, day in charges:
        try:
            ledger.charge(client(tenant), passages, NOON + day * 86_400)
        except MeshError:
            continue
        taken[tenant, day] = taken.get((tenant, day), 0) + passages
    assert all(total <= 10 for total in taken.values())
    for day in range(4):
        assert sum(total for (_, on), total in taken.items() if on == day) <= 20


@pytest.mark.slow
async def test_a_restart_does_not_fill_up_what_was_taken(tmp_path: Path):
    path = tmp_path / "state" / "budgets.db"
    budgets = Budgets(path, LIMITS, HOME, lambda: NOON)
    await asyncio.gather(*(budgets.charge(client("a"), 1) for _ in range(9)))
    # Not closed: as a node that was killed.
    again = Budgets(path, LIMITS, HOME, lambda: NOON)
    with pytest.raises(MeshError) as caught:
        await again.charge(client("a"), 2)
    assert caught.value.reason is Reason.BUDGET_EXHAUSTED
    await again.charge(client("a"), 1)
    again.close()
    budgets.close()
    assert path.stat().st_mode & 0o077 == 0
    later = Budgets(path, LIMITS, HOME, lambda: NOON + 10 * 86_400)
    await later.charge(client("a"), 10)
    later.close()
    with sqlite3.connect(path) as database:
        days = database.execute("SELECT DISTINCT day FROM charges").fetchall()
    database.close()
    assert days == [(20_010,)]


async def test_what_cannot_be_counted_is_not_released(tmp_path: Path):
    budgets = Budgets(tmp_path / "budgets.db", LIMITS, HOME, lambda: NOON)
    budgets.close()
    with pytest.raises(MeshError) as caught:
        await budgets.charge(client("a"), 1)
    assert caught.value.reason is Reason.INDEX_UNAVAILABLE
    (tmp_path / "broken.db").write_bytes(b"not a database, whatever it is called " * 40)
    with pytest.raises(MeshError) as caught:
        Budgets(tmp_path / "broken.db", LIMITS, HOME, lambda: NOON)
    assert caught.value.reason is Reason.INDEX_UNAVAILABLE


@settings(max_examples=50)
@given(st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_no_minute_sees_more_than_twice_the_rate(waits: list[float]):
    """As many at once, and then so many a minute."""
    ledger, now, came = Ledger(LIMITS, HOME), NOON, []
    for wait in waits:
        now += wait
        try:
            ledger.search(client("a", HOME), now)
            came.append(now)
        except MeshError:
            pass
    for start in came:
        assert sum(start <= at < start + 60 for at in came) <= 12
