"""Steps 5 to 7: whoever does not ask, forges a name, or stands in the right place under the wrong control."""

from __future__ import annotations

import asyncio
import random
import time

from demo.calls import narrowed, rogue_chat
from demo.cast import (
    BILLING,
    CANARY,
    DE,
    FR,
    LEAFLET,
    PATIENT,
    TRIAGE,
    US,
    engine_calls,
)
from demo.forgery import forged_identity, handshake
from demo.telling import Teller
from demo.world import World
from mesh.core.types import RequestContext
from mesh.identity.source import SvidSource


async def rogue_requests_are_refused(world: World, tell: Teller) -> None:
    """5. The receiving node decides again, before its engine sees anything (I2)."""
    target = world.nodes[US]
    source = SvidSource.load(world.profiles["clinic"] / "identity", clock=time.time, random=random.random)
    before = engine_calls(world, US)
    async with world.client("clinic") as clinic:
        fresh = await clinic.place(narrowed(LEAFLET, "US"), model=world.model_name)
        elsewhere = await clinic.place(narrowed(LEAFLET, "DE"), model=world.model_name)
        spare = await clinic.place(narrowed(LEAFLET, "US"), model=world.model_name)

    async def attempt(what: str, context: RequestContext, permit: bytes | None, expected: str) -> None:
        tell.asked(f"clinic-a sends a patient's words straight to {US} (US) {what}")
        dns_name = f"{US}.node.{target.authority.trust_domain}"
        reason = await rogue_chat(
            source, target.endpoint, dns_name, world.model_name, PATIENT, context, permit
        )
        tell.expect(f"refused with {expected}", reason == expected, reason)

    own = fresh.targets[0].permit
    await attempt("without a permit", TRIAGE, None, "PERMIT_MISSING")
    await attempt("with a permit for another node", narrowed(LEAFLET, "DE"), elsewhere.targets[0].permit,
                  "PERMIT_WRONG_NODE")  # fmt: skip
    await attempt("with a permit for public data, and another context", TRIAGE, own, "PERMIT_WRONG_CONTEXT")
    left = spare.decision.expires_at - time.time() + 0.5
    tell.note(f"waiting {left:.0f} s until a permit has expired …")
    await asyncio.sleep(max(0.0, left))
    await attempt(
        "with an expired permit", narrowed(LEAFLET, "US"), spare.targets[0].permit, "PERMIT_EXPIRED"
    )
    tell.expect("the US engine saw none of it", engine_calls(world, US) == before)
    tell.expect("no word of the prompt is in anything the US node wrote", CANARY not in target.written())
    kinds = [e for e in target.decisions() if str(e.get("caller", "")).endswith("/clinic-a/desk")]
    tell.expect(
        "the four refusals are in the node's decision log (I7)", len(kinds) >= 4, f"{len(kinds)} entries"
    )


async def forged_certificate_fails(world: World, tell: Teller) -> None:
    """6. Name constraints: the US authority cannot speak in the name of a German node."""
    tell.asked(f"the US authority issues a certificate in the name of {DE} (DE)")
    honest = SvidSource.load(world.nodes[FR].identity, clock=time.time, random=random.random)
    forged = forged_identity(world.authorities["US"].directory / "ca", world.nodes[DE].id, honest)
    as_client = await handshake(client=forged, server=honest, address_as=world.nodes[FR].id)
    tell.expect("as a client of FR, its handshake fails", not as_client.succeeded, as_client.seen)
    as_server = await handshake(client=honest, server=forged, address_as=world.nodes[DE].id)
    tell.expect("as a server to FR, its handshake fails", not as_server.succeeded, as_server.seen)
    control = await handshake(
        client=honest,
        server=SvidSource.load(world.nodes[DE].identity, clock=time.time, random=random.random),
        address_as=world.nodes[DE].id,
    )
    tell.expect(
        "with the real DE node's certificate the same handshake succeeds", control.succeeded, control.seen
    )


async def foreign_control_is_kept_out(world: World, tell: Teller) -> None:
    """7. Where a machine stands is one thing, who controls its operator another."""
    tell.asked("a node joins in Berlin whose operator is ultimately controlled from the US")
    node = await world.add_node("DE", "ber-1", controller="US", scripted=True)
    world.start_node(node)
    try:
        seconds = await world.until_ready("ber-1", 60)
        tell.note(
            f"ber-1 is ready after {seconds:.1f} s (its engine is a scripted one: nothing is to reach it)"
        )
        async with world.client("clinic") as clinic:
            for context in (TRIAGE, BILLING):
                placement = await clinic.place(context, model=world.model_name, explain=True)
                tell.decision(placement.decision)
                berlin = [r for r in placement.decision.refused if r.node == node.id]
                kind = next(iter(context.data_classes))
                tell.expect(
                    f"the DE policy keeps {kind} data out of it, though it stands in Berlin",
                    bool(berlin) and "de-no-personal-data-under-us-control" in berlin[0].policies,
                    berlin[0].detail if berlin else "permitted",
                )
            public = await clinic.place(LEAFLET, model=world.model_name, explain=True)
            tell.expect(
                "public data may go there: it is the policy that refuses, nothing else",
                any(r.node == node.id for r in public.decision.ranked),
            )
    finally:
        await world.stop_node("ber-1")
    tell.expect("its engine was never asked", engine_calls(world, "ber-1") == 0)
