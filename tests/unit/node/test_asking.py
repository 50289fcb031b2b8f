"""The asker, case by case; tests/property/test_asking_failures.py has the cases that nobody thought of."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.merging import reciprocal_rank
from mesh.core.questions import (
    AnswerEvent,
    AnswerQuestion,
    AnswerResult,
    FetchQuestion,
    NodeDone,
    Partial,
    SearchDecided,
    SearchQuestion,
    SearchResult,
)
from mesh.core.retrieval import (
    AnswerSentence,
    Coverage,
    Outcome,
    Reference,
    ReleaseLevel,
    SearchMode,
)
from mesh.core.shards import MAX_WEIGHS
from mesh.core.types import SpiffeId
from node.retrieval.answering import Answering
from sovereign.mesh.v1 import retrieval_pb2
from tests.support.asking import Act, Script, World, ended, says
from tests.support.shards import Corpus, Shard, spread
from tests.support.virtual_time import run_virtually

NODES = [SpiffeId(f"{country}.mesh.example", "/node/n1") for country in ("de", "fr", "us")]
DE, FR, US = NODES
IDS = [bytes([i]) * 16 for i in range(1, 7)]
HYBRID = SearchQuestion("notes", "w1 w2")


def shards(nodes: Sequence[SpiffeId] = NODES) -> dict[SpiffeId, Shard]:
    """Six chunks, two on each of three nodes."""
    vectors = np.eye(6, dtype=np.float32)
    terms = [{"w1": 1 + i % 3, "w2": 1} if i % 2 else {"w1": 1, f"x{i}": 2} for i in range(6)]
    corpus = Corpus(IDS, vectors, terms, average_length=3.0)
    return spread(corpus, [i % len(nodes) for i in range(6)], nodes)


def of(result: SearchResult | AnswerResult, node: SpiffeId) -> Coverage:
    return next(each for each in result.coverage if each.node == node)


def failure(work: object) -> MeshError:
    with pytest.raises(MeshError) as error:
        run_virtually(work)  # type: ignore[arg-type]
    return error.value


def test_where_nobody_may_be_asked_the_question_goes_nowhere():
    """I1, I2: not even to this node's own embedder."""
    world = World(shards(), revoked=dict.fromkeys(NODES, 0.0))
    result = run_virtually(world.search(HYBRID))
    assert {each.outcome for each in result.coverage} == {Outcome.NOT_ASKED}
    assert (result.hits, result.complete) == ((), False)
    assert (world.reached_nodes, world.embedder.asked) == ([], 0)


def test_what_is_no_longer_permitted_when_the_connection_stands_is_not_asked():
    """I1: judged right before sending, not only when it was planned."""
    world = World(shards(), {FR: Script(connect=Act(delay=1.0))}, {FR: 0.5})
    result = run_virtually(world.search(HYBRID))
    assert (of(result, FR).outcome, of(result, FR).reason) == (Outcome.NOT_ASKED, Reason.IDENTITY_REVOKED)
    assert FR not in world.reached_nodes
    assert not result.complete


def test_what_is_withdrawn_between_two_steps_is_sent_no_further_step():
    """I1: mid-query. It was asked, so it has failed; nothing that it said is used."""
    world = World(shards(), {FR: Script(open=Act(delay=1.0))}, {FR: 0.5})
    result = run_virtually(world.search(HYBRID))
    assert (of(result, FR).outcome, of(result, FR).reason) == (Outcome.FAILED, Reason.IDENTITY_REVOKED)
    assert world.reached_nodes.count(FR) == 1
    assert all(hit.reference.node != FR for hit in result.hits)
    assert world.violations == []


def test_another_embedder_than_the_collections_is_not_used():
    world = World(shards())
    world.embedder._digest = "sha256:" + "1" * 64
    assert failure(world.search(HYBRID)).reason is Reason.EMBEDDER_MISMATCH
    keyword = run_virtually(world.search(replace(HYBRID, mode=SearchMode.KEYWORD)))
    assert keyword.complete, "for terms no embedder is needed"


def test_a_collection_that_the_own_authority_does_not_define():
    world = World(shards())

    async def plan() -> None:
        world.asker.decide(world.requester, world.plan().context, "other", "d-1")

    assert failure(plan()).reason is Reason.COLLECTION_UNKNOWN


