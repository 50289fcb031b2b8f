"""The network between hosts fails: partitions, and loss in one direction only.

What is local goes on, what crosses borders stops once records are stale (I4), callers move on in time,
engines are freed, and everything comes back by itself. How long that takes is bench/bench_partition.py's
subject; the deadlines here only say that nothing hangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.hosts.calls import Refused
from tests.support.hosts.federation import COLLECTION, Federation, Plan, federation_of
from tests.support.hosts.lab import LabFailed

# A whole federation comes up first, which takes half a minute where the machine is busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("hosts_permitted")]

# Short enough to watch records go stale and statuses run out.
PLAN = Plan(
    {"DE": ("fra-1", "ber-1"), "FR": ("par-1",)},
    heads_interval_s=0.5,
    heads_max_age_s=2.0,
    lease_s=1.5,
    documents=True,
)
GERMAN = ("fra-1", "ber-1")
SILENCE_S = 2.0
FOR_EVER = 8192  # tokens: minutes
CARE = {"classes": ["special-category"]}
ABROAD = {"classes": ["confidential"], "countries": ["FR"]}
BUSINESS = {"classes": ["internal"], "query": "where is the pump", "collection": COLLECTION}


@pytest.fixture(scope="module")
def running(hosts_permitted: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation_of(tmp_path_factory.mktemp("faults"), PLAN) as mesh:
        yield mesh


@pytest.fixture
def mesh(running: Federation) -> Iterator[Federation]:
    """Whole before and after each test."""
    running.until_ready()
    running.until(lambda: "par-1" in ask(running, "place", **ABROAD)["ranked"])
    with running.lab.faults():
        yield running


def ask(mesh: Federation, do: str, **what: Any) -> Any:
    prompt = {"prompt": "Patient, 61, chest pain. What first?"} if do == "chat" else {}
    return mesh.clinic.ask(do, profile=mesh.profile, silence_s=SILENCE_S, **prompt, **what)


def outcomes(mesh: Federation) -> dict[str, str]:
    """What became of each node that a question about business could be put to."""
    return {name: outcome for name, (outcome, _) in ask(mesh, "search", **BUSINESS)["coverage"].items()}


def test_cut_off_from_etcd_a_country_serves_its_own_and_sends_nothing_abroad_i4(mesh: Federation):
    mesh.lab.partition(GERMAN, ["etcd"])
    mesh.until(lambda: ask(mesh, "place", **ABROAD)["refused"].get("par-1") == "RECORDS_STALE")
    with pytest.raises(Refused) as refused:
        ask(mesh, "chat", **ABROAD)
    assert refused.value.decision["refused"]["par-1"] == "RECORDS_STALE"
    for _ in range(3):
        assert ask(mesh, "chat", **CARE)["node"] in GERMAN
    # France has not heard of them since, and their statuses have run out.
    mesh.until(lambda: not set(GERMAN) & set(mesh.statuses("FR")))
    assert mesh.lab.lost() > 0
    mesh.lab.heal()
    mesh.until(lambda: ask(mesh, "place", **ABROAD)["ranked"] == ["par-1"])
    assert ask(mesh, "chat", **ABROAD)["node"] == "par-1"
    mesh.until(lambda: set(GERMAN) <= set(mesh.statuses("FR")))


def test_cut_off_from_another_node_a_question_says_who_did_not_answer(mesh: Federation):
    whole = {"fra-1": "answered", "ber-1": "answered", "par-1": "answered"}
    assert outcomes(mesh) == whole
    mesh.lab.partition(GERMAN, ["par-1"])
    assert outcomes(mesh) == {**whole, "par-1": "failed"}
    assert ask(mesh, "chat", **ABROAD)["node"] == "par-1"  # the caller still reaches it
    mesh.lab.heal()
    mesh.until(lambda: outcomes(mesh) == whole)


def test_cut_off_from_its_node_a_caller_is_served_by_another(mesh: Federation):
    def served(node: str) -> bool:
        return bool(ask(mesh, "chat", **CARE)["node"] == node)

    mesh.until(lambda: served("fra-1"))
    mesh.lab.partition(["clinic"], ["fra-1"])
    assert all(served("ber-1") for _ in range(3))
    mesh.lab.heal()
    mesh.until(lambda: served("fra-1"))


@pytest.mark.parametrize("lost", ["answers", "requests"])
def test_loss_one_way_moves_the_caller_on_and_frees_the_engine(mesh: Federation, lost: str):
    call = mesh.clinic.begin(
        "chat", profile=mesh.profile, silence_s=SILENCE_S, prompt="hello", tokens=FOR_EVER, **CARE
    )
    first = mesh.clinic.until(call, "started")["node"]
    (second,) = set(GERMAN) - {first}
    mesh.clinic.until(call, "begun")
    mesh.until(lambda: mesh.statuses()[first]["in_flight"] == 1)
    way = (first, "clinic") if lost == "answers" else ("clinic", first)
    mesh.lab.lose(*way)
    assert mesh.clinic.until(call, "started")["node"] == second
    # It may never hear that nobody wants it any more: TCP sends nothing new after what is not acknowledged.
    # It stops by itself all the same, long before its answer would have ended.
    mesh.until(lambda: mesh.statuses()[first]["in_flight"] == 0)
    assert mesh.lab.lost() > 0
    assert mesh.statuses()[second]["in_flight"] == 1
    mesh.clinic.ask("cancel", call=call)
    mesh.until(lambda: mesh.statuses()[second]["in_flight"] == 0)
    # and to those who ask now it is no trouble at all
    assert ask(mesh, "chat", **CARE)["node"] == second


@pytest.mark.parametrize("way", [("etcd", "fra-1"), ("fra-1", "etcd")], ids="-to-".join)
def test_loss_one_way_to_etcd_ends_a_nodes_status_until_it_heals(mesh: Federation, way: tuple[str, str]):
    mesh.lab.lose(*way)
    for country in ("DE", "FR"):
        mesh.until(lambda country=country: "fra-1" not in mesh.statuses(country))
        assert {"ber-1", "par-1"} <= set(mesh.statuses(country))
    assert ask(mesh, "chat", **CARE)["node"] in GERMAN
    mesh.lab.heal()
    for country in ("DE", "FR"):
        mesh.until(lambda country=country: mesh.statuses(country).get("fra-1", {}).get("ready"))


def test_a_question_over_lossy_cables_is_answered_in_full(mesh: Federation):
    for node in GERMAN:
        mesh.lab.lose(node, "par-1", one_in=10)
        mesh.lab.lose("par-1", node, one_in=10)
    lossy = False
    for _ in range(20):
        found = ask(mesh, "search", timeout_s=30.0, **BUSINESS)
        assert {name: outcome for name, (outcome, _) in found["coverage"].items()} == dict.fromkeys(
            ("fra-1", "ber-1", "par-1"), "answered"
        )
        assert found["complete"]
        if lossy := mesh.lab.lost() > 0:
            break
    assert lossy


def test_a_question_over_slow_cables_is_answered_in_full(mesh: Federation):
    try:
        mesh.lab.delay(["par-1"], 100)
    except LabFailed as error:
        pytest.skip(str(error))
    assert set(outcomes(mesh).values()) == {"answered"}
