"""The control plane's small parts: the action log, pending facts, the limit on enrolments."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.actions import ActionLog
from control.api.enrolment import MAX_ADDRESSES, AskedTooOften
from control.pending import PendingFacts
from mesh.core.errors import MeshError, Reason
from mesh.core.types import NodeFacts, SpiffeId
from mesh.evidence import MemoryDecisionLog

ADMIN = SpiffeId("de.mesh.example", "/admin/first")
FACTS = NodeFacts("DE", "DE", "US", frozenset({"DE", "IN"}), frozenset({"C5"}))


def make_log() -> tuple[ActionLog, MemoryDecisionLog]:
    kept = MemoryDecisionLog()
    return ActionLog(kept, lambda: 1000.0, lambda: "id-1"), kept


async def test_an_action_is_recorded_before_and_after():
    log, kept = make_log()
    async with log.action("revoke", ADMIN, "ab", names=["x"]) as outcome:
        assert kept.entries[-1]["state"] == "begun"
        outcome["generation"] = 7
    begun, done = kept.entries
    assert begun == {
        "kind": "action", "id": "id-1", "action": "revoke", "at": 1000.0, "by": str(ADMIN), "serial": "ab",
        "names": ["x"], "state": "begun",
    }  # fmt: skip
    assert done["state"] == "done"
    assert done["generation"] == 7


async def test_I7_what_cannot_be_recorded_does_not_happen():
    log, kept = make_log()
    kept.full = True
    happened = False
    with pytest.raises(MeshError) as error:
        async with log.action("revoke", ADMIN, "ab"):
            happened = True
    assert error.value.reason is Reason.EVIDENCE_UNAVAILABLE
    assert not happened


async def test_a_failure_is_recorded_by_its_reason_alone():
    log, kept = make_log()
    with pytest.raises(MeshError):
        async with log.action("accept", ADMIN, "ab"):
            raise MeshError(Reason.BUNDLE_INVALID, "with words")
    with pytest.raises(ZeroDivisionError):
        async with log.action("accept", ADMIN, "ab"):
            raise ZeroDivisionError("secret")
    assert [e.get("reason") for e in kept.entries if e["state"] == "failed"] == ["BUNDLE_INVALID", "INTERNAL"]
    assert "words" not in str(kept.entries)
    assert "secret" not in str(kept.entries)


def test_facts_wait_for_their_node(tmp_path: Path):
    pending = PendingFacts(tmp_path / "pending")
    pending.put("fra-1", FACTS)
    assert PendingFacts(tmp_path / "pending").get("fra-1") == FACTS
    assert all(f.stat().st_mode & 0o077 == 0 for f in (tmp_path / "pending").iterdir())
    pending.remove("fra-1")
    pending.remove("fra-1")
    with pytest.raises(MeshError) as error:
        pending.get("fra-1")
    assert error.value.reason is Reason.NOT_FOUND


def test_enrolments_are_limited_by_address_and_minute():
    now = [600.0]
    limit = AskedTooOften(2, lambda: now[0])
    limit.count("ipv4:192.0.2.1")
    limit.count("ipv4:192.0.2.1")
    limit.count("ipv4:192.0.2.2")
    with pytest.raises(MeshError) as error:
        limit.count("ipv4:192.0.2.1")
    assert error.value.reason is Reason.OVERLOADED
    assert error.value.retry_after_s == pytest.approx(60)
    now[0] += 60
    limit.count("ipv4:192.0.2.1")


def test_the_limit_remembers_a_bounded_number_of_addresses():
    limit = AskedTooOften(1, lambda: 0.0)
    for number in range(2 * MAX_ADDRESSES):
        limit.count(f"ipv4:{number}")
    assert len(limit._asked) == MAX_ADDRESSES
