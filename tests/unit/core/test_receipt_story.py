"""Ends are of one request only if each later one rests on what the first decided."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.notes import Checkpoint
from mesh.core.receipt import VerifiedEnd
from mesh.core.receipt_story import story_of
from mesh.core.types import SpiffeId

PLACER = SpiffeId("de.mesh.example", "/node/fra-1")
SERVER = SpiffeId("fr.mesh.example", "/node/par-1")
CALLER = "spiffe://de.mesh.example/client/firm"


def end(node: SpiffeId, *entries: dict[str, Any]) -> VerifiedEnd:
    name = f"{node.trust_domain}{node.path}"
    return VerifiedEnd(node, Checkpoint(name, 9, bytes(32)), (), tuple(enumerate(entries)))


def placed(**changes: Any) -> dict[str, Any]:
    decision = {"id": "D", "permitted": True, "ranked": [{"node": str(SERVER), "location": "FR"}]}
    context = {"digest": "aa", "data_classes": ["internal"], "purpose": "x"}
    return {"kind": "place", "at": 1.0, "caller": CALLER, "context": context, "decision": decision, **changes}


def served(**changes: Any) -> dict[str, Any]:
    permit = {"id": "P", "decision": "D", "signer": str(PLACER)}
    entry = {"kind": "serve", "id": "S", "at": 2.0, "caller": CALLER, "context": {"digest": "aa"}}
    return {**entry, "permit": permit, "outcome": "served", **changes}


def test_both_ends_of_one_request_are_a_story() -> None:
    cut = {"kind": "cut", "id": "S", "at": 3.0, "reason": "IDENTITY_REVOKED"}
    story = story_of([end(PLACER, placed()), end(SERVER, served(), cut)])
    assert story.decisions == ("D",)
    assert any("cut the request off (IDENTITY_REVOKED)" in line for line in story.proven)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (placed(), served(permit={})),
        (placed(), served(id="D", permit={})),  # the same id is no link
        (placed(), served(permit={"decision": "D", "signer": "spiffe://us.mesh.example/node/iad-1"})),
        (placed(), served(permit={"decision": "E", "signer": str(PLACER)})),
        (placed(), served(context={"digest": "bb"})),
        (placed(decision={"id": "D", "ranked": []}), served()),
        (placed(decision={"id": "D", "ranked": [{"node": "another"}]}), served()),
    ],
)
def test_ends_of_different_requests_are_none(first: dict[str, Any], second: dict[str, Any]) -> None:
    with pytest.raises(MeshError) as refused:
        story_of([end(PLACER, first), end(SERVER, second)])
    assert refused.value.reason is Reason.RECEIPT_INVALID


@pytest.mark.parametrize("wrong", [None, 1, [], {}, "x", {"permit": {"x": 1}}, 10**400, float("nan")])
@pytest.mark.parametrize(
    "name", ["at", "decision", "permit", "context", "levels", "refused", "nodes", "asks"]
)
@pytest.mark.parametrize("kind", ["place", "serve", "search", "covered", "release", "cut", "other"])
def test_whatever_an_entry_says_is_told_or_refused(kind: str, name: str, wrong: Any) -> None:
    assert story_of([end(PLACER, {"kind": kind, "id": "D", name: wrong})]).proven
