"""Steps 1 to 4: where requests go, and where they do not."""

from __future__ import annotations

import asyncio
import json

from demo.calls import Stream, follow, narrowed, until
from demo.cast import (
    DE,
    DRAFT,
    FR,
    LEAFLET,
    PATIENT,
    TRIAGE,
    US,
    id_of,
)
from demo.telling import Teller, short
from demo.world import World


async def special_category_stays(world: World, tell: Teller) -> None:
    """1. A clinic's special-category data is served at home."""
    async with world.client("clinic") as clinic:
        tell.asked("clinic-a (DE): special-category data, for care/triage")
        stream, served = await follow(clinic, world.model_name, PATIENT, TRIAGE, 48)
    assert stream.decision is not None
    tell.decision(stream.decision)
    tell.served("streamed from vLLM", served)
    permitted = {str(r.node) for r in stream.decision.ranked}
    tell.expect(
        "only the DE node was permitted", permitted == {id_of(world, DE)}, ", ".join(map(short, permitted))
    )
    tell.expect("it was served there", served.node == id_of(world, DE), short(served.node))
    tell.expect("48 tokens arrived", served.tokens == 48, str(served.tokens))
    refusals = {short(str(r.node)): r.reason.code for r in stream.decision.refused}
    tell.expect("FR and US were refused with a reason each", len(refusals) == 2, str(refusals))


async def confidential_is_balanced(world: World, tell: Teller) -> None:
    """2. Confidential data may be served in DE or FR; load decides."""
    async with world.client("firm") as firm, world.client("clinic") as clinic:
        tell.asked("firm-b (DE): confidential data, while the clinic keeps the DE node busy")
        busy = [Stream() for _ in range(3)]
        tasks = [
            asyncio.create_task(follow(clinic, world.model_name, PATIENT, TRIAGE, 600, into=stream))
            for stream in busy
        ]
        try:
            await until(lambda: all(s.tokens for s in busy), 30)
            await asyncio.sleep(0.5)  # until the board has heard of the load: a heartbeat and a half
            stream, served = await follow(firm, world.model_name, "Draft a clause on liability.", DRAFT, 32)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert stream.decision is not None
        tell.decision(stream.decision)
        tell.served("served", served)
        permitted = {str(r.node) for r in stream.decision.ranked}
        tell.expect("DE and FR were permitted, US was not", permitted == {id_of(world, DE), id_of(world, FR)})
        tell.expect(
            "the less loaded one, FR, was chosen", served.node == id_of(world, FR), short(served.node)
        )

        tell.asked("firm-b (DE): sixteen confidential requests at once")
        many = await asyncio.gather(
            *(follow(firm, world.model_name, f"Clause {i}, please.", DRAFT, 32) for i in range(16))
        )
        places = [s.node for _, s in many]
        spread = {short(node): places.count(node) for node in sorted(set(places))}
        result = tell.results[-1]
        result.served += places
        result.tokens += sum(s.tokens for _, s in many)
        result.first_token_ms += [s.first_token_s * 1000 for _, s in many]
        tell.note(f"spread: {spread}")
        tell.expect("all sixteen were served in full", all(s.tokens == 32 for _, s in many))
        tell.expect(
            "both nodes took at least five of them",
            set(places) == {id_of(world, DE), id_of(world, FR)} and min(spread.values()) >= 5,
            str(spread),
        )


async def public_goes_anywhere(world: World, tell: Teller) -> None:
    """3. Public data may be served by anyone, the US included."""
    async with world.client("firm") as firm:
        tell.asked("firm-b (DE): public data")
        placement = await firm.place(LEAFLET, model=world.model_name)
        tell.decision(placement.decision)
        permitted = {str(r.node) for r in placement.decision.ranked}
        tell.expect("all three nodes are permitted", permitted == {id_of(world, n) for n in (DE, FR, US)})
        tell.asked("the same, and the caller narrows it to US")
        _stream, served = await follow(
            firm, world.model_name, "A leaflet about spring.", narrowed(LEAFLET, "US"), 32
        )
        tell.served("served", served)
        tell.expect("it was served in the US", served.node == id_of(world, US), short(served.node))


async def narrowed_to_us_is_refused(world: World, tell: Teller) -> None:
    """4. A caller can narrow what is allowed, never widen it."""
    tell.asked("clinic-a (DE), with meshctl: special-category data, narrowed to US")
    arguments = ("--class", "special-category", "--purpose", "care/triage", "--jurisdiction", "US")
    code, out, err = await world.meshctl_process(
        "place", "--explain", *arguments, "--output", "json", profile=world.profiles["clinic"]
    )
    decision = json.loads(out) if out.strip() else {}
    refused = {short(r["node"]): r["reason"] for r in decision.get("refused", [])}
    for node, reason in refused.items():
        tell.note(f"✗ {node}: {reason}")
    lines = err.strip().splitlines()
    tell.expect("meshctl exits with 3: refused by policy", code == 3, f"exit code {code}")
    tell.expect("it says so in one line", len(lines) == 1, lines[0] if lines else "nothing")
    tell.expect(
        "there is a reason for every node", set(refused) == {short(id_of(world, n)) for n in (DE, FR, US)}
    )
    expected = {
        short(id_of(world, DE)): "NARROWED_JURISDICTION",
        short(id_of(world, FR)): "NARROWED_JURISDICTION",
        short(id_of(world, US)): "POLICY_SENDER_DENIES",
    }
    tell.expect(
        "home is narrowed away, and the US refused by the DE policy", refused == expected, str(refused)
    )
