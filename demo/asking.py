"""Documents stay, questions travel: three nodes take in their own; one question, three askers."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

from demo.cast import DE, FR, US, id_of
from demo.telling import Teller, short
from demo.world import NODE_NAMES, World
from mesh.client import MeshClient
from mesh.core.questions import AnswerResult, SearchResult
from mesh.core.retrieval import Coverage, Outcome, ReleaseLevel
from mesh.core.types import RequestContext

CORPUS = Path(__file__).parent / "corpus"
COLLECTION = "handbook"
QUESTION = "How long does the emergency generator run without new fuel?"
OPEN_QUESTION = RequestContext.of(["public"], "operations/continuity")
BUSINESS_QUESTION = RequestContext.of(["internal"], "operations/continuity")
# What each corpus says.
FACTS = {DE: "36 hours", FR: "48 hours", US: "72 hours"}


async def documents_are_taken_in(world: World, tell: Teller) -> None:
    """Each authority defines the collection; each node takes in its own documents, and nobody else's."""
    stored: dict[str, int] = {}
    for country, name in NODE_NAMES.items():
        authority = world.authorities[country]
        tell.asked(f"the {country} administrator: {name} shall hold demo/corpus/{country.lower()}")
        await world.make_index(country, COLLECTION)
        await world.meshctl(
            "index",
            "ingest",
            COLLECTION,
            str(CORPUS / country.lower()),
            "--node",
            name,
            profile=authority.admin,
        )
        status = await world.meshctl("index", "status", "--node", name, profile=authority.admin)
        (index,) = status["indexes"]
        stored[name] = index["documents"]
        tell.note(f"{name} holds {index['documents']} documents in {index['chunks']} chunks")
    expected = {name: len(list((CORPUS / c.lower()).glob("*.md"))) for c, name in NODE_NAMES.items()}
    tell.expect("every document is held by its own node", stored == expected, str(stored))
    held = await world.holders(COLLECTION, len(NODE_NAMES))
    tell.expect(
        "every authority sees three nodes with the same settings",
        held == {id_of(world, n) for n in NODE_NAMES.values()},
        ", ".join(map(short, sorted(held))),
    )


async def _searched(client: MeshClient, context: RequestContext) -> SearchResult:
    result: SearchResult | None = None
    async with aclosing(
        client.search(QUESTION, COLLECTION, k=10, level="passage", context=context, timeout_s=20)
    ) as events:
        async for event in events:
            if isinstance(event, SearchResult):
                result = event
    assert result is not None
    return result


def _by_node(result: SearchResult | AnswerResult) -> dict[str, Coverage]:
    return {coverage.node.name: coverage for coverage in result.coverage}


async def one_question_three_askers(world: World, tell: Teller) -> None:
    """The same question, and what each asker may see of each node's documents."""
    results: dict[str, SearchResult] = {}
    for asker, who in (("clinic", "a clinic (DE)"), ("bank", "a bank (FR)"), ("coast", "an agency (US)")):
        tell.asked(f"{who}: “{QUESTION}”")
        async with world.client(asker) as client:
            results[asker] = await _searched(client, OPEN_QUESTION)
        tell.hits(results[asker].hits[:6])
        tell.coverage(results[asker].coverage)

    def seen(asker: str, node: str) -> ReleaseLevel:
        levels = [hit.released.level for hit in results[asker].hits if hit.reference.node.name == node]
        return max(levels, default=ReleaseLevel.NOTHING)

    own = {"clinic": DE, "bank": FR, "coast": US}
    tell.expect(
        "everybody reads passages of the own node",
        all(seen(asker, node) is ReleaseLevel.PASSAGE for asker, node in own.items()),
    )
    level = seen("bank", DE)
    tell.expect("the bank sees excerpts of the hospital's", level is ReleaseLevel.SNIPPET, level.word)
    level = seen("clinic", FR)
    tell.expect("the clinic sees references to the bank's", level is ReleaseLevel.REFERENCE, level.word)
    counted = _by_node(results["coast"])[DE].counted
    shown = " ".join(h.released.text for h in results["coast"].hits if h.reference.node.name == DE)
    tell.expect(
        "the agency reads the hospital's public pages; of its internal ones it learns how many match",
        FACTS[DE] not in shown and counted > 0,
        f"{counted} counted",
    )
    tell.expect("every node answered each time", all(result.complete for result in results.values()))

    tell.asked("the clinic: the same, now as an internal question")
    async with world.client("clinic") as client:
        internal = await _searched(client, BUSINESS_QUESTION)
    tell.coverage(internal.coverage)
    us = _by_node(internal)[US]
    tell.expect(
        "the US node was not asked, and the result says which policy and that it is not complete",
        us.outcome is Outcome.NOT_ASKED and us.reason is not None and not internal.complete,
        us.reason.code if us.reason else "",
    )


async def answered_where_the_data_is(world: World, tell: Teller) -> None:
    """Every node answers from its own passages with its own model; only the answers travel."""
    answers: dict[str, AnswerResult] = {}
    for asker, who in (("bank", "the bank (FR)"), ("coast", "the agency (US)")):
        tell.asked(f"{who}: answer “{QUESTION}”")
        async with (
            world.client(asker) as client,
            aclosing(client.answer(QUESTION, COLLECTION, context=OPEN_QUESTION)) as events,
        ):
            async for event in events:
                if isinstance(event, AnswerResult):
                    answers[asker] = event
        tell.sentences(answers[asker].sentences)
        tell.coverage(answers[asker].coverage)

    def said(asker: str, node: str) -> str:
        return " ".join(
            s.text for s in answers[asker].sentences if any(r.node.name == node for r in s.references)
        )

    for node in (FR, DE):
        tell.expect(
            f"{short(id_of(world, node))} answers the bank from its own documents",
            FACTS[node] in said("bank", node),
            said("bank", node)[:80],
        )
    tell.expect(
        "the agency is answered by its own node", FACTS[US] in said("coast", US), said("coast", US)[:80]
    )
    german = _by_node(answers["coast"])[DE]
    tell.expect(
        "the hospital, which may only count for it, says nothing, and the answer says so",
        not said("coast", DE) and german.counted > 0,
        f"{german.counted} counted",
    )
    every = [s for answer in answers.values() for s in answer.sentences]
    tell.expect("every sentence has its references", bool(every) and all(s.references for s in every))
