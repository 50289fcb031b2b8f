"""What was written down: receipts that prove themselves, and a log whose operator rewrites it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

from demo.asking import COLLECTION, OPEN_QUESTION, QUESTION
from demo.calls import follow, narrowed
from demo.cast import CANARY, DE, DRAFT, FR, LEAFLET, US, id_of
from demo.telling import Teller, short
from demo.world import CommandFailed, World
from mesh.client import MeshClient, SearchDecided, SearchResult
from mesh.core.placement import Decision
from mesh.core.retrieval import Outcome
from mesh.core.types import SpiffeId
from mesh.evidence.configured import origin_of
from mesh.evidence.log import MerkleLog
from mesh.evidence.offline import read_entries
from mesh.identity.log_keys import LogKey

WITNESSED_S = 10.0
NOTICED_S = 30.0


def _trust(world: World) -> list[str]:
    """The roots of the three authorities: all that verifying needs."""
    return [word for authority in world.authorities.values() for word in ("--trust", str(authority.bundle))]


async def _kept(
    world: World, client: MeshClient, name: str, decision: Decision, ends: list[SpiffeId], tell: Teller
) -> Path:
    """Fetches a receipt into a file."""
    fetched = await client.receipt(decision, ends, wait_s=WITNESSED_S)
    tell.expect(f"the receipt of {name} has both ends", not fetched.missing, str(list(fetched.missing)))
    file = world.root / f"{name}.receipt.json"
    file.write_bytes(fetched.receipt.to_json())
    return file


async def _verified(world: World, file: Path) -> dict[str, Any]:
    return await world.meshctl("audit", "verify", str(file), *_trust(world))


async def receipts_prove_themselves(world: World, tell: Teller) -> None:
    """Callers keep what the logs of both ends say of their requests, and need nobody to check it."""
    tell.asked("firm-b keeps a receipt of a draft that FR serves")
    async with world.client("firm") as firm:
        abroad = narrowed(DRAFT, "FR")
        stream, served = await follow(firm, world.model_name, f"A clause on {CANARY}.", abroad, 8)
        tell.served("the draft", served)
        assert stream.decision is not None
        draft = await _kept(world, firm, "draft", stream.decision, [SpiffeId.parse(served.node)], tell)
    tell.asked("a clinic keeps one of a question that three nodes answer")
    async with world.client("clinic") as clinic:
        decision, ends = await _searched(clinic)
        question = await _kept(world, clinic, "question", decision, ends, tell)
    for file, nodes in ((draft, {DE, FR}), (question, {DE, FR, US})):
        found = await _verified(world, file)
        for line in found["proven"][:3]:
            tell.note(line)
        seen = {end["node"] for end in found["ends"]}
        tell.expect(
            f"{file.name} verifies offline, by the authorities' roots alone",
            found["holds"] and seen == {id_of(world, name) for name in nodes},
            ", ".join(map(short, sorted(seen))),
        )
        others = {
            end["node"]: {witness["node"].split("/")[2] for witness in end["witnesses"]}
            for end in found["ends"]
        }
        tell.expect(
            "two other authorities have seen each log grow by it",
            all(len(domains) >= 2 and node.split("/")[2] not in domains for node, domains in others.items()),
        )
    data = draft.read_bytes()
    tell.expect("nothing of what was asked is in it", CANARY.encode() not in data, f"{len(data):,} bytes")
    changed = draft.with_name("changed.receipt.json")
    changed.write_bytes(data.replace(b"served", b"serveD", 1))
    tell.expect(
        "with one letter changed it does not hold", await _refusal(world, changed) == "RECEIPT_INVALID"
    )


async def _searched(client: MeshClient) -> tuple[Decision, list[SpiffeId]]:
    decision: Decision | None = None
    async for event in client.search(QUESTION, COLLECTION, context=OPEN_QUESTION, timeout_s=20):
        if isinstance(event, SearchDecided):
            decision = event.decision
        elif isinstance(event, SearchResult):
            answered = [each.node for each in event.coverage if each.outcome is Outcome.ANSWERED]
    assert decision is not None
    return decision, answered


async def _refusal(world: World, file: Path) -> str:
    """The reason for which a receipt does not hold; "" if it does."""
    try:
        await _verified(world, file)
    except CommandFailed as error:
        return str(json.loads(str(error).partition(": ")[2])["error"]["reason"])
    return ""


async def a_log_is_rewritten(world: World, tell: Teller) -> None:
    """Whoever owns the machine can change the log, and cannot do it unseen."""
    node = world.nodes[US]
    folder = node.directory / "state" / "evidence" / "decisions"
    tell.asked(f"somebody flips one bit in {US}'s log, on its disk")
    world.kill_node(US)
    await asyncio.to_thread(world.ledger.wait_gone, f"node-{US}", 20.0)
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    _flip_a_bit(folder)
    world.start_node(node)
    await asyncio.to_thread(world.ledger.wait_gone, f"node-{US}", 60.0)
    tell.expect("the node does not go on from it", "EVIDENCE_DAMAGED" in node.log.read_text())

    tell.asked("so its operator writes the whole log anew, less one decision, signed with the log's own key")
    shutil.rmtree(folder)
    left_out = await _rewritten(kept, folder, LogKey.load(folder.with_name("decisions.key")), node.id)
    tell.note(f"left out: an entry of the kind {left_out}")
    world.start_node(node)
    tell.note(f"{US} is back after {await world.until_ready(US):.1f} s: to itself that log looks right")
    async with world.client("coast") as coast:
        _, served = await follow(coast, world.model_name, "A leaflet.", narrowed(LEAFLET, "US"), 4)
        placed = await coast.place(narrowed(LEAFLET, "US"), model=world.model_name)
        begun = time.monotonic()
        alarms: dict[str, list[dict[str, Any]]] = {}
        while len(alarms) < 2 and time.monotonic() - begun < NOTICED_S:
            for country, name in (("DE", DE), ("FR", FR)):
                told = await world.meshctl(
                    "audit", "alarms", "--node", name, profile=world.authorities[country].admin
                )
                if told["alarms"]:
                    alarms[name] = told["alarms"]
            await asyncio.sleep(0.2)
        for name, found in sorted(alarms.items()):
            tell.note(f"{name}: {found[0]['origin']}: {found[0]['detail']} ({found[0]['finding']})")
        tell.expect(
            "its witnesses in DE and FR raise an alarm, with the proof",
            set(alarms) == {DE, FR}
            and all(a["seen"] != a["offered"] for found in alarms.values() for a in found),
            f"{time.monotonic() - begun:.1f} s after",
        )
        tell.expect("the node serves; what it says is no longer witnessed", served.node == id_of(world, US))
        fetched = await coast.receipt(placed.decision, wait_s=1.0)
    file = world.root / "unwitnessed.receipt.json"
    file.write_bytes(fetched.receipt.to_json())
    refused = await _refusal(world, file)
    tell.expect("and its receipts do not hold any more", refused == "RECEIPT_UNWITNESSED", refused)


def _flip_a_bit(folder: Path) -> None:
    file = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


async def _rewritten(old: Path, new: Path, key: LogKey, node: SpiffeId) -> str:
    """The old log's entries but for one, as a log of their own; which kind of entry is missing."""
    entries = [json.loads(entry) for entry in read_entries(old)]
    gone = entries.pop(len(entries) // 2)
    log = MerkleLog.open(new, origin=origin_of(node), signer=key)
    await asyncio.gather(*(log.record(entry) for entry in entries))
    await log.aclose()
    return str(gone["kind"])
