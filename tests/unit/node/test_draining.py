"""Somebody who tries to copy an index by asking gets what the budget allows and not a text more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import SpiffeId
from node.retrieval.budgets import BudgetLimits
from tests.support.retrieval import CONTEXT, SPEC, Shelf, shelf

CHUNKS = 120
PER_TENANT, AUTHORITY = 10, 30
LIMITS = BudgetLimits(searches_per_minute=1_000, passages_per_day=PER_TENANT, per_authority_factor=3)
SNIPPET, PASSAGE = ReleaseLevel.SNIPPET, ReleaseLevel.PASSAGE


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Shelf]:
    with shelf(tmp_path, limits=LIMITS) as made:
        for n in range(CHUNKS):
            made.put(f"d{n}", f"Pump number {n} stands in hall {n % 7}.")
        yield made


@contextmanager
def until_spent() -> Iterator[None]:
    try:
        yield
    except MeshError as error:
        if error.reason is not Reason.BUDGET_EXHAUSTED:
            raise


async def take(here: Shelf, requester: SpiffeId) -> set[str]:
    """Every way to a text that there is, in ever smaller bites, until each is refused."""
    taken: set[str] = set()
    for bite, level in itertools.product((100, 20, 5, 1), (PASSAGE, SNIPPET)):
        for hall in range(7):
            shard = await here.holder.open(here.question(f"pump hall {hall}", requester=requester))
            ids = [each.id for each in shard.opened.by_vector]
            for start in (0, bite):
                with until_spent():
                    batch = await shard.release(ids[start : start + bite], level)
                    taken.update(chunk.text for chunk in batch.chunks)
    shard = await here.holder.open(here.question("pump", requester=requester))
    for each in shard.opened.by_vector[:10]:
        with until_spent():
            found = await here.holder.fetch(requester, CONTEXT, SPEC.name, each.id, PASSAGE)
            taken.add(found.text)
    for n in range(10):
        with until_spent():
            question = here.to_answer(f"Where does pump number {n} stand?", requester=requester)
            taken.update(sentence.text for sentence in (await here.holder.respond(question)).sentences)
    return taken


@pytest.mark.slow
async def test_an_authority_with_many_tenants_cannot_drain_an_index(here: Shelf):
    taken = [await take(here, SpiffeId("fr.mesh.example", f"/client/t{n}")) for n in range(5)]
    assert [len(each) for each in taken[:3]] == [PER_TENANT] * 3
    assert taken[3:] == [set(), set()]
    assert len(set().union(*taken)) <= AUTHORITY < CHUNKS
    # Whoever is not part of it is served as before.
    assert len(await take(here, SpiffeId("us.mesh.example", "/client/firm"))) == PER_TENANT
    # The next day, as many again.
    here.clock.now += 86_400
    assert len(await take(here, SpiffeId("fr.mesh.example", "/client/t0"))) == PER_TENANT
