"""Randomised rounds of everything that clients and circumstances do to a mesh; seeded."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import grpc

from mesh.client import MeshClient, collect_answer, collect_search
from mesh.core.retrieval import ReleaseLevel, SearchMode
from mesh.rpc.status import from_rpc_error
from node.index.index import DocumentIndex
from node.retrieval.shards import RemoteShard
from sovereign.mesh.v1 import retrieval_pb2
from tests.support.leaks.arena import Arena, context
from tests.support.leaks.hostile import Hostile
from tests.support.leaks.rules import (
    BARRED_PURPOSE,
    CLASSES,
    COUNTRIES,
    PURPOSE,
    refusing,
    starting_rules,
    withdrawn,
)
from tests.support.leaks.world import COLLECTION
from tests.support.waiting import DEADLINE_S

_TENANTS = ("alder", "birch", "cedar")


class Rounds:
    """What can happen, one thing at a time."""

    def __init__(self, it: Arena, hostile: Hostile | None = None) -> None:
        self._it, self._hostile, self._chance = it, hostile, it.random

    async def some(self, count: int) -> None:
        """So many rounds."""
        kinds: list[tuple[Any, float]] = [
            (self.search, 8),
            (self.answer, 4),
            (self.fetch, 3),
            (self.leave_early, 1),
            (self.break_down, 1),
            (self.malformed, 1),
            (self.withdraw, 0.5),
        ]
        if self._hostile is not None:
            kinds.append((self._hostile.ask, 4))
        share = count / sum(weight for _, weight in kinds)
        acts = [act for act, weight in kinds for _ in range(round(weight * share))]
        self._chance.shuffle(acts)
        for act in acts:
            await act()

    def _asker(self, country: str = "") -> tuple[str, str, tuple[str, ...], str, MeshClient]:
        country, tenant = country or self._chance.choice(COUNTRIES), self._chance.choice(_TENANTS)
        classes = tuple(self._chance.sample(CLASSES, self._chance.choice((1, 1, 1, 2))))
        if self._chance.random() < 0.5:
            classes = ("public",)
        purpose = BARRED_PURPOSE if self._chance.random() < 0.05 else PURPOSE
        return country, tenant, classes, purpose, self._it.clients[country, tenant]

    def _filters(self) -> dict[str, list[str]]:
        """None, harmless ones, and guesses at what one may not know."""
        guessed = self._chance.choice(self._it.documents)
        return self._chance.choice(
            (
                {},
                {},
                {},
                {"class": [self._chance.choice(CLASSES)]},
                {"document": [guessed.id]},
                {"source": [guessed.source]},
                {"owner": [guessed.owner], "class": list(guessed.classes)},
            )
        )

    async def _begin(self, country: str = "") -> Any:
        """A search that was not read yet."""
        country, tenant, classes, purpose, client = self._asker(country)
        chance = self._chance
        return client.search(
            await self._it.question(country, tenant, classes, purpose),
            COLLECTION,
            context=context(classes, purpose),
            k=chance.choice((1, 10, 100, 100)),
            mode=chance.choice(list(SearchMode)),
            level=chance.choice(list(ReleaseLevel)[1:] + [ReleaseLevel.PASSAGE] * 3),
            filters=self._filters(),
            partial=chance.random() < 0.3,
            exact=chance.random() < 0.3,
        )

    async def search(self, country: str = "") -> None:
        """By a client of that country, or of any."""
        stream = await self._begin(country)
        result = await self._it.attempt("search", collect_search(stream))
        if result is not None:
            self._it.references += [str(hit.reference) for hit in result.hits[:5]]

    async def answer(self) -> None:
        country, tenant, classes, purpose, client = self._asker()
        question = await self._it.question(country, tenant, classes, purpose)
        asked = client.answer(
            question, COLLECTION, context=context(classes, purpose), filters=self._filters()
        )
        await self._it.attempt("answer", collect_answer(asked))

    async def fetch(self) -> None:
        """By a reference that somebody was given, or that nobody was."""
        _, _, classes, purpose, client = self._asker()
        it = self._it
        id, (document, _) = self._chance.choice(list(it.judge.owner_of.items()))
        node = it.nodes[self._chance.choice((document.holder, *COUNTRIES))].id
        guess = f"{node.trust_domain}/{node.name}/{COLLECTION}/{id.hex()}"
        reference = self._chance.choice([guess, *it.references[-3:]])
        level = self._chance.choice(list(ReleaseLevel)[2:])
        await it.attempt("fetch", client.fetch(reference, context=context(classes, purpose), level=level))

    async def leave_early(self) -> None:
        """Stops listening in the middle."""
        stream = await self._begin()

        async def one() -> None:
            async with aclosing(stream) as events:
                async for _ in events:
                    return

        await self._it.attempt("left", one())

    async def break_down(self) -> None:
        """An index fails, and says in its error what it was about."""
        with _failing(self._it):
            await self._chance.choice((self.search, self.answer, self.fetch))()

    async def malformed(self) -> None:
        """Requests that are none, or too large, from a client with a right certificate."""
        country, chance = self._chance.choice(COUNTRIES), self._chance
        channel = self._it.mesh[country].caller("alder/desk").channel(self._it.nodes[country])
        huge = retrieval_pb2.SearchRequest(query="pump " * 30_000, collection=COLLECTION)
        data = chance.choice((chance.randbytes(99), huge.SerializeToString(), b"\x0a\x03a"))

        async def send() -> None:
            try:
                begin: Any = channel.unary_stream
                async for _ in begin("/sovereign.mesh.v1.Retrieval/Search")(data, timeout=DEADLINE_S):
                    pass
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None

        await self._it.attempt("malformed", send())

    async def withdraw(self) -> None:
        """A policy changes between the steps of a search: at the holder, or at the asker's authority."""
        it, before = self._it, {country: rules[-1] for country, rules in self._it.epochs[-1].items()}
        country, other = self._chance.sample(COUNTRIES, 2)
        change = self._chance.choice((withdrawn, refusing))(before[country], other)
        changed = False

        async def once() -> None:
            nonlocal changed
            if not changed:
                changed = True
                async with it.changing(country, change):
                    pass

        with _between_steps(once):
            await self.search(other if change.releases != before[country].releases else country)
        await once()
        await self._chance.choice((self.search, self.answer, self.fetch))()
        async with it.changing(country, starting_rules()[country]):
            pass


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[Any]:
    before = getattr(owner, name)
    setattr(owner, name, value(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _failing(it: Arena) -> Iterator[None]:
    chance = random.Random(it.random.random())  # its own: it is called from threads

    def chunks(before: Any) -> Any:
        def failing(self: DocumentIndex, ids: Any, groups: Any) -> Any:
            found = before(self, ids, groups)
            if found and chance.random() < 0.7:
                document = chance.choice(it.documents)
                raise ValueError(f"bad row in {document.id} {document.title}: {document.texts}")
            return found

        return failing

    with _patched(DocumentIndex, "chunks", chunks):
        yield


@contextlib.contextmanager
def _between_steps(act: Any) -> Iterator[None]:
    """Has `act` happen when the first node has opened a search and is about to be asked on."""

    def later(before: Any) -> Any:
        async def step(self: RemoteShard, target: Any, *arguments: Any) -> Any:
            await act()
            return await before(self, target, *arguments)

        return step

    with _patched(RemoteShard, "weigh", later), _patched(RemoteShard, "release", later):
        yield
