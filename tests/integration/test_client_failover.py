"""The SDK in front of real nodes with scripted engines: place, send, fail over, never cross a border."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.client import (
    Event,
    FailedOver,
    Finished,
    MeshClient,
    MeshError,
    Mode,
    Placed,
    PlacementRefused,
    Reason,
    RequestContext,
    Sampling,
    Started,
    Token,
    collect,
)
from mesh.core.types import Action
from tests.support.control import client_of, control_of
from tests.support.mesh import Mesh, Node, mesh_of

CONFIDENTIAL = RequestContext.of(["confidential"], "contracts/review")
SPECIAL = RequestContext.of(["special-category"], "care/triage")
PUBLIC = RequestContext.of(["public"], "press/leaflet")
LONG = Sampling(max_tokens=200, ignore_eos=True)
SLOW = 0.005
DEADLINE_S = 20.0

pytestmark = pytest.mark.slow


class Trio:
    """DE, FR and US with a node each, and a client of DE that can also ask the control plane."""

    def __init__(self, mesh: Mesh, nodes: dict[str, Node], client: MeshClient) -> None:
        self.mesh = mesh
        self.nodes = nodes
        self.client = client

    def node(self, country: str) -> Node:
        return self.nodes[country]

    def seen(self, country: str) -> int:
        return self.nodes[country].engine.seen

    def country_of(self, event: Started | Finished | FailedOver) -> str:
        node = event.to_node if isinstance(event, FailedOver) else event.node
        return node.trust_domain.split(".")[0].upper()


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    async with mesh_of(tmp_path, "DE", "FR", "US") as mesh:
        nodes = {}
        for country, name in (("DE", "fra-1"), ("FR", "par-1"), ("US", "iad-1")):
            nodes[country] = await mesh[country].node(name)
        async with (
            control_of(mesh["DE"].identity.ca, mesh.board, tmp_path / "control") as control,
            client_of(mesh, "DE/firm/desk", control.server) as client,
        ):
            yield Trio(mesh, nodes, client)


async def until(stream: AsyncIterator[Event], kind: type, seen: list[Event]) -> Event:
    """Reads on to the first event of this kind."""
    async with asyncio.timeout(DEADLINE_S):
        async for event in stream:
            seen.append(event)
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


async def rest(stream: AsyncIterator[Event], seen: list[Event]) -> list[Event]:
    async with asyncio.timeout(DEADLINE_S):
        async for event in stream:
            seen.append(event)
    return seen


def text_of(seen: list[Event]) -> str:
    text = ""
    for event in seen:
        if isinstance(event, Token):
            text += event.text
        elif isinstance(event, FailedOver) and event.mode is Mode.RESTARTED:
            text = ""
    return text


async def test_events_come_in_order_and_explain_themselves(trio: Trio):
    seen = await rest(trio.client.chat("scripted", "hello", context=SPECIAL), [])
    assert isinstance(seen[0], Placed)
    assert isinstance(seen[1], Started)
    assert isinstance(seen[-1], Finished)
    assert all(isinstance(event, Token) for event in seen[2:-1])
    assert trio.country_of(seen[1]) == "DE"
    assert seen[0].decision.chosen == trio.node("DE").id
    assert {r.node for r in seen[0].decision.refused} <= {trio.node("FR").id, trio.node("US").id}
    assert seen[-1].completion_tokens == sum(e.tokens for e in seen if isinstance(e, Token))


@pytest.mark.parametrize("way", ["node", "engine"])
async def test_I1_a_confidential_stream_is_resumed_in_france_and_never_in_the_us(trio: Trio, way: str):
    """Story step 8: the text is that of a stream that was never broken."""
    for node in trio.nodes.values():
        node.engine.script.per_token_s = SLOW
    whole = await collect(trio.client.chat("scripted", "a contract", context=CONFIDENTIAL, sampling=LONG))
    trio.node("FR").engine.script.first_token_s = 0.0
    seen: list[Event] = []
    async with aclosing(
        trio.client.chat("scripted", "a contract", context=CONFIDENTIAL, sampling=LONG)
    ) as stream:
        started = await until(stream, Started, seen)
        for _ in range(5):
            await until(stream, Token, seen)
        first = trio.country_of(started)
        lost = trio.node(first)
        before = trio.seen("US")
        if way == "node":
            await lost.runtime.stop()
        else:
            lost.engine.die()
        await rest(stream, seen)
    (moved,) = [event for event in seen if isinstance(event, FailedOver)]
    other = "FR" if first == "DE" else "DE"
    assert trio.country_of(moved) == other
    assert moved.mode is Mode.RESUMED
    assert moved.kept_tokens >= 5
    assert moved.discarded_tokens == 0
    assert isinstance(seen[-1], Finished)
    assert seen[-1].completion_tokens == LONG.max_tokens
    assert text_of(seen) == whole.text
    assert trio.seen("US") == before == 0


async def test_I1_a_special_category_stream_fails_clearly_when_its_only_node_is_lost(trio: Trio):
    trio.node("DE").engine.script.per_token_s = SLOW
    seen: list[Event] = []
    async with aclosing(trio.client.chat("scripted", "a patient", context=SPECIAL, sampling=LONG)) as stream:
        await until(stream, Token, seen)
        await trio.node("DE").runtime.stop()
        with pytest.raises(MeshError) as failure:
            await rest(stream, seen)
    assert failure.value.reason is Reason.NODE_LOST
    assert str(trio.node("DE").id) in failure.value.message
    assert trio.seen("FR") == trio.seen("US") == 0


async def test_I1_without_any_placer_left_it_fails_clearly_too(trio: Trio):
    trio.node("DE").engine.script.per_token_s = SLOW
    async with client_of(trio.mesh, "DE/firm/other") as client:
        seen: list[Event] = []
        async with aclosing(client.chat("scripted", "a patient", context=SPECIAL, sampling=LONG)) as stream:
            await until(stream, Token, seen)
            await trio.node("DE").runtime.stop()
            with pytest.raises(MeshError) as failure:
                await rest(stream, seen)
    assert failure.value.reason is Reason.NODE_LOST
    assert "UNREACHABLE" in failure.value.message


async def test_sixteen_at_once_spread_over_both_permitted_nodes(trio: Trio):
    """Story step 2."""
    for node in trio.nodes.values():
        node.engine.script.per_token_s = SLOW

    async def one() -> str:
        sampling = Sampling(max_tokens=20, ignore_eos=True)
        done = await collect(trio.client.chat("scripted", "x", context=CONFIDENTIAL, sampling=sampling))
        return trio.country_of(done.finished)

    async with asyncio.timeout(DEADLINE_S):
        served = Counter(await asyncio.gather(*(one() for _ in range(16))))
    assert served["DE"] + served["FR"] == 16
    assert min(served["DE"], served["FR"]) >= 4
    assert trio.seen("US") == 0


async def test_withdrawing_a_policy_moves_new_requests_home_and_loses_none(trio: Trio):
    """Story step 9: the client holds permits for FR when DE withdraws it; each request is served."""
    trio.node("DE").engine.script.first_token_s = 0.0
    cedar = (Path(__file__).parents[2] / "examples/policies/de.cedar").read_text()
    withdrawn = cedar + (
        '\n@id("de-withdraws-fr")\nforbid(principal, action, resource in Jurisdiction::"FR");\n'
    )
    stop = asyncio.Event()
    one_more = asyncio.Condition()
    served: list[str] = []

    async def steady() -> None:
        sampling = Sampling(max_tokens=4, ignore_eos=True)
        while not stop.is_set():
            done = await collect(trio.client.chat("scripted", "x", context=CONFIDENTIAL, sampling=sampling))
            async with one_more:
                served.append(trio.country_of(done.finished))
                one_more.notify_all()

    async with asyncio.timeout(DEADLINE_S):
        tasks = [asyncio.create_task(steady()) for _ in range(4)]
        async with one_more:
            await one_more.wait_for(lambda: {"DE", "FR"} <= set(served))
        await trio.mesh["DE"].apply_policy(withdrawn)
        await trio.mesh.settled()
        after, seen = len(served), trio.seen("FR")
        async with one_more:
            await one_more.wait_for(lambda: len(served) >= after + 40)
        stop.set()
        await asyncio.gather(*tasks)
    assert set(served[after + 4 :]) == {"DE"}
    assert trio.seen("FR") <= seen + 4


async def test_a_refusal_names_every_node_and_is_one_of_policy(trio: Trio):
    """Story step 4."""
    narrowed = RequestContext.of(["special-category"], "care/triage", allowed_jurisdictions=["US"])
    with pytest.raises(PlacementRefused) as refusal:
        await collect(trio.client.chat("scripted", "x", context=narrowed))
    assert refusal.value.reason is Reason.NOT_PERMITTED
    assert refusal.value.reason.is_policy
    assert refusal.value.decision is not None
    assert {r.node for r in refusal.value.decision.refused} == {n.id for n in trio.nodes.values()}
    assert [trio.seen(c) for c in trio.nodes] == [0, 0, 0]


async def test_an_unknown_model_is_said_to_be_unknown(trio: Trio):
    with pytest.raises(MeshError) as failure:
        await collect(trio.client.chat("no-such-model", "x", context=PUBLIC))
    assert failure.value.reason in (Reason.MODEL_UNKNOWN, Reason.NOT_PERMITTED)


async def test_closing_the_stream_frees_the_engine(trio: Trio):
    node = trio.node("DE")
    node.engine.script.per_token_s = SLOW
    seen: list[Event] = []
    async with aclosing(trio.client.chat("scripted", "x", context=SPECIAL, sampling=LONG)) as stream:
        await until(stream, Token, seen)
    await node.idle()


async def test_embedding_is_placed_checked_and_fails_over(trio: Trio):
    placed = await trio.client.place(CONFIDENTIAL, action=Action.EMBED)
    assert placed.decision.chosen is not None
    first = trio.nodes[placed.decision.chosen.trust_domain.split(".")[0].upper()]
    found = await trio.client.embed(["eins", "deux"], context=CONFIDENTIAL)
    assert len(found.vectors) == 2
    assert len(found.vectors[0]) == len(found.vectors[1]) > 0
    first.engine.die()
    again = await trio.client.embed(["eins", "deux"], context=CONFIDENTIAL)
    assert again.node != first.id
    assert again.vectors == found.vectors
    assert trio.seen("US") == 0


async def test_the_home_node_is_asked_first_and_the_control_plane_stands_in(trio: Trio):
    placed = await trio.client.place(PUBLIC, model="scripted")
    assert placed.decision.decided_by == trio.node("DE").id
    await trio.node("DE").runtime.stop()
    placed = await trio.client.place(PUBLIC, model="scripted")
    assert placed.decision.decided_by is not None
    assert placed.decision.decided_by.path == "/control/main"
    assert trio.node("DE").id not in {target.node for target in placed.targets}


async def test_models_of_the_home_nodes(trio: Trio):
    found = await trio.client.list_models()
    assert set(found) == {trio.node("DE").id}
    assert "scripted" in {model.name for model in found[trio.node("DE").id]}


async def test_a_slow_start_is_not_a_loss_but_silence_is(trio: Trio):
    trio.node("DE").engine.script.first_token_s = 30.0
    async with client_of(trio.mesh, "DE/firm/hasty", silence_s=0.3) as client:
        with pytest.raises(MeshError) as failure:
            await collect(client.chat("scripted", "x", context=SPECIAL))
    assert failure.value.reason is Reason.NODE_LOST
    await trio.node("DE").idle()


async def test_the_deadline_holds_over_all_of_it(trio: Trio):
    trio.node("DE").engine.script.per_token_s = 0.2
    with pytest.raises(MeshError) as failure:
        await collect(trio.client.chat("scripted", "x", context=SPECIAL, sampling=LONG, timeout_s=0.5))
    assert failure.value.reason is Reason.DEADLINE_EXCEEDED
    await trio.node("DE").idle()