def test_a_question_that_cannot_be_embedded_in_time():
    world = World(shards())

    async def hang(texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        await asyncio.sleep(100)
        return []

    world.embedder.embed = hang  # type: ignore[method-assign]
    assert failure(world.search(HYBRID)).reason is Reason.DEADLINE_EXCEEDED
    assert world.reached_nodes == []


def test_texts_are_asked_for_the_final_hits_only_and_once():
    world = World(shards())
    result = run_virtually(world.search(replace(HYBRID, k=2, level=ReleaseLevel.PASSAGE)))
    assert [hit.released.level for hit in result.hits] == [ReleaseLevel.PASSAGE] * 2
    assert sum(each.charged for each in result.coverage) == 2
    asked = Counter(world.reached_nodes)
    assert asked == {n: 2 + any(h.reference.node == n for h in result.hits) for n in NODES}


def test_a_node_that_releases_no_texts_is_not_asked_for_any():
    world = World(shards(), highest=ReleaseLevel.REFERENCE)
    result = run_virtually(world.search(replace(HYBRID, level=ReleaseLevel.PASSAGE)))
    assert {hit.released.level for hit in result.hits} == {ReleaseLevel.REFERENCE}
    assert Counter(world.reached_nodes) == dict.fromkeys(NODES, 2)


@pytest.mark.parametrize("mode", [SearchMode.VECTOR, SearchMode.KEYWORD])
@pytest.mark.parametrize("level", [ReleaseLevel.REFERENCE, ReleaseLevel.PASSAGE])
def test_i1_exact_scores_are_for_who_gets_the_passages(mode: SearchMode, level: ReleaseLevel):
    """From enough cosines one can solve for an embedding; ranks say less."""
    world = World(shards())
    result = run_virtually(world.search(replace(HYBRID, mode=mode, level=level)))
    by_rank = [reciprocal_rank(hit.rank) for hit in result.hits]
    assert result.hits
    assert ([hit.score for hit in result.hits] == by_rank) == (level is ReleaseLevel.REFERENCE)


def test_what_a_node_has_taken_back_since_is_left_out():
    """I1: withdrawn, or deleted, between ranking and release."""
    world = World(shards(), {FR: Script(release=Act("nothing"))})
    result = run_virtually(world.search(replace(HYBRID, level=ReleaseLevel.PASSAGE)))
    assert of(result, FR).outcome is Outcome.ANSWERED
    assert {hit.reference.node for hit in result.hits} == {DE, US}
    assert [hit.rank for hit in result.hits] == list(range(1, len(result.hits) + 1))


def test_who_asks_for_counts_gets_no_hits():
    result = run_virtually(World(shards()).search(replace(HYBRID, level=ReleaseLevel.COUNT, partial=True)))
    assert result.complete
    assert result.hits == ()


@pytest.mark.parametrize("mode", list(SearchMode))
def test_provisional_hits_come_with_each_node_that_answers(mode: SearchMode):
    world = World(shards(), {FR: Script(open=Act(delay=1.0)), US: Script(open=Act("die"))})
    events = run_virtually(world.events(replace(HYBRID, mode=mode, partial=True)))
    assert isinstance(events[0], SearchDecided)
    told = [event.node.node for event in events if isinstance(event, Partial)]
    assert told == [DE, FR]
    result = events[-1]
    assert isinstance(result, SearchResult)
    assert of(result, FR).latency_ms >= 1000


def test_whoever_stops_listening_ends_every_call():
    world = World(shards(), {node: Script(open=Act("hang")) for node in (FR, US)})

    async def leave() -> None:
        question = replace(HYBRID, partial=True)
        events = world.asker.search(world.plan(), question)
        async for event in events:
            if isinstance(event, Partial):
                break
        await events.aclose()
        assert len(world.calls) == 3
        assert all(call.cancelled for call in world.calls)
        assert len(asyncio.all_tasks()) == 1, "no task is left behind"

    run_virtually(leave())


def test_a_cancelled_search_ends_every_call():
    world = World(shards(), {node: Script(open=Act("hang")) for node in NODES})

    async def cancel() -> None:
        task = asyncio.create_task(world.search(HYBRID))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert all(call.cancelled for call in world.calls)
        assert len(asyncio.all_tasks()) == 1

    run_virtually(cancel())


def test_a_mistake_of_ours_about_one_node_costs_only_that_node(written: io.StringIO):
    """And the log has no word of the question (I1)."""
    world = World(shards(), {FR: Script(weigh=Act("bug"), open=Act("bug"))})
    result = run_virtually(world.search(SearchQuestion("notes", "w1 xylophone")))
    assert (of(result, FR).outcome, of(result, FR).reason) == (Outcome.FAILED, Reason.INTERNAL)
    assert of(result, DE).outcome is of(result, US).outcome is Outcome.ANSWERED
    assert "ValueError" in written.getvalue()
    assert "xylophon" not in written.getvalue()


def test_a_record_that_says_no_way_there_costs_only_its_own_node():
    world = World(shards())
    french = world._base.candidates[FR]
    nowhere = replace(french, record=replace(french.record, endpoints=()))
    world._base = replace(world._base, candidates={**world._base.candidates, FR: nowhere})
    result = run_virtually(world.search(HYBRID))
    assert (of(result, FR).outcome, of(result, DE).outcome) == (Outcome.FAILED, Outcome.ANSWERED)
    assert not result.complete
    assert failure(fetched(world, FR)).reason is Reason.UNREACHABLE


def test_weighing_anew_has_an_end():
    """No node is asked to weigh more often than a holder allows, however many others drop out."""
    count = MAX_WEIGHS + 3
    nodes = [SpiffeId("de.mesh.example", f"/node/n{i:02}") for i in range(count)]
    vectors = np.eye(6, dtype=np.float32)[[i % 6 for i in range(count)]]
    ids = [bytes([i]) * 16 for i in range(count)]
    corpus = Corpus(ids, vectors, [{"w1": 1}] * count, average_length=1.0)
    # Each round one node more hangs: it answers its first weighing, and the next one never.
    world = World(spread(corpus, range(count), nodes))
    rounds = Counter[SpiffeId]()
    peer = world.peer

    def counting(node: SpiffeId, timeout_s: float) -> object:
        made = peer(node, timeout_s)
        weigh = made.weigh

        async def once_more(target: object, weights: Sequence[float]) -> object:
            rounds[node] += 1
            if nodes.index(node) == rounds[node]:
                raise MeshError(Reason.NODE_LOST, "gone")
            return await weigh(target, weights)  # type: ignore[arg-type]

        made.weigh = once_more  # type: ignore[method-assign, assignment]
        return made

    world.peer = counting  # type: ignore[method-assign, assignment]
    result = run_virtually(world.search(replace(HYBRID, mode=SearchMode.KEYWORD)))
    assert max(rounds.values()) <= MAX_WEIGHS
    assert not result.complete
    left = [each.node for each in result.coverage if each.outcome is Outcome.ANSWERED]
    assert {hit.reference.node for hit in result.hits} == set(left)


# ---- Answers and passages


async def answer(world: World) -> list[AnswerEvent]:
    answering = Answering(world.panels)
    question = AnswerQuestion("notes", "which pump?", timeout_s=5.0)
    return [event async for event in answering.answer(world.plan(), question)]


def answered(world: World) -> tuple[list[AnswerEvent], AnswerResult]:
    events = run_virtually(answer(world))
    result = events[-1]
    assert isinstance(result, AnswerResult)
    return events, result


def test_sentences_come_as_nodes_say_them_and_are_composed_at_the_end():
    world = World(shards())
    world.said = {
        DE: [1.0, says("It is new.", IDS[0], score=0.4), ended(1)],
        FR: [says("It  IS new.", IDS[1], score=0.9), 2.0, says("It leaks.", IDS[4]), ended(2)],
    }
    events, result = answered(world)
    assert isinstance(events[0], SearchDecided)
    told = [event.text for event in events if isinstance(event, AnswerSentence)]
    assert told == ["It  IS new.", "It is new.", "It leaks."]
    assert [event.node.node for event in events if isinstance(event, NodeDone)] == [US, DE, FR]
    assert [(s.text, len(s.references)) for s in result.sentences] == [("It  IS new.", 2), ("It leaks.", 1)]
    assert result.sentences[0].references == (Reference(FR, "notes", IDS[1]), Reference(DE, "notes", IDS[0]))
    assert result.complete
    assert [of(result, node).charged for node in (DE, FR, US)] == [1, 2, 0]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([says("It is new.", IDS[1]), MeshError(Reason.NODE_LOST, "gone")], Reason.NODE_LOST),
        ([says("It is new.", IDS[1])], Reason.PEER_MISBEHAVED),
        ([says("It is new.", IDS[1]), 10.0, ended()], Reason.DEADLINE_EXCEEDED),
        ([*[says(f"It is {i}.", IDS[1]) for i in range(17)], ended()], Reason.PEER_MISBEHAVED),
        ([says("It is new.", IDS[1], level=2), ended()], Reason.PEER_MISBEHAVED),
        ([says("It is new.", IDS[1], score=7.0), ended()], Reason.PEER_MISBEHAVED),
        ([says("It is new."), ended()], Reason.PEER_MISBEHAVED),
        ([says("It is new.", b"short"), ended()], Reason.PEER_MISBEHAVED),
        ([says("x" * 5000, IDS[1]), ended()], Reason.PEER_MISBEHAVED),
        ([retrieval_pb2.ShardAnswerResponse()], Reason.PEER_MISBEHAVED),
    ],
)
def test_a_node_that_does_not_come_to_its_end_properly_is_not_in_the_answer(
    parts: list[object], reason: Reason
):
    world = World(shards())
    world.said = {DE: [says("It leaks.", IDS[0]), ended()], FR: parts}
    _, result = answered(world)
    assert (of(result, FR).outcome, of(result, FR).reason) == (Outcome.FAILED, reason)
    assert [sentence.text for sentence in result.sentences] == ["It leaks."]
    assert not result.complete
    assert all(saying.cancelled for saying in world.sayings)


