"""The eleven steps, with what must come of each. demo/__main__.py tells them, tests/e2e asserts them.

A step gets the world and a teller. It acts as its people would (clients through the SDK, administrators
through meshctl, rogues on the wire) and states its expectations; a step that raises has failed.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from demo.calls import Stream, follow, narrowed, rogue_chat, steady_load, until
from demo.forgery import forged_identity, handshake
from demo.telling import Served, Teller, short
from demo.world import NODE_NAMES, World
from mesh.client import PlacementRefused
from mesh.core.errors import MeshError
from mesh.core.types import RequestContext
from mesh.identity.source import SvidSource

Step = Callable[[World, Teller], Awaitable[None]]

TRIAGE = RequestContext.of(["special-category"], "care/triage")
DRAFT = RequestContext.of(["confidential"], "contracts/drafting")
LEAFLET = RequestContext.of(["public"], "marketing/leaflet")
# A word that stands in no text of ours: where it is found, a prompt has been.
CANARY = "Zwickelfaltenbeutel"
PATIENT = f"Patient {CANARY}, 61, chest pain since this morning. What first?"
WITHIN_A_SECOND = 1.0

DE, FR, US = (NODE_NAMES[country] for country in ("DE", "FR", "US"))


def _id(world: World, name: str) -> str:
    return str(world.nodes[name].id)


def _engine_calls(world: World, name: str, caller: str = "") -> int:
    """How many requests a node has let through to its engine, by its own decision log."""
    entries = world.nodes[name].decisions()
    return sum(
        1
        for e in entries
        if e.get("kind") == "serve" and e.get("outcome") == "served" and caller in str(e.get("caller", ""))
    )


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
        "only the DE node was permitted", permitted == {_id(world, DE)}, ", ".join(map(short, permitted))
    )
    tell.expect("it was served there", served.node == _id(world, DE), short(served.node))
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
        tell.expect("DE and FR were permitted, US was not", permitted == {_id(world, DE), _id(world, FR)})
        tell.expect("the less loaded one, FR, was chosen", served.node == _id(world, FR), short(served.node))

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
            set(places) == {_id(world, DE), _id(world, FR)} and min(spread.values()) >= 5,
            str(spread),
        )


async def public_goes_anywhere(world: World, tell: Teller) -> None:
    """3. Public data may be served by anyone, the US included."""
    async with world.client("firm") as firm:
        tell.asked("firm-b (DE): public data")
        placement = await firm.place(LEAFLET, model=world.model_name)
        tell.decision(placement.decision)
        permitted = {str(r.node) for r in placement.decision.ranked}
        tell.expect("all three nodes are permitted", permitted == {_id(world, n) for n in (DE, FR, US)})
        tell.asked("the same, and the caller narrows it to US")
        stream, served = await follow(
            firm, world.model_name, "A leaflet about spring.", narrowed(LEAFLET, "US"), 32
        )
        tell.served("served", served)
        tell.expect("it was served in the US", served.node == _id(world, US), short(served.node))


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
        "there is a reason for every node", set(refused) == {short(_id(world, n)) for n in (DE, FR, US)}
    )
    expected = {
        short(_id(world, DE)): "NARROWED_JURISDICTION",
        short(_id(world, FR)): "NARROWED_JURISDICTION",
        short(_id(world, US)): "POLICY_SENDER_DENIES",
    }
    tell.expect(
        "home is narrowed away, and the US refused by the DE policy", refused == expected, str(refused)
    )


async def rogue_requests_are_refused(world: World, tell: Teller) -> None:
    """5. The receiving node decides again, before its engine sees anything (I2)."""
    target = world.nodes[US]
    source = SvidSource.load(world.profiles["clinic"] / "identity", clock=time.time, random=random.random)
    before = _engine_calls(world, US)
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
    tell.expect("the US engine saw none of it", _engine_calls(world, US) == before)
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
            for context in (replace(TRIAGE), RequestContext.of(["personal"], "care/billing")):
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
    tell.expect("its engine was never asked", _engine_calls(world, "ber-1") == 0)


async def a_killed_node_is_survived(world: World, tell: Teller) -> None:
    """8. SIGKILL in the middle of two streams: one goes on elsewhere, the other must not."""
    before = _engine_calls(world, US)
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
            on_de = draft.started is not None and str(draft.started.node) == _id(world, DE)
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
            moved = [f for f in draft.failovers if str(f.to_node) == _id(world, FR)]
            tell.expect("the caller was told that FR took over", len(moved) == 1)
            tell.expect("all 600 tokens arrived", served.tokens == 600, str(served.tokens))
        is_clear = isinstance(second, MeshError)
        tell.expect("the special-category stream fails with a clear error", is_clear, f"{second}"[:160])
        tell.note(f"both were settled {seconds:.1f} s after the kill")
        tell.expect("nothing of either reached the US", _engine_calls(world, US) == before)
    world.start_node(world.nodes[DE])
    tell.note(f"{DE} is started again …")
    again = await world.until_ready(DE)
    async with world.client("clinic") as clinic:
        _, served = await follow(clinic, world.model_name, PATIENT, TRIAGE, 16)
    tell.served(f"after {again:.1f} s it serves again", served)
    tell.expect("the clinic is served at home again", served.node == _id(world, DE))


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
        late = [at - applied for at, node in load.served if node == _id(world, FR) and at > applied]
        after = [node for at, node in load.served if at > applied + WITHIN_A_SECOND]
        tell.expect("requests went to both before", any(node == _id(world, FR) for _, node in load.served))
        tell.expect(
            "within a second no new DE request goes to FR",
            bool(after) and all(node == _id(world, DE) for node in after),
            f"the last went there {max(late, default=0) * 1000:.0f} ms after; applying took "
            f"{(applied - begun) * 1000:.0f} ms",
        )
        await world.meshctl("policy", "apply", str(authority.policy), profile=authority.admin)
        back = await until(
            lambda: any(at > applied + 2.5 and node == _id(world, FR) for at, node in load.served), 10
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
        tell.expect("DE clients are served in DE", served.node == _id(world, DE), short(served.node))
        _, served = await follow(firm, world.model_name, "A clause.", abroad, 16)
        fresh_for = time.monotonic() - killed
        tell.expect(
            "a cross-border request goes on while the records are fresh",
            served.node == _id(world, FR),
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
            {r.reason.code for r in refusal.decision.refused if str(r.node) == _id(world, FR)}
            if refusal
            else set()
        )
        tell.expect(
            "and is refused once they are not",
            reasons == {"RECORDS_STALE"},
            f"{time.monotonic() - killed:.1f} s after: {', '.join(sorted(reasons))}",
        )
        _, served = await follow(clinic, world.model_name, PATIENT, TRIAGE, 16)
        tell.expect("DE clients are still served in DE", served.node == _id(world, DE), short(served.node))
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
            recovered == _id(world, FR),
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
            f"{outcome if isinstance(outcome, BaseException) else 'it ran to its end'} after {seconds * 1000:.0f} ms"[
                :160
            ],
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


STEPS: tuple[tuple[str, Step], ...] = (
    ("Special-category data stays at home", special_category_stays),
    ("Confidential data: DE or FR, the less loaded one", confidential_is_balanced),
    ("Public data: anyone", public_goes_anywhere),
    ("A caller may narrow, never widen", narrowed_to_us_is_refused),
    ("Sent past the placement: the receiving node refuses", rogue_requests_are_refused),
    ("A certificate in another authority's name", forged_certificate_fails),
    ("In Berlin, but controlled from the US", foreign_control_is_kept_out),
    ("A node is killed under two streams", a_killed_node_is_survived),
    ("An authority withdraws another", france_is_withdrawn),
    ("etcd is killed", the_board_goes_away),
    ("Certificates are renewed, a client is revoked", certificates_turn_over),
)


async def tell_story(world: World, tell: Teller) -> None:
    """All steps in order; a failed one does not keep the next from being told."""
    for number, (title, step) in enumerate(STEPS, start=1):
        try:
            with tell.step(number, title):
                await step(world, tell)
        except Exception:
            continue
