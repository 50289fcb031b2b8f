"""Shares of what answering costs: by tenant at home, by trust domain for others."""

from __future__ import annotations

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.rpc.pace import BURST_S, MAX_ASKERS, SHARE, Pace, asker_of

DE = "de.mesh.example"


def test_a_burst_is_free_and_what_is_over_flows_off():
    pace = Pace()
    pace.require("a", 0.0)
    pace.spend("a", BURST_S, 0.0)
    pace.require("a", 0.0)
    pace.spend("a", 1.0, 0.0)
    with pytest.raises(MeshError) as caught:
        pace.require("a", 0.0)
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s == pytest.approx(1.0 / SHARE)
    pace.require("b", 0.0)
    pace.require("a", caught.value.retry_after_s)


def test_a_clock_that_stands_still_or_a_long_pause_gives_nothing_away():
    pace = Pace()
    pace.spend("a", 1.0, 0.0)
    pace.spend("a", 0.0, 1_000.0)  # flowed off long ago, and no more than that
    pace.spend("a", BURST_S, 1_000.0)
    pace.require("a", 1_000.0)
    pace.spend("a", 0.1, 1_000.0)
    with pytest.raises(MeshError):
        pace.require("a", 1_000.0)


def test_what_is_remembered_is_bounded():
    pace = Pace()
    for number in range(MAX_ASKERS + 10):
        pace.spend(str(number), 100.0, 0.0)
    pace.require("0", 0.0)
    with pytest.raises(MeshError):
        pace.require(str(MAX_ASKERS), 0.0)


@pytest.mark.parametrize(
    ("caller", "asker"),
    [
        (SpiffeId(DE, "/client/clinic/desk-1"), "/client/clinic"),
        (SpiffeId(DE, "/client/clinic"), "/client/clinic"),
        (SpiffeId(DE, "/admin/clinic"), "/admin/clinic"),
        (SpiffeId("us.mesh.example", "/client/firm"), "us.mesh.example"),
    ],
)
def test_who_shares_a_share(caller: SpiffeId, asker: str):
    assert asker_of(caller, DE) == asker