def test_a_question_goes_to_permitted_nodes_only():
    """I1."""
    world = World(shards(), {FR: Script(connect=Act(delay=1.0))}, {FR: 0.5, US: 0.0})
    _, result = answered(world)
    assert world.reached_nodes == [DE]
    assert of(result, FR).outcome is of(result, US).outcome is Outcome.NOT_ASKED


def fetched(world: World, node: SpiffeId, level: ReleaseLevel = ReleaseLevel.SNIPPET) -> object:
    question = FetchQuestion(Reference(node, "notes", IDS[1]), level)

    async def work() -> object:
        return await Answering(world.panels).fetch(world.plan(), question)

    return work()


def passage(chunk: bytes, level: int) -> retrieval_pb2.ShardFetchResponse:
    made = retrieval_pb2.ReleasedChunk(id=chunk, level=level, text="text")  # type: ignore[arg-type]
    return retrieval_pb2.ShardFetchResponse(chunk=made)


def test_a_passage_is_asked_of_its_own_node_and_of_no_other():
    world = World(shards())
    world.passages = {FR: passage(IDS[1], 3)}
    hit = run_virtually(fetched(world, FR))  # type: ignore[arg-type]
    assert hit.released.text == "text"
    assert hit.reference == Reference(FR, "notes", IDS[1])
    assert world.reached_nodes == [FR]


def test_a_passage_that_may_not_be_asked_for():
    world = World(shards(), revoked={US: 0.0})
    assert failure(fetched(world, US)).reason is Reason.IDENTITY_REVOKED
    nobody = SpiffeId("us.mesh.example", "/node/n9")
    assert failure(fetched(world, nobody)).reason is Reason.REFERENCE_UNKNOWN
    assert world.reached_nodes == []


@pytest.mark.parametrize(
    "answer", [passage(IDS[2], 3), passage(IDS[1], 4), passage(b"", 3), passage(IDS[1], 2)]
)
def test_another_passage_than_was_asked_for(answer: retrieval_pb2.ShardFetchResponse):
    world = World(shards())
    world.passages = {FR: answer}
    assert failure(fetched(world, FR)).reason is Reason.PEER_MISBEHAVED
