"""Collections over mutual TLS: published, changed, listed with who holds them; a bad one changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import codec
from mesh.core.errors import Reason
from mesh.core.records import RecordType
from mesh.core.retrieval import CollectionSpec
from sovereign.mesh.v1 import admin_pb2
from tests.support.control_calls import ControlCalls, control_calls, refusal

SPEC = CollectionSpec("handbook", "all-MiniLM-L6-v2", "sha256:" + "a" * 64, 384)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[ControlCalls]:
    async with control_calls(tmp_path) as calls:
        yield calls


def asking(spec: CollectionSpec, dry_run: bool = False) -> admin_pb2.ApplyCollectionRequest:
    return admin_pb2.ApplyCollectionRequest(collection=codec.collection_to_pb(spec), dry_run=dry_run)


async def test_a_collection_is_checked_published_changed_and_listed(setup: ControlCalls):
    admin = setup.admin()
    dry = await admin.ApplyCollection(asking(SPEC, dry_run=True))
    assert (dry.generation, dry.digest) == (0, SPEC.digest)
    assert setup.generation(RecordType.COLLECTION, "handbook") == 0
    made = await admin.ApplyCollection(asking(SPEC))
    assert (made.generation, made.digest, list(made.changed)) == (1, SPEC.digest, [])
    other = dataclasses.replace(SPEC, k1=0.9, embedder_digest="sha256:" + "b" * 64)
    dry = await admin.ApplyCollection(asking(other, dry_run=True))
    assert (dry.generation, sorted(dry.changed)) == (1, ["embedder_digest", "k1"])
    changed = await admin.ApplyCollection(asking(other))
    assert (changed.generation, sorted(changed.changed)) == (2, ["embedder_digest", "k1"])
    (view,) = (await admin.ListCollections(admin_pb2.ListCollectionsRequest())).collections
    assert (view.trust_domain, view.digest, list(view.nodes), list(view.mismatched)) == (
        "de.mesh.example", other.digest, [], [],
    )  # fmt: skip
    assert codec.collection_from_pb(view.collection) == other
    entries = [entry for entry in setup.control.actions.entries if entry["action"] == "apply collection"]
    assert [(e.get("digest"), e.get("changed"), e.get("generation")) for e in entries] == [
        (SPEC.digest, [], None),
        (None, None, 1),
        (other.digest, ["embedder_digest", "k1"], None),
        (None, None, 2),
    ]


async def test_what_is_in_force_already_is_not_published_again(setup: ControlCalls):
    for _ in range(2):
        answer = await setup.admin().ApplyCollection(asking(SPEC))
        assert answer.generation == 1
    assert setup.generation(RecordType.COLLECTION, "handbook") == 1
    assert len(setup.control.actions.entries) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "No Name"},
        {"name": ""},
        {"embedder_digest": "sha256:abc"},
        {"dimensions": 0},
        {"dimensions": 10_000},
        {"k1": float("nan")},
        {"k1": -1.0},
        {"b": 1.5},
        {"average_length": float("inf")},
        {"chunk_tokens": 4},
        {"embedder": "\x1b[31m"},
    ],
    ids=str,
)
async def test_a_bad_collection_changes_nothing(setup: ControlCalls, wrong: dict[str, object]):
    message = codec.collection_to_pb(SPEC)
    for name, value in wrong.items():
        setattr(message, name, value)
    error = await refusal(setup.admin().ApplyCollection(admin_pb2.ApplyCollectionRequest(collection=message)))
    assert error.reason is Reason.RECORD_MALFORMED
    assert setup.control.actions.entries == []


async def test_no_settings_are_no_collection(setup: ControlCalls):
    error = await refusal(setup.admin().ApplyCollection(admin_pb2.ApplyCollectionRequest()))
    assert error.reason is Reason.REQUEST_INVALID


async def test_an_authority_has_a_number_of_collections(setup: ControlCalls, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("control.records.MAX_COLLECTIONS", 2)
    admin = setup.admin()
    for name in ("a", "b"):
        await admin.ApplyCollection(asking(dataclasses.replace(SPEC, name=name)))
    error = await refusal(admin.ApplyCollection(asking(dataclasses.replace(SPEC, name="c"))))
    assert error.reason is Reason.REQUEST_TOO_LARGE
    changed = await admin.ApplyCollection(asking(dataclasses.replace(SPEC, name="b", b=0.5)))
    assert list(changed.changed) == ["b"]


async def test_I7_what_cannot_be_recorded_is_not_published(setup: ControlCalls):
    setup.control.actions.full = True
    error = await refusal(setup.admin().ApplyCollection(asking(SPEC)))
    assert error.reason is Reason.EVIDENCE_UNAVAILABLE
    assert setup.generation(RecordType.COLLECTION, "handbook") == 0
