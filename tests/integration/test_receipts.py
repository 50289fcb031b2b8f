"""Receipts over a real mesh: fetched by a caller, witnessed by other authorities, verified offline (I7)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.attested import attested_by
from mesh.client import (
    MeshClient,
    MeshError,
    PlacementRefused,
    Reason,
    RequestContext,
    collect,
    collect_search,
)
from mesh.core.receipt import Receipt, VerifiedEnd, verify_receipt
from mesh.core.receipt_story import story_of
from mesh.core.records import RecordKey, RecordType
from mesh.core.retrieval import Outcome
from mesh.evidence import MemoryDecisionLog
from mesh.identity.log_keys import verify_ed25519
from mesh.sdk.placers import Server
from tests.support.federation import COLLECTION, INTERNAL, federation_of
from tests.support.mesh import DEADLINE_S, Mesh, Node, mesh_of

pytestmark = pytest.mark.slow

PERSONAL = RequestContext.of(["personal"], "care/triage")
PUBLIC = RequestContext.of(["public"], "press/enquiry")


@asynccontextmanager
async def three(folder: Path, *, witnesses: int = 2) -> AsyncIterator[tuple[Mesh, MeshClient]]:
    """DE, FR and US with a node each, which witness each other; a client of DE."""
    async with mesh_of(folder, "DE", "FR", "US") as mesh:
        for country, name in (("DE", "fra-1"), ("FR", "par-1"), ("US", "iad-1")):
            await mesh[country].node(name, evidence=folder / f"{name}-witness", witnesses=witnesses)
        async with client_of(mesh, "DE") as client:
            yield mesh, client


@asynccontextmanager
async def client_of(mesh: Mesh, country: str, name: str = "firm/desk") -> AsyncIterator[MeshClient]:
    home = mesh[country]
    source = home.identity.source(f"/client/{name}", mesh.bundles)
    async with MeshClient(source, [Server(node.id, node.endpoint) for node in home.nodes.values()]) as client:
        yield client


def checked(mesh: Mesh, receipt: Receipt | bytes, witnesses: int = 2) -> tuple[VerifiedEnd, ...]:
    """Offline: with the file and the authorities' roots, and nothing else."""
    data = receipt if isinstance(receipt, bytes) else receipt.to_json()
    opener = attested_by({bundle.trust_domain: bundle for bundle in mesh.bundles})
    return verify_receipt(Receipt.from_json(data), opener, verify_ed25519, witnesses)


def kinds(ends: Iterable[VerifiedEnd]) -> list[list[str]]:
    return [[str(entry["kind"]) for _, entry in end.entries] for end in ends]


async def test_a_chat_leaves_a_receipt_of_both_ends(tmp_path: Path) -> None:
    async with three(tmp_path) as (mesh, client):
        node = mesh["FR"].nodes["par-1"]
        context = RequestContext.of(["internal"], "contracts/drafting", allowed_jurisdictions=["FR"])
        done = await collect(client.chat("scripted", "the secret word", context=context))
        assert done.finished.node == node.id
        fetched = await client.receipt(done.decision, [done.finished.node], wait_s=10)
        assert not fetched.missing
        ends = checked(mesh, fetched.receipt)
        assert kinds(ends) == [["place"], ["serve"]]
        assert [end.node.name for end in ends] == ["fra-1", "par-1"]
        assert all(len(end.authorities) == 2 for end in ends)
        story = story_of(ends)
        assert done.decision.id in story.decisions
        assert any("may send internal data" in line and "par-1" in line for line in story.proven)
        (serving,) = [
            line for line in story.proven if f"on the permit of decision {done.decision.id}" in line
        ]
        assert "with internal data for contracts/drafting (infer) in " in serving  # so many bytes
        # I1: nothing of what was said.
        assert b"secret" not in fetched.receipt.to_json()


async def test_a_refusal_leaves_one_too(tmp_path: Path) -> None:
    async with three(tmp_path) as (mesh, client):
        nowhere = RequestContext.of(["special-category"], "care/triage", allowed_jurisdictions=["US"])
        with pytest.raises(PlacementRefused) as refused:
            await collect(client.chat("scripted", "hello", context=nowhere))
        assert refused.value.decision is not None
        fetched = await client.receipt(refused.value.decision, wait_s=10)
        ends = checked(mesh, fetched.receipt)
        assert kinds(ends) == [["place"]]
        assert any("may send" in line and "nowhere" in line for line in story_of(ends).proven)


