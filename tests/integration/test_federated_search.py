"""Questions travel, documents stay: three real nodes, mutual TLS, real policies, one question."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mesh.client import (
    MeshClient,
    MeshError,
    Partial,
    PlacementRefused,
    Reason,
    ReleaseLevel,
    RequestContext,
    SearchDecided,
    SearchResult,
    collect_answer,
    collect_search,
)
from mesh.core.retrieval import Coverage, Outcome
from mesh.core.types import Action
from mesh.sdk.placers import Server
from tests.support.audit_log import between, report_of
from tests.support.federation import COLLECTION, INTERNAL, Federation, federation_of, retrieval_parts
from tests.support.snapshots import PERMIT_ALL

pytestmark = pytest.mark.slow

TEXTS = {
    "DE": {
        "de-1": "The pump in ward 3 was replaced on Monday.",
        "de-2": "Visiting hours end at eight.",
        "de-3": "The boiler was inspected by Otto Quandt.",
    },
    "FR": {
        "fr-1": "A pump of the second ward leaks; call the plumber.",
        "fr-2": "The pump pump pump room is locked.",
    },
    "US": {
        "us-1": "Pump maintenance is due in ward 7 every March.",
        "us-2": "The parking lot is full.",
    },
}
MODES = ("vector", "keyword", "hybrid")
NOT_TO_US = """
@id("all") permit (principal, action, resource);
@id("de-no-search-abroad") forbid (principal, action == Action::"search", resource in Jurisdiction::"US");
"""
ONLY_COUNT = """
@id("all") permit (principal, action, resource);
@id("fr-only-count") forbid (principal in Jurisdiction::"DE", action == Action::"release", resource)
when { context.level != "count" };
"""
ONLY_SNIPPETS = """
@id("all") permit (principal, action, resource);
@id("fr-no-passages") forbid (principal in Jurisdiction::"DE", action == Action::"release", resource)
when { context.level == "passage" };
"""


def by_country(result: SearchResult) -> dict[str, Coverage]:
    return {each.node.trust_domain[:2].upper(): each for each in result.coverage}


async def ask(there: Federation, text: str = "pump in the ward", **options: object) -> SearchResult:
    return await collect_search(
        there.client.search(text, COLLECTION, context=INTERNAL, timeout_s=20, **options)  # type: ignore[arg-type]
    )


async def test_a_question_is_answered_by_all_as_by_one(tmp_path: Path):
    """The same documents on one node and on three: the same ranking, by text, in every mode."""
    everything = {name: text for texts in TEXTS.values() for name, text in texts.items()}
    async with federation_of(tmp_path / "three", TEXTS) as three:
        spread = {mode: await ask(three, mode=mode, level="passage") for mode in MODES}
    async with federation_of(tmp_path / "one", {"DE": everything}) as one:
        central = {mode: await ask(one, mode=mode, level="passage") for mode in MODES}
    for mode in MODES:
        assert spread[mode].complete
        assert [each.outcome for each in spread[mode].coverage] == [Outcome.ANSWERED] * 3
        assert [hit.rank for hit in spread[mode].hits] == list(range(1, len(spread[mode].hits) + 1))
        found = [(hit.released.document, hit.score) for hit in spread[mode].hits]
        assert found == [(hit.released.document, hit.score) for hit in central[mode].hits]
        assert {hit.released.text for hit in spread[mode].hits} <= set(everything.values())
        assert len({hit.reference.node for hit in spread[mode].hits}) == 3


async def test_partial_hits_and_references_that_can_be_fetched(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS) as there:
        stream = there.client.search("pump", COLLECTION, context=INTERNAL, partial=True, timeout_s=20)
        events = [event async for event in stream]
        assert isinstance(events[0], SearchDecided)
        partials = [event for event in events if isinstance(event, Partial)]
        assert {event.node.node for event in partials} == {node.id for node in there.nodes.values()}
        result = events[-1]
        assert isinstance(result, SearchResult)
        assert all(hit.released.level is ReleaseLevel.REFERENCE for hit in result.hits)
        assert all(not hit.released.text and not hit.released.title for hit in result.hits)
        everything = {text for texts in TEXTS.values() for text in texts.values()}
        for hit in result.hits:
            fetched = await there.client.fetch(str(hit.reference), context=INTERNAL)
            assert fetched.reference == hit.reference
            assert fetched.released.text in everything
        unknown = str(result.hits[0].reference)[:-4] + "0000"
        with pytest.raises(MeshError) as refused:
            await there.client.fetch(unknown, context=INTERNAL)
        assert refused.value.reason is Reason.REFERENCE_UNKNOWN


async def test_policies_decide_who_is_asked_and_what_leaves(tmp_path: Path):
    """I1, I2, I3: a node that the asker's authority excludes is not asked; the holder decides what leaves."""
    async with federation_of(tmp_path, TEXTS, {"DE": NOT_TO_US, "FR": ONLY_SNIPPETS}) as there:
        result = await ask(there, level="passage")
        coverage = by_country(result)
        assert coverage["US"].outcome is Outcome.NOT_ASKED
        assert coverage["US"].reason is Reason.POLICY_SENDER_DENIES
        assert coverage["US"].policies == ("de-no-search-abroad",)
        assert not result.complete
        levels = {(hit.reference.node.trust_domain[:2], hit.released.level) for hit in result.hits}
        assert levels == {("de", ReleaseLevel.PASSAGE), ("fr", ReleaseLevel.SNIPPET)}
        assert coverage["FR"].highest is ReleaseLevel.SNIPPET
        assert there.nodes["US"].entries == [], "nothing came there"
        french = next(hit for hit in result.hits if hit.reference.node.trust_domain.startswith("fr"))
        american = str(french.reference).replace("fr.mesh.example/par-1", "us.mesh.example/iad-1")
        with pytest.raises(MeshError) as refused:
            await there.client.fetch(american, context=INTERNAL)
        assert refused.value.reason is Reason.POLICY_SENDER_DENIES
        assert refused.value.metadata["policies"] == "de-no-search-abroad"


