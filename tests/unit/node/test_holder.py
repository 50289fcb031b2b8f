"""The holder: what an index says, to whom, and how much of it (I1)."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.merging import idf
from mesh.core.retrieval import Filters, ReleaseLevel
from mesh.core.shards import MAX_RELEASES, MAX_WEIGHS
from mesh.core.types import RequestContext, SpiffeId
from node.retrieval.budgets import BudgetLimits
from node.retrieval.sight import Cutter
from tests.support.retrieval import CONTEXT, REQUESTER, SPEC, Shelf, shelf

COUNT, REFERENCE = ReleaseLevel.COUNT, ReleaseLevel.REFERENCE
SNIPPET, PASSAGE, NOTHING = ReleaseLevel.SNIPPET, ReleaseLevel.PASSAGE, ReleaseLevel.NOTHING
PUMP = "Mr Karl Oppermann replaced the pump in ward three."


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Shelf]:
    with shelf(tmp_path) as made:
        made.put("open-1", PUMP, owner="open", title="Pump report of Mr Karl Oppermann", source="a/1")
        made.put("open-2", "The pump is quiet.", "Nothing about it here.", owner="open")
        made.put("closed-1", "The pump of the closed ward.", owner="closed", title="Closed")
        yield made


async def test_what_a_search_says_step_by_step(here: Shelf):
    shard = await here.holder.open(here.question("pump ward"))
    opened = shard.opened
    assert (opened.documents, opened.frequencies) == (4, (3, 2))  # pump, ward
    assert (opened.counted, opened.counted_inexact) == (0, False)
    assert opened.highest is PASSAGE
    assert len(opened.by_vector) == 4
    weights = [idf(4, 3), idf(4, 2)]
    ranking = await shard.weigh(weights)
    assert len(ranking) == 3
    assert [each.score for each in ranking] == sorted((each.score for each in ranking), reverse=True)
    batch = await shard.release([each.id for each in ranking], PASSAGE)
    assert batch.charged == 3
    assert [chunk.id for chunk in batch.chunks] == [each.id for each in ranking]
    assert {chunk.document for chunk in batch.chunks} == {"open-1", "open-2", "closed-1"}


async def test_what_may_only_be_counted_is_counted_and_in_nothing_else(here: Shelf):
    here.rules.set(PASSAGE, closed=COUNT)
    shard = await here.holder.open(here.question("pump ward"))
    assert (shard.opened.documents, shard.opened.frequencies) == (3, (2, 1))
    assert shard.opened.counted == 1
    ranking = await shard.weigh([1.0, 1.0])
    batch = await shard.release([each.id for each in (*ranking, *shard.opened.by_vector[-1:])][:2], PASSAGE)
    assert "closed-1" not in {chunk.document for chunk in batch.chunks}
    here.rules.set(COUNT)
    shard = await here.holder.open(here.question("pump"))
    assert (shard.opened.documents, shard.opened.by_vector, shard.opened.counted) == (0, (), 3)
    assert await shard.weigh([1.0]) == ()
    here.rules.set(NOTHING)
    shard = await here.holder.open(here.question("pump"))
    assert (shard.opened.counted, shard.opened.highest) == (0, NOTHING)


async def test_each_level_gives_what_is_its_own_and_no_more(here: Shelf):
    async def released(level: ReleaseLevel) -> dict[str, object]:
        shard = await here.holder.open(here.question("replaced"))
        [hit] = await shard.weigh([1.0])
        batch = await shard.release([hit.id], level)
        [chunk] = batch.chunks
        return {
            "level": chunk.level,
            "texts": (chunk.title, chunk.text, chunk.document, chunk.source),
            "charged": batch.charged,
        }

    reference = {"level": REFERENCE, "texts": ("", "", "", ""), "charged": 0}
    assert await released(REFERENCE) == reference
    snippet = await released(SNIPPET)
    assert snippet["level"] is SNIPPET
    assert snippet["charged"] == 1
    title, text, document, source = snippet["texts"]  # type: ignore[misc]
    assert "pump" in text
    assert "Oppermann" not in title + text
    assert (document, source) == ("", "")
    passage = await released(PASSAGE)
    assert passage["texts"] == ("Pump report of Mr Karl Oppermann", PUMP, "open-1", "a/1")
    here.rules.set(REFERENCE)
    assert await released(PASSAGE) == reference
    here.rules.set(SNIPPET)
    assert await released(PASSAGE) == snippet


async def test_a_policy_withdrawn_in_the_middle_of_a_search_ends_it(here: Shelf):
    """I1: what is released goes by the records of that moment, not of when the search began."""
    shard = await here.holder.open(here.question("pump"))
    ranking = await shard.weigh([1.0])
    here.rules.set(PASSAGE, closed=NOTHING)
    batch = await shard.release([each.id for each in ranking], PASSAGE)
    assert {chunk.document for chunk in batch.chunks} == {"open-1", "open-2"}
    assert len(await shard.weigh([1.0])) == 2
    here.rules.set(REFERENCE)
    batch = await shard.release([each.id for each in ranking], PASSAGE)
    assert {(chunk.level, chunk.text) for chunk in batch.chunks} == {(REFERENCE, "")}


@pytest.mark.parametrize("step", ["open", "weigh", "release"])
async def test_a_policy_withdrawn_in_the_middle_of_a_step_ends_that(here: Shelf, step: str):
    question = here.question("pump")
    shard = await here.holder.open(question)
    ids = [each.id for each in await shard.weigh([1.0])]
    first = here.rules.asked + 1

    def withdraw(asked: int) -> None:
        if asked > first:  # right after the step began
            here.rules.set(PASSAGE, closed=REFERENCE if step == "release" else NOTHING)

    here.rules.at_question = withdraw
    steps = {
        "open": lambda: here.holder.open(question),
        "weigh": lambda: shard.weigh([1.0]),
        "release": lambda: shard.release(ids, PASSAGE),
    }
    with pytest.raises(MeshError) as caught:
        await steps[step]()
    assert caught.value.reason is Reason.RELEASE_DENIED


async def test_what_was_released_is_checked_once_more_before_it_is_sent(here: Shelf):
    shard = await here.holder.open(here.question("pump"))
    await shard.release([shard.opened.by_vector[0].id], PASSAGE)
    shard.sight.require_current()
    here.rules.set(SNIPPET)
    with pytest.raises(MeshError) as caught:
        shard.sight.require_current()
    assert caught.value.reason is Reason.RELEASE_DENIED


async def test_only_what_this_search_ranked_is_released(here: Shelf):
    other = await here.holder.open(here.question("quiet", vector=()))
    [hit] = await other.weigh([1.0])
    shard = await here.holder.open(here.question("replaced", vector=()))
    await shard.weigh([1.0])
    for ids in ([hit.id], [bytes(16)]):
        with pytest.raises(MeshError) as caught:
            await shard.release(ids, REFERENCE)
        assert caught.value.reason is Reason.REQUEST_INVALID


async def test_steps_are_bounded(here: Shelf):
    shard = await here.holder.open(here.question("pump"))
    for _ in range(MAX_WEIGHS):
        await shard.weigh([1.0])
    for _ in range(MAX_RELEASES):
        await shard.release([], PASSAGE)
    for step in (shard.weigh([1.0]), shard.release([], PASSAGE)):
        with pytest.raises(MeshError) as caught:
            await step
        assert caught.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("weights", [[], [1.0, 1.0], [float("nan")], [float("inf")], [-1.0]])
async def test_weights_that_cannot_be(here: Shelf, weights: list[float]):
    shard = await here.holder.open(here.question("pump"))
    with pytest.raises(MeshError) as caught:
        await shard.weigh(weights)
    assert caught.value.reason is Reason.REQUEST_INVALID


async def test_what_is_asked_wrongly_is_refused_before_anything_is_looked_up(here: Shelf):
    for changes, reason in (
        ({"collection": "others"}, Reason.COLLECTION_UNKNOWN),
        ({"digest": "sha256:" + "0" * 64}, Reason.COLLECTION_MISMATCH),
        ({"vector": (1.0,)}, Reason.REQUEST_INVALID),
    ):
        with pytest.raises(MeshError) as caught:
            await here.holder.open(here.question("pump", **changes))
        assert caught.value.reason is reason
    assert here.rules.asked == 0


@pytest.mark.parametrize("level", list(ReleaseLevel))
async def test_i1_a_guessed_document_is_confirmed_to_those_who_may_read_it(here: Shelf, level: ReleaseLevel):
    here.put("guessed", "The pump in ward 3 was replaced.", owner="open")
    here.rules.set(level)
    filters = Filters({"document": frozenset({"guessed"})})
    opened = (await here.holder.open(here.question("pump", filters=filters))).opened
    assert bool(opened.by_vector) == (level is ReleaseLevel.PASSAGE)
    assert opened.counted == 0


async def test_filters_narrow_and_statistics_stay_those_of_the_whole(here: Shelf):
    filters = Filters({"owner": frozenset({"closed"})})
    shard = await here.holder.open(here.question("pump", filters=filters))
    assert shard.opened.documents == 4
    assert len(shard.opened.by_vector) == len(await shard.weigh([1.0])) == 1
    here.rules.set(PASSAGE, closed=COUNT)
    assert (await here.holder.open(here.question("pump", filters=filters))).opened.counted == 1
    filters = Filters({"owner": frozenset({"open"})})
    assert (await here.holder.open(here.question("pump", filters=filters))).opened.counted == 0


async def test_below_the_threshold_nothing_is_told_exactly(tmp_path: Path):
    with shelf(tmp_path, threshold=3) as here:
        for n in range(5):
            here.put(f"d{n}", "common " + ("rare " if n == 0 else "") + ("three" if n < 3 else ""))
        here.put("c1", "common", owner="closed")
        here.rules.set(PASSAGE, closed=COUNT)
        opened = (await here.holder.open(here.question("common rare three absent"))).opened
        terms = here.question("common rare three absent").terms
        assert dict(zip(terms, opened.frequencies, strict=True)) == {
            "absent": 0,
            "common": 5,
            "rare": 3,
            "three": 3,
        }
        assert opened.frequencies_withheld
        assert (opened.counted, opened.counted_inexact) == (0, True)
        # Exactly at the threshold looks the same as below it.
        assert (await here.holder.open(here.question("three"))).opened.frequencies_withheld
        assert not (await here.holder.open(here.question("common"))).opened.frequencies_withheld


async def test_texts_are_charged_before_they_are_handed_out_and_references_are_free(tmp_path: Path):
    with shelf(tmp_path, limits=BudgetLimits(passages_per_day=3)) as here:
        for n in range(6):
            here.put(f"d{n}", f"pump number {n}")
        shard = await here.holder.open(here.question("pump"))
        ids = [each.id for each in shard.opened.by_vector]
        assert (await shard.release(ids, REFERENCE)).charged == 0
        with pytest.raises(MeshError) as caught:
            await shard.release(ids[:4], SNIPPET)
        assert caught.value.reason is Reason.BUDGET_EXHAUSTED
        assert caught.value.retry_after_s == 43_200
        shard = await here.holder.open(here.question("pump"))
        assert (await shard.release(ids[:3], SNIPPET)).charged == 3
        with pytest.raises(MeshError):
            await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, ids[0], PASSAGE)


async def test_nothing_is_worked_on_that_cannot_be_paid(tmp_path: Path):
    """Or whoever has used up its budget could keep the node redacting all the same."""
    with shelf(tmp_path, limits=BudgetLimits(passages_per_day=1)) as here:
        here.put("a", PUMP)
        here.put("b", PUMP)
        here.rules.set(SNIPPET)
        shard = await here.holder.open(here.question("pump"))
        worked = patch.object(Cutter, "cut", side_effect=AssertionError("cut"))
        with worked, pytest.raises(MeshError) as refused:
            await shard.release([each.id for each in shard.opened.by_vector], PASSAGE)
        assert refused.value.reason is Reason.BUDGET_EXHAUSTED


async def test_what_expires_during_a_search_is_not_released(here: Shelf):
    today = datetime.datetime.fromtimestamp(here.clock.now, datetime.UTC).date()
    here.put("kept", "The pump until tomorrow.", retain_until=today + datetime.timedelta(days=1))
    shard = await here.holder.open(here.question("until tomorrow"))
    [best, *_] = await shard.weigh([1.0] * len(shard._question.terms))
    assert [c.document for c in (await shard.release([best.id], PASSAGE)).chunks] == ["kept"]
    here.clock.now += 86_400
    assert (await shard.release([best.id], PASSAGE)).chunks == ()
    with pytest.raises(MeshError) as refused:
        await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, best.id, PASSAGE)
    assert refused.value.reason is Reason.REFERENCE_UNKNOWN


async def test_depth_and_rate_have_their_budget(tmp_path: Path):
    with shelf(tmp_path, limits=BudgetLimits(searches_per_minute=2, depth=10)) as here:
        here.put("d", "pump")
        with pytest.raises(MeshError) as caught:
            await here.holder.open(here.question("pump", depth=11))
        assert caught.value.reason is Reason.BUDGET_EXHAUSTED
        for _ in range(2):
            await here.holder.open(here.question("pump", depth=10))
        with pytest.raises(MeshError) as caught:
            await here.holder.open(here.question("pump", depth=10))
        assert (caught.value.reason, caught.value.retry_after_s) == (Reason.BUDGET_EXHAUSTED, 30)
        with pytest.raises(MeshError):
            await here.holder.respond(here.to_answer("pump?"))
        with pytest.raises(MeshError):
            await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, bytes(16), PASSAGE)


async def test_a_fetch_is_decided_anew(here: Shelf):
    shard = await here.holder.open(here.question("replaced"))
    [hit] = await shard.weigh([1.0])
    found = (await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, hit.id, PASSAGE)).released
    assert found.text == PUMP
    here.rules.set(SNIPPET)
    found = (await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, hit.id, PASSAGE)).released
    assert found.level is SNIPPET
    assert "Oppermann" not in found.text
    for level, reason in (
        (REFERENCE, Reason.RELEASE_DENIED),
        (COUNT, Reason.REFERENCE_UNKNOWN),
        (NOTHING, Reason.REFERENCE_UNKNOWN),
    ):
        here.rules.set(level)
        with pytest.raises(MeshError) as caught:
            await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, hit.id, PASSAGE)
        assert caught.value.reason is reason
    here.rules.set(PASSAGE)
    here.index.delete(["open-1"])
    with pytest.raises(MeshError) as caught:
        await here.holder.fetch(REQUESTER, CONTEXT, SPEC.name, hit.id, PASSAGE)
    assert caught.value.reason is Reason.REFERENCE_UNKNOWN


async def test_what_is_deleted_during_a_search_is_not_released(here: Shelf):
    shard = await here.holder.open(here.question("replaced"))
    [hit] = await shard.weigh([1.0])
    here.index.delete(["open-1"])
    assert (await shard.release([hit.id], PASSAGE)).chunks == ()


async def test_deciding_what_is_released_is_shared_out_among_askers(here: Shelf):
    """Who asks in ever new words makes the policies think each time, and everybody else wait."""

    def think(asked: int) -> None:
        here.clock.now += 4

    async def ask(questions: int) -> None:
        for n in range(questions):
            context = RequestContext.of(["internal"], f"care/{n}")
            await here.holder.open(here.question("pump", context=context))

    here.rules.at_question = think
    with pytest.raises(MeshError) as caught:
        await ask(20)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s is not None
    other = SpiffeId("us.mesh.example", "/client/firm")
    assert (await here.holder.open(here.question("pump", requester=other))).opened.documents == 4
