"""The leak test: a mesh with canaries in every document, and a record of every byte its nodes say and hear.

Whatever clients, failures and a hostile node do: nothing above the level that the policies permit is in
that record, nor in logs, evidence, metrics, files or crash output; and no question is where it may not be
(I1). What is permitted is read from tables by code that shares nothing with the product
(tests/support/leaks). Leaks that are put in on purpose show that it would be noticed.
"""

import contextlib
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.client import MeshError, SearchDecided, SearchResult, collect_answer
from tests.support.leaks.arena import EMBEDDER, Arena, arena, context
from tests.support.leaks.hostile import COUNTRY, MARK, NAME, hostile_node
from tests.support.leaks.judge import Finding
from tests.support.leaks.plants import PLANTS, planted
from tests.support.leaks.processes import processes
from tests.support.leaks.rounds import Rounds
from tests.support.leaks.rules import COUNTRIES, PURPOSE, Asked
from tests.support.leaks.world import COLLECTION, TENANTS, VOCABULARY, Coiner
from tests.support.scraping import scrape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOSTILE = f"spiffe://{COUNTRY.lower()}.mesh.example/node/{NAME}"


def summary(findings: list[Finding]) -> str:
    return "\n".join(f"{count} x {each.what} in {each.where}" for each, count in Counter(findings).items())


def served(it: Arena, what: str) -> int:
    return it.outcomes[f"{what} ok"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_I1_nothing_above_the_permitted_level_is_said_or_written(tmp_path: Path, seed: int) -> None:
    async with arena(tmp_path, seed, hostile=(HOSTILE,)) as it, hostile_node(it) as hostile:
        await Rounds(it, hostile).some(250)
        findings = it.findings()
        assert not findings, summary(findings)
        # It was a test of something: questions were answered and refused, rules changed, mischief done.
        assert served(it, "search") > 40
        assert served(it, "answer") > 20
        assert served(it, "fetch") > 3
        assert len(it.epochs) > 6
        assert hostile.shard.asked > 40
        assert it.judge.judged > 1_000_000
        shown = {each.least for each in it.judge.seen}
        assert shown >= {2, 3, 4}, "references, excerpts and passages were given out where they may be"
        assert MARK not in it.log.getvalue()
        assert all(MARK not in str(node.entries) for node in it.nodes.values())
        for node in it.nodes.values():
            page = await scrape(node.metrics_port)
            assert MARK not in page.text
            assert not [tenant for tenant in (*TENANTS, PURPOSE) if tenant in page.text]
            assert page.value("sovereign_mesh_flows_total", action="search") > 10


@pytest.mark.parametrize("name", PLANTS)
async def test_a_leak_put_in_on_purpose_is_found(tmp_path: Path, name: str) -> None:
    _, what, where = PLANTS[name]
    async with arena(tmp_path, 3) as it:
        rounds, findings = Rounds(it), list[Finding]()
        with planted(name, it):
            for _ in range(8):
                for _ in range(3):
                    await rounds.search()
                    await rounds.answer()
                    if "withdrawn" in name:
                        await rounds.withdraw()
                findings = it.findings()
                if any(f.what == what and f.where.startswith(where) for f in findings):
                    return
        pytest.fail(f"found was only:\n{summary(findings)}")


async def test_I1_nothing_leaks_from_processes_that_are_killed_and_crash(tmp_path: Path) -> None:
    async with processes(tmp_path, 4) as it:
        chance, coiner = random.Random(4), Coiner(5)

        async def ask(country: str, *, then: Callable[[], None] = lambda: None) -> SearchResult | None:
            """A search at the level of passages; `then` happens when it has begun."""
            word = coiner.word("mp")
            text = f"{' '.join(chance.sample(VOCABULARY, 5))} {word}"
            (vector,) = await EMBEDDER.embed([text])
            it.judge.question(word, Asked(country, TENANTS[0], PURPOSE, ("public",)), vector)
            result = None
            with contextlib.suppress(MeshError):
                stream = it.clients[country].search(
                    text, COLLECTION, context=context(("public",)), k=100, level="passage", partial=True
                )
                async for event in stream:
                    if isinstance(event, SearchDecided):
                        then()
                    elif isinstance(event, SearchResult):
                        result = event
                answer = it.clients[country].answer(text, COLLECTION, context=context(("public",)))
                await collect_answer(answer)
            return result

        for country in COUNTRIES * 3:
            result = await ask(country)
            assert result is not None
            assert result.complete

        # Killed in the middle of a question, and back again; then one that crashes, and says where.
        lost, crashing = it.nodes["US"].process, it.nodes["FR"].process
        assert lost is not None
        assert crashing is not None
        await ask("DE", then=lost.kill)
        assert await it.nodes["US"].end(signal.SIGKILL) == -signal.SIGKILL
        it.nodes["US"].start()
        await ask("DE", then=lambda: crashing.send_signal(signal.SIGABRT))
        assert await it.nodes["FR"].end(signal.SIGABRT) == -signal.SIGABRT
        await it.restarted("US")
        assert await ask("US") is not None
        for country in ("DE", "US"):
            await it.nodes[country].end(signal.SIGTERM)

        findings = it.findings()
        assert not findings, summary(findings)
        assert all(each.pages for each in (it.nodes["DE"], it.nodes["US"]))
        assert b"Fatal Python error: Aborted" in (it.nodes["FR"].folder / "stderr.log").read_bytes()
        assert all(flows for each in it.nodes.values() for flows in each.flows())
        assert {each.least for each in it.judge.seen} >= {2, 3, 4}