async def test_a_node_that_may_only_count_says_how_many(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS, {"FR": ONLY_COUNT}) as there:
        result = await ask(there, mode="keyword", level="passage")
        french = by_country(result)["FR"]
        assert (french.outcome, french.counted, french.highest) == (Outcome.ANSWERED, 2, ReleaseLevel.COUNT)
        assert {hit.reference.node.trust_domain for hit in result.hits} == {
            "de.mesh.example",
            "us.mesh.example",
        }
        answer = await collect_answer(
            there.client.answer("Which pump was replaced?", COLLECTION, context=INTERNAL)
        )
        assert answer.sentences
        assert all(ref.node.trust_domain[:2] != "fr" for s in answer.sentences for ref in s.references)
        assert {each.node: each.highest for each in answer.coverage}[
            there.nodes["FR"].id
        ] is ReleaseLevel.COUNT


async def test_a_dead_node_costs_coverage_and_not_correctness(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS) as there:
        await there.nodes["FR"].runtime.server.stop(0)
        result = await ask(there, level="passage")
        coverage = by_country(result)
        assert coverage["FR"].outcome is Outcome.FAILED
        assert coverage["FR"].reason in (Reason.UNREACHABLE, Reason.NODE_LOST)
        assert not result.complete
        found = [(hit.released.document, hit.score) for hit in result.hits]
    left = {"DE": {**TEXTS["DE"], **TEXTS["US"]}}
    async with federation_of(tmp_path / "left", left) as there:
        central = await ask(there, level="passage")
        assert found == [(hit.released.document, hit.score) for hit in central.hits]


async def test_an_answer_has_citations_of_every_node_that_gave_it(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS) as there:
        answer = await collect_answer(
            there.client.answer("When was the pump in ward 3 replaced?", COLLECTION, context=INTERNAL)
        )
        assert answer.complete
        assert any("Monday" in sentence.text for sentence in answer.sentences)
        for sentence in answer.sentences:
            for reference in sentence.references:
                passage = await there.client.fetch(reference, context=INTERNAL)
                assert sentence.text.rstrip(".") in passage.released.text


async def test_what_is_refused_before_anything_is_asked(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS) as there:
        with pytest.raises(MeshError) as unknown:
            await collect_search(there.client.search("pump", "nothing", context=INTERNAL))
        assert unknown.value.reason is Reason.COLLECTION_UNKNOWN
        with pytest.raises(MeshError) as wordless:
            await ask(there, text="the of and", mode="keyword")
        assert wordless.value.reason is Reason.REQUEST_INVALID
        for node in there.nodes.values():
            assert not [entry for entry in node.entries if entry["kind"] == "shard"]


