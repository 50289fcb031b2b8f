"""What gauges read: bounded, right at the edges, and nothing at all where there is nothing to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.core.errors import Reason
from mesh.core.jurisdictions import COUNTRIES
from mesh.core.snapshot import Heads, Snapshot
from mesh.core.types import NodeStatus, SpiffeId, node_id
from mesh.telemetry.instruments import Instruments
from mesh.telemetry.meters import EnrolmentMeter, NodeMeter
from mesh.telemetry.metrics import CONTROL, MAX_COLLECTIONS, MAX_ROUTES, MAX_TRUST_DOMAINS, NODE
from mesh.telemetry.readings import of_board, of_log
from node.telemetry import of_indexes, of_witnessing
from tests.support.scraping import Page, page_of

OWN = "zz.mesh.example"  # last in any order


@dataclass
class FakeBoard:
    """What of_board looks at."""

    snapshot: Snapshot
    connected: bool = True
    statuses: dict[SpiffeId, NodeStatus] = field(default_factory=dict)
    refused: dict[str, Reason] = field(default_factory=dict)


def shown(*reads: Any, daemon: str = NODE) -> Page:
    made = Instruments(daemon)
    for read in reads:
        made.read(read)
    page = page_of(made.registry)
    assert page.value("sovereign_mesh_scrape_failures_total") == 0
    return page


def test_authorities_beyond_the_bound_are_left_out_but_never_the_own():
    domains = [f"{number:03}.mesh.example" for number in range(2 * MAX_TRUST_DOMAINS)] + [OWN]
    snapshot = Snapshot(
        1,
        OWN,
        heads={domain: Heads(100.0, 60.0, {}) for domain in domains},
        generations={f"/sovereign/v1/{domain}/policy": (1, "") for domain in domains},
    )
    page = shown(of_board(FakeBoard(snapshot), lambda: 130.0))
    for name in ("sovereign_mesh_record_age_seconds", "sovereign_mesh_records"):
        assert len(page.all(name)) == MAX_TRUST_DOMAINS
    assert page.value("sovereign_mesh_record_age_seconds", trust_domain=OWN) == 30
    assert page.value("sovereign_mesh_records", trust_domain=OWN, type="policy") == 1


def test_an_authority_that_was_never_heard_has_no_age_and_one_from_the_future_is_young():
    snapshot = Snapshot(1, OWN, bundles={}, heads={"fr.mesh.example": Heads(200.0, 60.0, {})})
    page = shown(of_board(FakeBoard(snapshot, connected=False), lambda: 190.0))
    assert not page.all("sovereign_mesh_record_age_seconds", trust_domain=OWN)
    assert page.all("sovereign_mesh_record_age_seconds", trust_domain="fr.mesh.example")
    assert page.value("sovereign_mesh_record_age_seconds") == 0
    assert page.value("sovereign_mesh_board_connected") == 0


def test_what_the_board_holds_and_what_of_it_is_not_believed():
    node = node_id(OWN, "a")
    board = FakeBoard(
        Snapshot(1, OWN, generations={f"/sovereign/v1/{OWN}/facts/{name}": (1, "") for name in "abc"}),
        statuses={node: NodeStatus(True, 0, 0, 1, False, 0.0)},
        refused={
            "/x": Reason.RECORD_WRONG_SIGNER,
            "/y": Reason.RECORD_WRONG_SIGNER,
            "/z": Reason.RECORD_EXPIRED,
        },
    )
    read = of_board(board, lambda: 0.0)
    page = shown(read)
    assert page.value("sovereign_mesh_records", type="facts") == 3
    assert page.value("sovereign_mesh_records", type="status") == 1
    assert page.value("sovereign_mesh_records_refused", reason="RECORD_WRONG_SIGNER") == 2
    assert page.value("sovereign_mesh_records_refused") == 3
    board.snapshot = Snapshot(2, OWN, generations={f"/sovereign/v1/{OWN}/facts/a": (2, "")})
    assert shown(read).value("sovereign_mesh_records", type="facts") == 1


def test_since_when_nothing_was_signed():
    now = 0.0
    log = SimpleNamespace(size=0, latest=None)
    read = of_log(log, lambda: now)
    name = "sovereign_mesh_evidence_checkpoint_age_seconds"

    def age(at: float, size: int, signed: int) -> float:
        nonlocal now
        now, log.size, log.latest = at, size, SimpleNamespace(size=signed) if signed else None
        page = shown(read)
        assert page.value("sovereign_mesh_evidence_entries") == size
        return page.value(name)

    assert age(0, 0, 0) == 0, "an empty log has nothing to sign for"
    assert age(10, 3, 0) == 0, "seen for the first time"
    assert age(25, 4, 0) == 15
    assert age(40, 9, 4) == 0, "signed for meanwhile"
    assert age(45, 9, 4) == 5
    assert age(50, 9, 9) == 0


@pytest.mark.parametrize(
    ("enough", "possible", "latest", "newest", "lag"),
    [
        (0, 3, None, None, None),
        (2, 0, None, None, None),
        (2, 2, None, 90, 100),
        (2, 2, 80, 90, 20),
        (2, 1, None, 90, 10),
        (2, 1, None, None, 100),
    ],
)
def test_how_far_witnesses_are_behind(
    enough: int, possible: int, latest: int | None, newest: int | None, lag: int | None
):
    def witnessed(size: int | None) -> Any:
        return None if size is None else SimpleNamespace(size=size)

    witnessing: Any = SimpleNamespace(
        enough=enough,
        candidates=lambda: [None] * possible,
        latest=witnessed(latest),
        newest=witnessed(newest),
    )
    page = shown(of_witnessing(SimpleNamespace(size=100, latest=None), witnessing))
    name = "sovereign_mesh_evidence_cosigned_lag_entries"
    assert [each.value for each in page.all(name)] == ([] if lag is None else [lag])


def test_collections_beyond_the_bound_are_left_out():
    statuses = [
        SimpleNamespace(collection=f"c-{number:03}", chunks=number, documents=1, behind=0, state="ready")
        for number in range(2 * MAX_COLLECTIONS)
    ]
    library: Any = SimpleNamespace(statuses=lambda: statuses)
    page = shown(of_indexes(library))
    assert len(page.all("sovereign_mesh_index_chunks")) == MAX_COLLECTIONS
    assert page.value("sovereign_mesh_index_chunks", collection="c-007") == 7


def test_routes_beyond_the_bound_are_one():
    made = Instruments(NODE)
    meter = NodeMeter(made, node_id("de.mesh.example", "fra-1"))
    some = sorted(COUNTRIES)[:20]
    for source in some:
        for target in some:
            meter.recorded(
                {
                    "kind": "serve",
                    "outcome": "served",
                    "action": "infer",
                    "caller_location": source,
                    "context": {"data_classes": ["public"]},
                    "decision": {"ranked": [{"location": target}]},
                }
            )
    page = page_of(made.registry)
    flows = page.all("sovereign_mesh_flows_total")
    assert len(flows) == MAX_ROUTES + 1
    assert page.value("sovereign_mesh_flows_total") == len(some) ** 2
    assert page.value("sovereign_mesh_flows_total", **{"from": "other"}) == len(some) ** 2 - MAX_ROUTES


def test_an_outcome_that_is_none_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        EnrolmentMeter(Instruments(CONTROL))("maybe")
