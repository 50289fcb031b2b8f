"""The indexes of a node: which are there, which are advertised, and what a broken one keeps from working."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import DataClass, HeldCollection
from node.index.documents import DocumentMeta
from node.index.embedding import ScriptedEmbedder
from node.index.index import NewChunk
from node.index.library import Library
from tests.support.document_index import Day, settings, until

DIMENSIONS = 8
META = DocumentMeta("a", classes=frozenset({DataClass.PUBLIC}))


class World:
    """A library, the records that it sees, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.embedder = ScriptedEmbedder(DIMENSIONS)
        self.specs: dict[str, CollectionSpec] = {}
        self.changes = 0
        self.library = self.start()

    def start(self) -> Library:
        self.library = Library(
            self.folder, lambda: self.specs, self.embedder, settings("memory"), Day(), on_change=self._note
        )
        self.library.start()
        return self.library

    async def publish(self, name: str, **changes: object) -> CollectionSpec:
        known = {"dimensions": DIMENSIONS, "embedder_digest": await self.embedder.digest(), **changes}
        spec = CollectionSpec(name, "scripted", **known)  # type: ignore[arg-type]
        self.specs[name] = spec
        return spec

    def states(self) -> dict[str, str]:
        return {status.collection: status.state for status in self.library.statuses()}

    def _note(self) -> None:
        self.changes += 1


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "indexes")
    yield made
    made.library.close()


def refusal(reason: Reason) -> pytest.RaisesExc[MeshError]:
    return pytest.RaisesExc(MeshError, check=lambda error: error.reason is reason)


async def test_made_found_and_removed(world: World) -> None:
    spec = await world.publish("papers")
    with refusal(Reason.COLLECTION_UNKNOWN):
        world.library.get("papers")
    index = await world.library.create("papers")
    index.put(META, "sha256:1", [NewChunk("ward", [1.0] * DIMENSIONS)])
    assert world.library.get("papers") is index
    assert world.library.held() == (HeldCollection("papers", spec.digest),)
    assert world.states() == {"papers": "ready"}
    with refusal(Reason.COLLECTION_EXISTS):
        await world.library.create("papers")
    assert await world.library.delete("papers") == 1
    assert world.library.held() == ()
    assert not (world.folder / "papers").exists()
    assert world.changes == 2
    with refusal(Reason.COLLECTION_UNKNOWN):
        await world.library.delete("papers")


async def test_only_what_the_authority_published_and_this_node_can_embed(world: World) -> None:
    for name in ("nowhere", "../etc", ""):
        with pytest.raises(MeshError) as refused:
            await world.library.create(name)
        assert refused.value.reason in (Reason.COLLECTION_UNKNOWN, Reason.REQUEST_INVALID)
    await world.publish("longer", dimensions=DIMENSIONS + 1)
    await world.publish("other", embedder_digest="sha256:" + "1" * 64)
    for name in ("longer", "other"):
        with refusal(Reason.EMBEDDER_MISMATCH):
            await world.library.create(name)
    assert world.library.statuses() == ()


async def test_a_record_that_changed_takes_the_index_out_of_use(world: World) -> None:
    spec = await world.publish("papers")
    await world.library.create("papers")
    world.specs["papers"] = dataclasses.replace(spec, k1=0.9)
    assert world.library.held() == ()
    with refusal(Reason.COLLECTION_MISMATCH) as refused:
        world.library.get("papers")
    assert "k1" in refused.value.message
    assert "0.9" not in refused.value.message
    assert world.library.find("papers").documents("", 10) == (), "what is in it can be listed and deleted"
    assert world.states() == {"papers": "mismatch"}
    del world.specs["papers"]
    assert world.library.held() == ()
    assert world.states() == {"papers": "mismatch"}
    world.specs["papers"] = spec
    assert world.library.held() == (HeldCollection("papers", spec.digest),)


async def test_what_was_made_is_there_after_a_restart(world: World) -> None:
    await world.publish("papers")
    index = await world.library.create("papers")
    index.put(META, "sha256:1", [NewChunk("ward", [1.0] * DIMENSIONS)])
    secret = (world.folder / "secret").read_bytes()
    world.library.close()
    library = world.start()
    until(lambda: world.states() == {"papers": "ready"})
    assert library.get("papers").digest_of("a") == "sha256:1"
    assert (world.folder / "secret").read_bytes() == secret
    assert stat.S_IMODE((world.folder / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(world.folder.stat().st_mode) == 0o700


async def test_a_broken_index_is_reported_and_harms_no_other(world: World) -> None:
    for name in ("papers", "broken"):
        await world.publish(name)
        await world.library.create(name)
    world.library.close()
    (world.folder / "broken" / "index.db").write_bytes(b"not a database" * 100)
    (world.folder / "half").mkdir()
    library = world.start()
    until(lambda: world.states() == {"broken": "failed", "papers": "ready"})
    assert [held.name for held in library.held()] == ["papers"]
    with refusal(Reason.INDEX_UNAVAILABLE):
        library.get("broken")
    assert not (world.folder / "half").exists()  # never wholly made
    assert await library.delete("broken") == 0
    assert (await library.create("broken")).status().documents == 0


async def test_documents_are_not_thrown_away_for_a_mark_that_is_missing(world: World) -> None:
    """As after a restore that left the empty file out."""
    await world.publish("papers")
    index = await world.library.create("papers")
    index.put(META, "sha256:1", [NewChunk("ward", [1.0] * DIMENSIONS)])
    world.library.close()
    (world.folder / "papers" / "made").unlink()
    library = world.start()
    until(lambda: world.states() == {"papers": "ready"})
    assert library.get("papers").digest_of("a") == "sha256:1"


async def test_what_was_being_removed_is_gone_after_a_restart(world: World) -> None:
    await world.publish("papers")
    index = await world.library.create("papers")
    index.put(META, "sha256:1", [NewChunk("ward", [1.0] * DIMENSIONS)])
    world.library.close()
    (world.folder / "papers" / "made").rename(world.folder / "papers" / "removing")
    world.start()
    assert not (world.folder / "papers").exists()


def test_a_damaged_secret_is_not_replaced(tmp_path: Path) -> None:
    """Ids made with another secret would not be those that others know."""
    world = World(tmp_path / "indexes")
    world.library.close()
    (tmp_path / "indexes" / "secret").write_bytes(b"short")
    with refusal(Reason.INDEX_UNAVAILABLE):
        world.start()
