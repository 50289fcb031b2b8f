"""I1 on the wire: what German hosts send is captured, and not one packet of it goes where it must not.

Every node, control plane, etcd and caller is a process on a host of its own, with the example policies:
special categories stay in Germany, confidential data may go to France and never to the United States.

Nodes of different authorities also talk to each other as witnesses of their logs: sizes, hashes and
signatures, whatever policies say of payload. So there are two kinds of proof. Without witnesses there must be
no packet at all, not even one that opens a connection. With witnesses the packets are counted: together they
are far too small to hold what was asked, which cannot be compressed.
"""

from __future__ import annotations

import base64
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.hosts.calls import Refused
from tests.support.hosts.federation import COLLECTION, MESH_PORT, Federation, Plan, federation_of
from tests.support.hosts.packets import Packet, between, holding, not_tls, payload_bytes

# A whole federation comes up first, which takes half a minute where the machine is busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("hosts_permitted")]

MARK = "Zwickelfaltenbeutel"
GERMAN = ("clinic", "fra-1", "ber-1")
FOREIGN = ("par-1", "iad-1")
PLAN = Plan({"DE": ("fra-1", "ber-1"), "FR": ("par-1",), "US": ("iad-1",)}, documents=True)


@pytest.fixture(scope="module")
def mesh(hosts_permitted: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation_of(tmp_path_factory.mktemp("wire"), PLAN) as mesh:
        yield mesh


@dataclass(frozen=True)
class Wire:
    """A capture, asked by host names."""

    mesh: Federation
    packets: list[Packet]

    def between(self, sources: tuple[str, ...], destinations: tuple[str, ...]) -> list[Packet]:
        addresses = self.mesh.lab.addresses
        return between(
            self.packets, [addresses[name] for name in sources], [addresses[name] for name in destinations]
        )

    def holds_nothing_in_plain_text(self) -> bool:
        return not holding(self.packets, MARK) and not not_tls(self.packets)


def noise(kilobytes: int) -> str:
    """A text with the mark that no compression makes much smaller: six random bits a letter."""
    return f"{MARK} {base64.b64encode(random.Random(7).randbytes(kilobytes * 768)).decode()}"


def killed_in_the_middle(mesh: Federation, **asked: Any) -> tuple[str, dict[str, Any]]:
    """Kills the node that serves a stream; its name, and how the stream ended."""
    call = mesh.clinic.begin("chat", profile=mesh.profile, tokens=100, **asked)
    lost = str(mesh.clinic.until(call, "started")["node"])
    mesh.clinic.until(call, "begun")
    mesh.end_node(lost)
    return lost, mesh.clinic.end(call)


def test_I1_of_special_categories_not_one_packet_leaves_german_hosts(mesh: Federation):
    asked = {"profile": mesh.profile, "classes": ["special-category"]}
    prompt = noise(256)
    with mesh.lab.capture("special") as capture:
        served = mesh.clinic.ask("chat", prompt=prompt, **asked)
        assert set(served["decision"]["ranked"]) == {"fra-1", "ber-1"}
        found = mesh.clinic.ask("search", query=MARK, collection=COLLECTION, **asked)
        assert {name: outcome for name, (outcome, _) in found["coverage"].items()} == {
            "fra-1": "answered",
            "ber-1": "answered",
            "par-1": "not-asked",
            "iad-1": "not-asked",
        }
        first, served = killed_in_the_middle(mesh, prompt=prompt, classes=["special-category"])
        assert [move["from"] for move in served["failovers"]] == [first]
        second = served["node"]
        assert {first, second} == {"fra-1", "ber-1"}
        # Nowhere left to go: neither at once nor when asked again.
        mesh.end_node(second)
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                mesh.clinic.ask("chat", prompt=prompt, timeout_s=10.0, **asked)
            assert refused.value.reason in ("NO_NODE_AVAILABLE", "UNREACHABLE", "NODE_LOST")
    for name in (first, second):
        mesh.start_node(name)
    mesh.until_ready()

    wire = Wire(mesh, capture.packets)
    assert wire.between(GERMAN, FOREIGN) == []
    assert wire.between(FOREIGN, GERMAN) == []
    # and it was not for want of looking
    assert payload_bytes(wire.between(("clinic",), ("fra-1", "ber-1"))) > 3 * len(prompt)
    assert wire.between(("clinic",), ("fra-1",))
    assert wire.between(("clinic",), ("ber-1",))
    # nor by a way round: all that the board and the control planes were sent could not hold it
    others = tuple(name for name in PLAN.hosts if name not in (*GERMAN, *FOREIGN))
    assert 0 < payload_bytes(wire.between(GERMAN, others)) < len(prompt) / 4
    assert wire.holds_nothing_in_plain_text()


def test_I1_confidential_data_goes_to_france_and_not_one_packet_to_america(mesh: Federation):
    prompt, business = noise(64), {"profile": mesh.profile, "classes": ["confidential"]}
    with mesh.lab.capture("confidential") as capture:
        served = mesh.clinic.ask("chat", prompt=prompt, countries=["FR"], **business)
        assert served["node"] == "par-1"
        lost, served = killed_in_the_middle(mesh, prompt=prompt, classes=["confidential"])
        assert served["node"] != lost
        found = mesh.clinic.ask("search", query=MARK, collection=COLLECTION, **business)
        assert found["coverage"]["iad-1"] == ["not-asked", "POLICY_SENDER_DENIES"]
        with pytest.raises(Refused) as refused:
            mesh.clinic.ask("chat", prompt=prompt, countries=["US"], **business)
        assert refused.value.reason == "NOT_PERMITTED"
    mesh.start_node(lost)
    mesh.until_ready()

    wire = Wire(mesh, capture.packets)
    assert wire.between((*GERMAN, "par-1"), ("iad-1",)) == []
    assert wire.between(("iad-1",), (*GERMAN, "par-1")) == []
    assert payload_bytes(wire.between(("clinic",), ("par-1",))) > len(prompt)
    assert wire.holds_nothing_in_plain_text()


def test_what_is_permitted_is_seen_on_its_way_to_america(mesh: Federation):
    with mesh.lab.capture("public") as capture:
        asked = {"profile": mesh.profile, "classes": ["public"], "countries": ["US"]}
        assert mesh.clinic.ask("chat", prompt=noise(64), **asked)["node"] == "iad-1"
    wire = Wire(mesh, capture.packets)
    assert payload_bytes(wire.between(("clinic",), ("iad-1",))) > 64 * 1024
    assert {p.destination_port for p in wire.between(("clinic",), ("iad-1",))} == {MESH_PORT}
    assert wire.between(("fra-1", "ber-1"), ("iad-1",)) == []
    assert wire.holds_nothing_in_plain_text()


def test_I1_witnesses_are_shown_too_little_to_hold_what_was_asked(mesh: Federation):
    # The witnesses first: whoever finds nobody there asks again after five seconds.
    for names in (FOREIGN, ("fra-1", "ber-1")):
        for name in names:
            mesh.configure(name, witnesses=2)
            mesh.end_node(name, signal.SIGTERM)
            mesh.start_node(name)
        mesh.until_ready()
    prompt = noise(256)
    with mesh.lab.capture("witnesses") as capture:
        asked = {"profile": mesh.profile, "classes": ["special-category"]}
        for _ in range(3):
            served = mesh.clinic.ask("chat", prompt=prompt, **asked)
        mesh.until(lambda: witnessed_by(mesh, "iad-1", served["node"]))
        mesh.until(lambda: witnessed_by(mesh, "par-1", served["node"]))
    wire = Wire(mesh, capture.packets)
    assert wire.between(("clinic",), FOREIGN) == []
    for witness in FOREIGN:
        shown = wire.between(("fra-1", "ber-1"), (witness,))
        ends = {(p.source_port, p.destination_port) for p in shown}
        assert shown
        assert all(MESH_PORT in ports for ports in ends)
        assert payload_bytes(shown) < len(prompt) / 4
    assert payload_bytes(wire.between(("clinic",), ("fra-1", "ber-1"))) > 3 * len(prompt)
    assert wire.holds_nothing_in_plain_text()


def witnessed_by(mesh: Federation, witness: str, node: str) -> bool:
    """Whether the witness has written down that it saw something of this node's log."""
    seen = mesh.folder / witness / "state" / "evidence" / "witness" / "seen"
    return any(f"/node/{node}" in file.read_text() for file in seen.glob("*/*.json"))
