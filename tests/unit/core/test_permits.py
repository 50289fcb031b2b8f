"""Permits: one caller, one node, one kind of request, one minute, one use (I2, I4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.permits import PERMIT_TTL_S, Permit, ReplayGuard, check_permit, may_sign
from mesh.core.records import CLOCK_TOLERANCE_S, RecordType, Statement
from mesh.core.types import Action, RequestContext, SpiffeId

NOW = 1_000_000.0
CALLER = SpiffeId("de.mesh.example", "/client/clinic-a")
NODE = SpiffeId("fr.mesh.example", "/node/par-1")
CONTEXT = RequestContext.of(["confidential"], "drafting")
PERMIT = Permit("d-1", CALLER, NODE, Action.INFER, CONTEXT.digest, "tiny")


def statement(**changes: object) -> Statement:
    base = Statement(
        type=RecordType.PERMIT,
        key="k-1",
        generation=1,
        not_before=NOW,
        not_after=NOW + PERMIT_TTL_S,
        payload=b"",
        signer=SpiffeId("de.mesh.example", "/node/fra-1"),
        signer_serial="01",
        digest="sha256:00",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def check(permit: Permit = PERMIT, signed: Statement | None = None, **changes: object) -> None:
    asked: dict[str, object] = {
        "caller": CALLER,
        "node": NODE,
        "action": Action.INFER,
        "context": CONTEXT,
        "model": "tiny",
        "now": NOW + 1,
    }
    check_permit(permit, signed or statement(), **{**asked, **changes})  # type: ignore[arg-type]


def test_a_fitting_permit_passes() -> None:
    check()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"node": SpiffeId("fr.mesh.example", "/node/par-2")}, Reason.PERMIT_WRONG_NODE),
        ({"caller": SpiffeId("de.mesh.example", "/client/clinic-b")}, Reason.PERMIT_WRONG_CALLER),
        ({"action": Action.EMBED}, Reason.PERMIT_WRONG_ACTION),
        ({"context": RequestContext.of(["confidential"], "training")}, Reason.PERMIT_WRONG_CONTEXT),
        ({"context": RequestContext.of(["public"], "drafting")}, Reason.PERMIT_WRONG_CONTEXT),
        (
            {"context": RequestContext.of(["confidential"], "drafting", allowed_jurisdictions=["FR"])},
            Reason.PERMIT_WRONG_CONTEXT,
        ),
        ({"model": ""}, Reason.PERMIT_WRONG_MODEL),
        ({"model": "large"}, Reason.PERMIT_WRONG_MODEL),
        ({"now": NOW + PERMIT_TTL_S}, Reason.PERMIT_EXPIRED),
        ({"now": NOW + 120}, Reason.PERMIT_EXPIRED),
        ({"now": NOW - 120}, Reason.PERMIT_NOT_YET_VALID),
    ],
)
def test_i4_whatever_differs_refuses(changes: dict[str, object], reason: Reason) -> None:
    with pytest.raises(MeshError) as caught:
        check(**changes)
    assert caught.value.reason is reason


def test_the_tolerance_is_for_slow_clocks_only() -> None:
    check(now=NOW - CLOCK_TOLERANCE_S)
    with pytest.raises(MeshError, match="compare the clocks"):
        check(now=NOW - CLOCK_TOLERANCE_S - 1)
    with pytest.raises(MeshError, match="compare the clocks"):
        check(now=NOW + PERMIT_TTL_S)


@pytest.mark.parametrize("digest", [b"", b"\x00", CONTEXT.digest[:-1], CONTEXT.digest + b"\x00"])
def test_i4_a_digest_of_any_other_length_refuses(digest: bytes) -> None:
    with pytest.raises(MeshError) as caught:
        check(replace(PERMIT, context_digest=digest))
    assert caught.value.reason is Reason.PERMIT_WRONG_CONTEXT


def test_other_statements_are_no_permits() -> None:
    with pytest.raises(MeshError) as caught:
        check(signed=statement(type=RecordType.STATUS))
    assert caught.value.reason is Reason.PERMIT_MALFORMED


def test_a_permit_that_holds_too_long_is_none() -> None:
    with pytest.raises(MeshError) as caught:
        check(signed=statement(not_after=NOW + 3600))
    assert caught.value.reason is Reason.PERMIT_MALFORMED


@pytest.mark.parametrize(
    ("signer", "accepted"),
    [
        ("spiffe://de.mesh.example/node/fra-1", True),
        ("spiffe://de.mesh.example/control/main", True),
        ("spiffe://fr.mesh.example/node/par-1", True),
        ("spiffe://fr.mesh.example/control/main", True),
        ("spiffe://us.mesh.example/node/iad-1", False),
        ("spiffe://us.mesh.example/control/main", False),
        ("spiffe://de.mesh.example/client/clinic-a", False),
        ("spiffe://de.mesh.example/admin/alice", False),
        ("spiffe://de.mesh.example/authority", False),
    ],
)
def test_i3_only_the_two_sides_sign(signer: str, accepted: bool) -> None:
    identity = SpiffeId.parse(signer)
    assert may_sign(identity, CALLER, NODE) is accepted
    if accepted:
        check(signed=statement(signer=identity))
    else:
        with pytest.raises(MeshError) as caught:
            check(signed=statement(signer=identity))
        assert caught.value.reason is Reason.PERMIT_WRONG_SIGNER


def test_each_permit_is_good_for_one_use() -> None:
    guard = ReplayGuard()
    guard.use(statement(), NOW)
    guard.use(statement(key="k-2"), NOW)
    for later in (0, 1, PERMIT_TTL_S - 0.001):
        with pytest.raises(MeshError) as caught:
            guard.use(statement(), NOW + later)
        assert caught.value.reason is Reason.PERMIT_REPLAYED


def test_signers_do_not_share_keys() -> None:
    guard = ReplayGuard()
    guard.use(statement(), NOW)
    guard.use(statement(signer=SpiffeId("fr.mesh.example", "/node/par-1")), NOW)
    assert len(guard) == 2


def test_i4_a_full_guard_refuses_rather_than_forgets() -> None:
    guard = ReplayGuard(capacity=2)
    guard.use(statement(key="a"), NOW)
    guard.use(statement(key="b"), NOW)
    with pytest.raises(MeshError) as caught:
        guard.use(statement(key="c"), NOW + 1)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s
    with pytest.raises(MeshError) as caught:
        guard.use(statement(key="a"), NOW + 1)
    assert caught.value.reason is Reason.PERMIT_REPLAYED
    later = NOW + PERMIT_TTL_S + 1
    guard.use(statement(key="c", not_before=later, not_after=later + PERMIT_TTL_S), later)
    assert len(guard) == 1


def test_i4_a_clock_that_steps_back_brings_no_permit_back() -> None:
    guard = ReplayGuard()
    guard.use(statement(), NOW)
    later = NOW + PERMIT_TTL_S + 5
    guard.use(statement(key="other", not_after=later + 60), later)
    with pytest.raises(MeshError) as caught:
        guard.use(statement(), NOW + 10)
    assert caught.value.reason is Reason.PERMIT_EXPIRED