async def test_nobody_may_ask(tmp_path: Path):
    forbidden = f'{PERMIT_ALL} @id("no-search") forbid (principal, action == Action::"search", resource);'
    async with federation_of(tmp_path, TEXTS, {"DE": forbidden}) as there:
        with pytest.raises(PlacementRefused) as refused:
            await ask(there)
        assert refused.value.reason is Reason.NOT_PERMITTED
        assert refused.value.reason.is_policy


async def test_evidence_at_both_ends_and_no_word_of_the_question(tmp_path: Path):
    """I7: who was asked and what became of it, at the asker; who asked and what left, at the holder. I1."""
    async with federation_of(tmp_path, TEXTS) as there:
        question = "pump xylophone"
        result = await ask(there, text=question, level="passage")
        asker = there.nodes["DE"].entries
        decided = next(e for e in asker if e["kind"] == "search")
        assert decided["outcome"] == "served"
        assert len(decided["asks"]["ranked"]) == 3
        async with asyncio.timeout(10):
            while not any(e["kind"] == "covered" for e in asker):  # noqa: ASYNC110 - after the result
                await asyncio.sleep(0.005)
        covered = next(e for e in asker if e["kind"] == "covered")
        assert {n["outcome"] for n in covered["nodes"]} == {"answered"}
        assert covered["id"] == decided["id"]
        for country in ("FR", "US"):
            kinds = [e["kind"] for e in there.nodes[country].entries]
            assert kinds.count("shard") == 1
            assert kinds.count("release") == 1
        report = report_of({country: node.entries for country, node in there.nodes.items()})
        assert between(report) == {
            ("DE", "DE", "questions"): 1,  # the client's, to its asker
            ("DE", "FR", "questions"): 1,  # each told of by both ends, and one flow
            ("DE", "US", "questions"): 1,
            **{(country, "DE", "releases"): 1 for country in there.nodes},
        }
        assert {row["both_ends"] for row in report["flows"]["rows"]} == {1}
        assert {tuple(row["data_classes"]) for row in report["releases"]["rows"]} == {("internal",)}
        assert report["totals"]["chunks_released"] == len(result.hits)
        assert not any(report["doubts"].values())
        assert not any(each["unreadable"] for each in report["logs"])
        written = json.dumps([node.entries for node in there.nodes.values()])
        secrets = ["xylophone", *(hit.released.text for hit in result.hits)]
        secrets += [hit.released.document for hit in result.hits]
        secrets += [hit.reference.id.hex() for hit in result.hits]
        assert not [secret for secret in secrets if secret in written]


async def test_the_next_node_of_the_own_authority_asks(tmp_path: Path):
    """The node that was placed is lost before it said anything: another own one asks, and holds nothing."""
    async with federation_of(tmp_path, TEXTS) as there:
        second = await there.mesh["DE"].node("ulm-1", retrieval=retrieval_parts(tmp_path / "ulm"))
        await there.mesh.settled()
        await there.nodes["DE"].runtime.server.stop(0)  # its status says for a while that it is ready
        source = there.mesh["DE"].identity.source("/client/firm/desk", there.mesh.bundles)
        async with MeshClient(source, [Server(second.id, second.endpoint)]) as client:
            placed = await client.place(INTERNAL, action=Action.SEARCH, model=COLLECTION)
            assert [target.node for target in placed.targets] == [there.nodes["DE"].id, second.id]
            stream = client.search("pump ward", COLLECTION, context=INTERNAL, timeout_s=20)
            events = [event async for event in stream]
        assert isinstance(events[0], SearchDecided)
        assert events[0].decision.decided_by == second.id
        result = events[-1]
        assert isinstance(result, SearchResult)
        coverage = by_country(result)
        assert coverage["DE"].outcome is Outcome.FAILED
        assert coverage["FR"].outcome is Outcome.ANSWERED
        assert result.hits


async def test_closing_the_stream_ends_the_shards(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS) as there:
        stream = there.client.search("pump", COLLECTION, context=INTERNAL, timeout_s=20)
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(10):
            for node in there.nodes.values():
                while len(node.runtime.live):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)


async def test_a_context_of_another_tenant_is_refused(tmp_path: Path):
    async with federation_of(tmp_path, TEXTS) as there:
        foreign = RequestContext.of(["internal"], "care/triage", tenant="other")
        with pytest.raises(MeshError) as refused:
            await collect_search(there.client.search("pump", COLLECTION, context=foreign))
        assert refused.value.reason is Reason.TENANT_MISMATCH
