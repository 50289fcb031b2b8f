"""Steps 8 to 11: nodes, authorities, etcd and certificates go away."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from demo.calls import Stream, follow, narrowed, steady_load, until
from demo.cast import (
    DE,
    DRAFT,
    FR,
    PATIENT,
    TRIAGE,
    US,
    WITHIN_A_SECOND,
    engine_calls,
    id_of,
)
from demo.telling import Served, Teller, short
from demo.world import World
from mesh.client import PlacementRefused
from mesh.core.errors import MeshError


async def a_killed_node_is_survived(world: World, tell: Teller) -> None:
    """8. SIGKILL in the middle of two streams: one goes on elsewhere, the other must not."""
    before = engine_calls(world, US)
    async with world.client("firm") as firm, world.client("clinic") as clinic:
        tell.asked("firm-b streams a confidential draft, clinic-a a special-category answer, both on DE")
        # Which of the two nodes takes a confidential request is a matter of load: FR is kept busier.
        fillers = [asyncio.create_task(follow(firm, world.model_name, "Filler.", narrowed(DRAFT, "FR"), 700))
                   for _ in range(3)]  # fmt: skip
        draft, triage = Stream(), Stream()
        try:
            await asyncio.sleep(1.5)
            begun = time.monotonic()
            drafting = asyncio.create_task(
                follow(firm, world.model_name, "A long draft.", DRAFT, 600, into=draft)
            )
            asking = asyncio.create_task(follow(clinic, world.model_name, PATIENT, TRIAGE, 600, into=triage))
            await until(lambda: min(draft.tokens, triage.tokens) >= 10, 30)
            on_de = draft.started is not None and str(draft.started.node) == id_of(world, DE)
            tell.expect(
                "both are under way on DE", on_de, short(str(draft.started.node)) if draft.started else ""
            )
            killed_at = time.monotonic()
            world.kill_node(DE)
            tell.note(f"SIGKILL to {DE} after {draft.tokens} and {triage.tokens} tokens")
            outcomes = await asyncio.wait_for(asyncio.gather(drafting, asking, return_exceptions=True), 60)
            seconds = time.monotonic() - killed_at
        finally:
            for filler in fillers:
                filler.cancel()
            await asyncio.gather(*fillers, return_exceptions=True)
        first, second = outcomes
        if isinstance(first, BaseException):
            tell.expect("the confidential stream goes on", False, f"{type(first).__name__}: {first}")
        else:
            served: Served = draft.served(time.monotonic() - begun)
            tell.served("the draft", served)
            moved = [f for f in draft.failovers if str(f.to_node) == id_of(world, FR)]
            tell.expect("the caller was told that FR took over", len(moved) == 1)
            tell.expect("all 600 tokens arrived", served.tokens == 600, str(served.tokens))
        is_clear = isinstance(second, MeshError)
        tell.expect("the special-category stream fails with a clear error", is_clear, f"{second}"[:160])
        tell.note(f"both were settled {seconds:.1f} s after the kill")
        tell.expect("nothing of either reached the US", engine_calls(world, US) == before)
    world.start_node(world.nodes[DE])
    tell.note(f"{DE} is started again …")
    again = await world.until_ready(DE)
    async with world.client("clinic") as clinic:
        _, served = await follow(clinic, world.model_name, PATIENT, TRIAGE, 16)
    tell.served(f"after {again:.1f} s it serves again", served)
    tell.expect("the clinic is served at home again", served.node == id_of(world, DE))


async def france_is_withdrawn(world: World, tell: Teller) -> None:
    """9. A policy change is in force within a second, with nothing lost and nothing restarted."""
    authority = world.authorities["DE"]
    withdrawn = world.root / "de-without-france.cedar"
    text = authority.policy.read_text()
    text += (
        '\n@id("de-withdraws-france-now")\nforbid (principal in Jurisdiction::"DE", action, '
        'resource in Jurisdiction::"FR");\n'
    )
    withdrawn.write_text(text)
    async with world.client("firm") as firm, steady_load(firm, world.model_name, DRAFT) as load:
        tell.asked("the DE authority withdraws FR, while firm-b keeps asking")
        await until(lambda: len({node for _, node in load.served}) == 2, 20)
        begun = time.monotonic()
        await world.meshctl("policy", "apply", str(withdrawn), profile=authority.admin)
        applied = time.monotonic()
        await asyncio.sleep(2.5)
        late = [at - applied for at, node in load.served if node == id_of(world, FR) and at > applied]
        after = [node for at, node in load.served if at > applied + WITHIN_A_SECOND]
        tell.expect("requests went to both before", any(node == id_of(world, FR) for _, node in load.served))
        tell.expect(
            "within a second no new DE request goes to FR",
            bool(after) and all(node == id_of(world, DE) for node in after),
            f"the last went there {max(late, default=0) * 1000:.0f} ms after; applying took "
            f"{(applied - begun) * 1000:.0f} ms",
        )
        await world.meshctl("policy", "apply", str(authority.policy), profile=authority.admin)
        back = await until(
            lambda: any(at > applied + 2.5 and node == id_of(world, FR) for at, node in load.served), 10
        )
        tell.expect("given back, FR serves again", back)
    tell.expect(
        "none of them was lost", not load.failures, f"{len(load.served)} served, failed: {load.failures[:3]}"
    )
    tell.results[-1].served += [node for _, node in load.served]


async def the_board_goes_away(world: World, tell: Teller) -> None:
    """10. Without etcd what is local goes on; what crosses borders goes on while the records are fresh."""
    abroad = narrowed(DRAFT, "FR")
    async with world.client("firm") as firm, world.client("clinic") as clinic:
        tell.asked("etcd is killed")
        world.board.kill()
        killed = time.monotonic()
        _, served = await follow(clinic, world.model_name, PATIENT, TRIAGE, 16)
        tell.expect("DE clients are served in DE", served.node == id_of(world, DE), short(served.node))
        _, served = await follow(firm, world.model_name, "A clause.", abroad, 16)
        fresh_for = time.monotonic() - killed
        tell.expect(
            "a cross-border request goes on while the records are fresh",
            served.node == id_of(world, FR),
            f"{fresh_for:.1f} s after",
        )
        refusal: PlacementRefused | None = None
        while refusal is None and time.monotonic() - killed < 30:
            try:
                await follow(firm, world.model_name, "A clause.", abroad, 4)
                await asyncio.sleep(0.25)
            except PlacementRefused as error:
                refusal = error
        reasons = (
            {r.reason.code for r in refusal.decision.refused if str(r.node) == id_of(world, FR)}
            if refusal
            else set()
        )
        tell.expect(
            "and is refused once they are not",
            reasons == {"RECORDS_STALE"},
            f"{time.monotonic() - killed:.1f} s after: {', '.join(sorted(reasons))}",
        )
        _, served = await follow(clinic, world.model_name, PATIENT, TRIAGE, 16)
        tell.expect("DE clients are still served in DE", served.node == id_of(world, DE), short(served.node))
        tell.asked("etcd is started again")
        await world.board.restart()
        back = time.monotonic()
        recovered = ""
        while not recovered and time.monotonic() - back < 30:
            try:
                _, served = await follow(firm, world.model_name, "A clause.", abroad, 4)
                recovered = served.node
            except MeshError:
                await asyncio.sleep(0.1)
        tell.expect(
            "everything recovers by itself",
            recovered == id_of(world, FR),
            f"{time.monotonic() - back:.1f} s after",
        )


async def certificates_turn_over(world: World, tell: Teller) -> None:
    """11. Renewal and revocation under load."""
    authority = world.authorities["DE"]
    serials = {name: world.node_serial(name) for name in (DE, FR)}
    contractor_id = f"spiffe://{authority.trust_domain}/client/firm-b/contractor"
    async with AsyncExitStack() as stack:
        firm = await stack.enter_async_context(world.client("firm"))
        contractor = await stack.enter_async_context(world.client("contractor"))
        load = await stack.enter_async_context(steady_load(firm, world.model_name, DRAFT))
        tell.asked("the nodes renew their certificates, while firm-b keeps asking")
        for name in serials:
            world.renew_node(name)

        begun = time.monotonic()
        renewed = await until(lambda: all(world.node_serial(n) != old for n, old in serials.items()), 20)
        tell.expect("both have a new certificate", renewed, f"{time.monotonic() - begun:.1f} s after")
        served_before = len(load.served)
        await until(lambda: len(load.served) >= served_before + 8, 20)

        tell.asked("the DE authority revokes a contractor in the middle of a stream")
        stream = Stream()
        task = asyncio.create_task(
            follow(contractor, world.model_name, "A long report.", DRAFT, 900, into=stream)
        )
        await until(lambda: stream.tokens >= 5, 20)
        await world.meshctl("client", "revoke", contractor_id, profile=authority.admin)
        revoked_at = time.monotonic()
        outcome = (await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 30))[0]
        seconds = time.monotonic() - revoked_at
        tell.expect(
            "the stream is cut off within a second",
            isinstance(outcome, MeshError)
            and outcome.reason.code == "IDENTITY_REVOKED"
            and seconds < WITHIN_A_SECOND,
            f"{str(outcome)[:120]} after {seconds * 1000:.0f} ms",
        )
        again = await asyncio.gather(
            follow(contractor, world.model_name, "Again.", DRAFT, 4), return_exceptions=True
        )
        tell.expect(
            "and the contractor gets nothing more",
            isinstance(again[0], MeshError) and again[0].reason.code == "IDENTITY_REVOKED",
            str(again[0])[:120],
        )
        served_before = len(load.served)
        await until(lambda: len(load.served) >= served_before + 8, 20)
    tell.expect(
        "no call of anybody else failed",
        not load.failures,
        f"{len(load.served)} served, failed: {load.failures[:3]}",
    )
    tell.results[-1].served += [node for _, node in load.served]
