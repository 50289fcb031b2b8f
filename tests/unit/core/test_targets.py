"""Permitted targets: nobody but the policy's own module can make one (I1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.decision import Decision, Ranked
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Offer, Permitted, permitted_targets
from mesh.core.types import SpiffeId

DE = SpiffeId("de.mesh.example", "/node/fra-1")
FR = SpiffeId("fr.mesh.example", "/node/par-1")
US = SpiffeId("us.mesh.example", "/node/iad-1")
DECISION = Decision("d", True, (Ranked(FR, 0.1, "FR"), Ranked(DE, 0.2, "DE")), (), 0, 2)


def offer(node: SpiffeId, **changes: object) -> Offer:
    whole = Offer(node, ("127.0.0.1:443",), f"{node.name}.node.{node.trust_domain}", b"permit", "sha256:00")
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_targets_follow_the_ranking() -> None:
    targets = permitted_targets(DECISION, [offer(DE), offer(FR)])
    assert [t.node for t in targets] == [FR, DE]
    assert (targets[0].decision_id, targets[0].permit, targets[0].endpoints) == (
        "d",
        b"permit",
        ("127.0.0.1:443",),
    )
    assert "permit=" not in repr(targets[0])


def test_fewer_permits_than_ranked_nodes_is_fine() -> None:
    assert [t.node for t in permitted_targets(DECISION, [offer(DE)])] == [DE]
    assert permitted_targets(DECISION, []) == ()


@pytest.mark.parametrize(
    "offers",
    [
        [offer(US)],
        [offer(FR), offer(US)],
        [offer(FR), offer(FR)],
        [offer(FR, permit=b"")],
        [offer(FR, endpoints=())],
        [offer(FR, endpoints=("host:1",) * 9)],
        [offer(FR, endpoints=("host",))],
        [offer(FR, endpoints=("host:0",))],
        [offer(FR, endpoints=("host:65536",))],
        [offer(FR, endpoints=("host:٤٤",))],
        [offer(FR, endpoints=("unix:/tmp/x:1",))],
        [offer(FR, endpoints=("a,b:1",))],
        [offer(FR, endpoints=("dns:///evil:1",))],
        [offer(FR, dns_name="")],
        [offer(FR, dns_name="Upper.example")],
    ],
)
def test_i1_an_answer_with_anything_wrong_gives_no_target(offers: list[Offer]) -> None:
    with pytest.raises(MeshError) as caught:
        permitted_targets(DECISION, offers)
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_i1_a_refused_decision_gives_no_target() -> None:
    with pytest.raises(MeshError):
        permitted_targets(replace(DECISION, permitted=False), [offer(FR)])


def test_i1_nobody_else_makes_or_changes_one() -> None:
    with pytest.raises(TypeError):
        Permitted("d", offer(US), object())
    (target,) = permitted_targets(DECISION, [offer(FR)])
    with pytest.raises(AttributeError):
        target.node = US  # type: ignore[misc]
    with pytest.raises(AttributeError):
        target.endpoints = ("elsewhere:1",)  # type: ignore[misc]


@pytest.mark.parametrize("endpoint", ["fra-1.example:443", "127.0.0.1:1", "[::1]:65535", "localhost:50051"])
def test_endpoints_that_are_fine(endpoint: str) -> None:
    assert permitted_targets(DECISION, [offer(FR, endpoints=(endpoint,))])[0].endpoints == (endpoint,)