async def test_a_search_leaves_one_of_every_node_that_was_asked(tmp_path: Path) -> None:
    texts = {c: {f"{c}-1": f"The pump of {c} was replaced by Otto Quandt."} for c in ("DE", "FR", "US")}
    async with federation_of(tmp_path, texts, evidence=True) as there:
        result = await collect_search(
            there.client.search("pump", COLLECTION, context=INTERNAL, level="passage", timeout_s=20)
        )
        assert len(result.hits) == 3
        place = there.nodes["DE"]
        assert isinstance(place.log, MemoryDecisionLog)
        decided = next(e for e in place.log.entries if e["kind"] == "search")
        placement = next(e for e in place.log.entries if e["kind"] == "place")["decision"]["id"]
        assert decided["permit"]["decision"] == placement
        answered = [each.node for each in result.coverage if each.outcome is Outcome.ANSWERED]
        fetched = await there.client.receipts(decided["id"], [place.id, *answered], wait_s=10)
        assert not fetched.missing
        ends = checked(there.mesh, fetched.receipt)
        assert sorted(kinds(ends)[0]) == ["covered", "place", "release", "search"]
        assert all(kind == ["shard", "release"] for kind in kinds(ends)[1:])
        data = fetched.receipt.to_json()
        assert b"Quandt" not in data
        assert b"pump" not in data
        story_of(ends)


async def test_a_receipt_that_was_changed_at_any_byte_does_not_hold(tmp_path: Path) -> None:
    async with three(tmp_path) as (mesh, client):
        placed = await client.place(PUBLIC, model="scripted")
        data = (await client.receipt(placed.decision, wait_s=10)).receipt.to_json()
        checked(mesh, data)
        chance = random.Random(5)
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1 << chance.randrange(8)
            with pytest.raises(MeshError) as refused:
                checked(mesh, bytes(changed))
            assert refused.value.reason is Reason.RECEIPT_INVALID, at
        for cut in (b"", data[:-1], data + b"\n", data.replace(b" ", b"", 1)):
            with pytest.raises(MeshError):
                checked(mesh, cut)


async def test_roots_are_all_that_it_takes_and_all_of_them(tmp_path: Path) -> None:
    async with three(tmp_path) as (mesh, client):
        placed = await client.place(PUBLIC, model="scripted")
        receipt = (await client.receipt(placed.decision, wait_s=10)).receipt
        one = {bundle.trust_domain: bundle for bundle in mesh.bundles if bundle.trust_domain.startswith("de")}
        with pytest.raises(MeshError) as refused:
            verify_receipt(receipt, attested_by(one), verify_ed25519)
        assert refused.value.reason is Reason.RECEIPT_INVALID


async def test_other_peoples_requests_are_nobodys_business(tmp_path: Path) -> None:
    async with (
        three(tmp_path) as (mesh, client),
        client_of(mesh, "DE", "spy") as spy,
        client_of(mesh, "FR", "spy") as foreign,
    ):
        placed = await client.place(PERSONAL, model="scripted")
        for other in (spy, foreign):
            with pytest.raises(MeshError) as refused:
                await other.receipts(placed.decision.id, [mesh["DE"].nodes["fra-1"].id], wait_s=0)
            assert refused.value.reason is Reason.NOT_FOUND
        with pytest.raises(MeshError) as unknown:
            await spy.receipts("no-such-id", [mesh["DE"].nodes["fra-1"].id], wait_s=0)
        assert unknown.value.message == refused.value.message  # no telling them apart


async def test_a_foreign_placer_shows_nothing_of_third_parties(tmp_path: Path) -> None:
    """What Place keeps from a foreign caller, the log does not tell either."""
    async with three(tmp_path) as (mesh, _):
        home, abroad = mesh["FR"], mesh["DE"].nodes["fra-1"]
        caller = home.caller("bank/desk")
        placed = await caller.place(PUBLIC, at=abroad)
        assert isinstance(abroad.log, MemoryDecisionLog)
        assert any("us.mesh.example" in str(entry) for entry in abroad.log.entries)
        async with client_of(mesh, "FR", "bank/desk") as client:
            with pytest.raises(MeshError) as refused:
                await client.receipts(placed.decision.id, [abroad.id], wait_s=0)
            assert refused.value.reason is Reason.NOT_FOUND


