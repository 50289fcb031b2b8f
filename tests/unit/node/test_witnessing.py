"""A node's log witnessed by others: which are asked, and what their answers are worth."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mesh.core.cosigned import origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import Candidate, Revocations
from mesh.core.types import SpiffeId
from mesh.evidence import MemoryDecisionLog
from mesh.evidence.witness import Witness
from mesh.identity.log_keys import LogKey
from node.evidence.witnessing import Witnessing
from tests.support.snapshots import node as candidate
from tests.support.snapshots import snapshot_of

DE = SpiffeId("de.mesh.example", "/node/fra-1")
NOW = 1_800_000_000.0


def own_log() -> MemoryDecisionLog:
    return MemoryDecisionLog(origin_of(DE), LogKey.generate())


@dataclass
class World:
    """Witnesses by name; what each does when it is asked."""

    folder: Path
    log: MemoryDecisionLog = field(default_factory=own_log)
    keys: dict[SpiffeId, LogKey] = field(default_factory=dict)
    acts: dict[SpiffeId, str] = field(default_factory=dict)
    asked: list[SpiffeId] = field(default_factory=list)
    nodes: list[Candidate] = field(default_factory=list)
    revoked: frozenset[SpiffeId] = frozenset()

    def add(self, country: str, name: str, act: str = "cosign") -> SpiffeId:
        found = candidate(f"{country.lower()}.mesh.example", name)
        key = self.keys[found.id] = LogKey.generate()
        self.acts[found.id] = act
        self.nodes.append(replace(found, record=replace(found.record, witness_key=key.public)))
        return found.id

    @property
    def snapshot(self):
        made = snapshot_of(self.nodes)
        by_domain = {node.trust_domain: Revocations(self.revoked) for node in self.revoked}
        return replace(made, revocations=by_domain)

    @property
    def statuses(self):
        return {}

    async def ask(
        self, witness: Candidate, checkpoint: bytes, old: int, proof: tuple[bytes, ...]
    ) -> tuple[str, int]:
        self.asked.append(witness.id)
        act = self.acts[witness.id]
        if act == "away":
            raise MeshError(Reason.UNREACHABLE, "away")
        if act == "ahead":
            return "", self.log.size + 7
        if act == "slow":
            await asyncio.Event().wait()
        if act == "garbage":
            return "\u2014 nonsense", 0
        key = LogKey.generate() if act == "lie" else self.keys[witness.id]
        here = Witness(
            self.folder / witness.id.name, witness.id, key, lambda: NOW + (3600 if act == "future" else 0)
        )
        assert self.log.key is not None
        return await here.cosign(origin_of(DE), self.log.key.public, checkpoint, old, proof)

    def witnessing(self, enough: int = 2) -> Witnessing:
        return Witnessing(
            self.log, DE, self, self.ask, lambda node: str(node).encode(), lambda: NOW, enough=enough
        )

    async def gather(self, witnessing: Witnessing) -> bool:
        await self.log.record({"kind": "place", "id": str(self.log.size)})
        return await witnessing.gather(await self.log.checkpoint())


async def test_one_node_of_each_other_authority_signs(tmp_path: Path) -> None:
    world = World(tmp_path)
    for country, name in (("DE", "ber-1"), ("FR", "par-1"), ("FR", "par-2"), ("US", "iad-1")):
        world.add(country, name)
    witnessing = world.witnessing()
    for size in (1, 2, 3):
        assert await world.gather(witnessing)
        assert witnessing.latest is not None
        assert witnessing.latest.size == size
        assert len({w.trust_domain for w in witnessing.latest.witnesses}) == 2
        assert {w.trust_domain[:2] for w in witnessing.latest.witnesses} == {"fr", "us"}
    assert len(set(world.asked)) == 2, "the same ones, as long as they answer"


async def test_a_witness_that_is_away_is_replaced_by_another_of_its_authority(tmp_path: Path) -> None:
    world = World(tmp_path)
    paris = {world.add("FR", "par-1"), world.add("FR", "par-2")}
    world.add("US", "iad-1")
    witnessing = world.witnessing()
    (first,) = paris & {each.id for each in witnessing.candidates()}
    world.acts[first] = "away"
    assert not await world.gather(witnessing)
    assert await world.gather(witnessing)
    assert witnessing.latest is not None
    assert paris - {first} <= set(witnessing.latest.witnesses)


@pytest.mark.parametrize("act", ["lie", "garbage", "ahead", "away", "future"])
async def test_what_is_no_cosignature_counts_for_nothing(tmp_path: Path, act: str) -> None:
    world = World(tmp_path)
    world.add("FR", "par-1", act)
    world.add("US", "iad-1")
    witnessing = world.witnessing()
    assert not await world.gather(witnessing)
    assert witnessing.latest is None
    assert witnessing.newest is not None
    assert [w.name for w in witnessing.newest.witnesses] == ["iad-1"]


async def test_a_slow_witness_is_not_waited_for_and_asked_last_from_then_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    slow = world.add("BE", "bru-1", "slow")
    world.add("FR", "par-1")
    world.add("US", "iad-1")
    witnessing = world.witnessing()
    assert await world.gather(witnessing)
    assert witnessing.latest is not None
    assert {w.name for w in witnessing.latest.witnesses} == {"par-1", "iad-1"}
    assert witnessing.candidates()[-1].id == slow


async def test_signatures_of_several_tries_add_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    paris = world.add("FR", "par-1", "away")
    world.add("US", "iad-1")
    witnessing = world.witnessing()
    assert not await world.gather(witnessing)
    world.acts[paris] = "cosign"
    assert await witnessing.gather(await world.log.checkpoint())
    assert witnessing.latest is not None
    assert witnessing.latest.authorities == 2


async def test_a_witness_less_than_before_is_better_than_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    paris = world.add("FR", "par-1")
    world.add("US", "iad-1")
    witnessing = world.witnessing()
    assert await world.gather(witnessing)
    world.acts[paris] = "away"
    assert not await world.gather(witnessing)
    found = await witnessing.covering(2, 0.0)
    assert (found.size, found.authorities) == (2, 1)
    assert (await witnessing.covering(1, 0.0)).authorities == 2


async def test_revoked_and_own_nodes_are_not_asked(tmp_path: Path) -> None:
    world = World(tmp_path)
    gone = world.add("FR", "par-1")
    own = world.add("DE", "ber-1")
    world.revoked = frozenset({gone})
    witnessing = world.witnessing()
    await world.gather(witnessing)
    assert not {gone, own} & set(world.asked)
    assert witnessing.newest is None


async def test_a_witness_that_has_seen_less_than_believed_is_shown_from_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    witness = world.add("FR", "par-1")
    witnessing = world.witnessing(1)
    assert await world.gather(witnessing)
    witnessing._seen[witness] = 0  # the node was restarted and remembers nothing
    assert await world.gather(witnessing)
    assert world.asked == [witness] * 3


async def test_whoever_waits_is_told_when_it_is_witnessed(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add("FR", "par-1")
    witnessing = world.witnessing(1)
    running = asyncio.create_task(witnessing.run())
    try:
        index = await world.log.record({"kind": "place", "id": "a"})
        found = await witnessing.covering(index + 1, 20.0)
        assert found.authorities == 1
        world.acts = dict.fromkeys(world.acts, "away")
        index = await world.log.record({"kind": "place", "id": "b"})
        found = await witnessing.covering(index + 1, 0.0)
        assert (found.size, found.authorities) == (index + 1, 0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