async def test_an_end_that_lies_does_not_spoil_the_others(tmp_path: Path) -> None:
    async with three(tmp_path) as (mesh, client):
        far = mesh["FR"].nodes["par-1"]
        context = RequestContext.of(["internal"], "contracts/drafting", allowed_jurisdictions=["FR"])
        done = await collect(client.chat("scripted", "hello", context=context))
        assert isinstance(far.log, MemoryDecisionLog)

        async def wrong(index: int, size: int) -> tuple[bytes, ...]:
            return (bytes(32),) * 3

        far.log.inclusion = wrong  # type: ignore[method-assign]
        fetched = await client.receipt(done.decision, [far.id], wait_s=10)
        assert list(fetched.missing) == [far.id]
        assert fetched.missing[far.id].reason is Reason.RECEIPT_INVALID
        assert kinds(checked(mesh, fetched.receipt)) == [["place"]]


async def test_without_witnesses_it_says_so(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "DE") as mesh:
        await mesh["DE"].node("fra-1", evidence=tmp_path / "witness")
        async with client_of(mesh, "DE") as client:
            placed = await client.place(PUBLIC, model="scripted")
            receipt = (await client.receipt(placed.decision, wait_s=0.1)).receipt
        with pytest.raises(MeshError) as refused:
            checked(mesh, receipt)
        assert refused.value.reason is Reason.RECEIPT_UNWITNESSED
        (end,) = checked(mesh, receipt, witnesses=0)
        assert any("has not rewritten its log" in line for line in story_of([end]).not_proven)


async def test_it_holds_also_after_every_record_was_renewed(tmp_path: Path) -> None:
    """What names the keys is kept as it was when they were used."""
    ahead = [0.0]
    async with mesh_of(tmp_path, "DE", "FR", "US", clock=lambda: time.time() + ahead[0]) as mesh:
        for country, name in (("DE", "fra-1"), ("FR", "par-1"), ("US", "iad-1")):
            await mesh[country].node(name, evidence=tmp_path / f"{name}-witness")
        async with client_of(mesh, "DE") as client:
            placed = await client.place(PUBLIC, model="scripted")
            home = mesh["DE"].nodes["fra-1"]
            await witnessed(home, 1)
            ahead[0] = 300.0  # more than clocks may differ
            for node in mesh.nodes:
                key = RecordKey(node.id.trust_domain, RecordType.NODE, node.id.name)
                before = home.runtime.board.generation(key)
                node.runtime.publisher._announced = node.runtime.publisher._told = None
                node.runtime.publisher.changed()
                await home.runtime.board.wait_for(
                    lambda _, key=key, before=before: home.runtime.board.generation(key) > before, DEADLINE_S
                )
            receipt = (await client.receipt(placed.decision, wait_s=0)).receipt
        assert len(checked(mesh, receipt)) == 1


async def witnessed(node: Node, size: int) -> None:
    """Waits until the node's log is witnessed up to this size."""
    assert node.runtime.evidence is not None
    witnessing = node.runtime.evidence.witnessing
    async with asyncio.timeout(DEADLINE_S):
        while (await witnessing.covering(size, DEADLINE_S)).authorities < witnessing.enough:
            pass


async def test_a_log_that_was_rewritten_is_noticed_by_its_witnesses(tmp_path: Path) -> None:
    async with three(tmp_path) as (mesh, client):
        node = mesh["DE"].nodes["fra-1"]
        for _ in range(3):
            await client.place(PUBLIC, model="scripted")
        assert isinstance(node.log, MemoryDecisionLog)
        await witnessed(node, 3)
        # Its operator leaves out what it would rather not have decided, and signs that with the log's key.
        signer = node.log._signer
        assert node.log.key is not None
        assert signer is not None
        other = MemoryDecisionLog(node.log.key.name, signer)
        for entry in [*node.log.entries[:1], *node.log.entries[2:], {"kind": "place", "id": "x"}]:
            await other.record(entry)
        assert node.runtime.evidence is not None
        node.runtime.evidence.witnessing._log = other
        await node.runtime.evidence.witnessing.gather(await other.checkpoint())
        for country, name in (("FR", "par-1"), ("US", "iad-1")):
            evidence = mesh[country].nodes[name].runtime.evidence
            assert evidence is not None
            (alarm,) = await evidence.witness.alarms()
            assert alarm.finding in ("fork", "inconsistent", "rollback")
            assert alarm.origin == "de.mesh.example/node/fra-1"
            # The proof is in the alarm: two notes with the log's signature.
            assert alarm.seen.startswith(f"{alarm.origin}\n")
            assert alarm.offered.startswith(f"{alarm.origin}\n")
            assert alarm.seen != alarm.offered
