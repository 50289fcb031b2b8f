"""The evaluator of NetworkPolicies itself, case by case, before anything is proven with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.chart.network import Endpoint, boundaries, passes, selects

WEB = Endpoint("web", "shop", {"app": "web"}, ports={"http": 8080}, address="10.1.0.1")
DATA = Endpoint("data", "shop", {"app": "data"}, ports={"sql": 5432}, address="10.1.0.2")
OTHER = Endpoint("other", "else", {"app": "web"}, {"team": "blue"}, address="10.1.0.3")
OUTSIDE = Endpoint("outside", address="8.8.8.8")


def policy(selector: dict[str, Any], namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace}, "spec": {"podSelector": selector, **spec}}


def ingress(*rules: dict[str, Any]) -> dict[str, Any]:
    return policy({"matchLabels": {"app": "data"}}, policyTypes=["Ingress"], ingress=list(rules))


def egress(*rules: dict[str, Any]) -> dict[str, Any]:
    return policy({"matchLabels": {"app": "web"}}, policyTypes=["Egress"], egress=list(rules))


def test_without_policies_everything_passes() -> None:
    assert passes([], WEB, DATA, 5432)
    assert passes([], WEB, OUTSIDE, 443)


def test_a_closed_pod_is_closed_in_that_direction_only() -> None:
    closed = [ingress()]
    assert not passes(closed, WEB, DATA, 5432)
    assert passes(closed, DATA, WEB, 8080)
    assert passes(closed, DATA, OUTSIDE, 443)


def test_both_ends_must_agree() -> None:
    lets_in = ingress({"from": [{"podSelector": {}}]})
    assert passes([lets_in], WEB, DATA, 5432)
    assert not passes([lets_in, egress()], WEB, DATA, 5432)


def test_policies_add_up() -> None:
    assert passes([ingress(), ingress({"from": [{"podSelector": {}}]})], WEB, DATA, 5432)


def test_directions_left_out_are_ingress_and_egress_if_it_has_rules() -> None:
    alone = [policy({"matchLabels": {"app": "web"}})]
    assert passes(alone, WEB, DATA, 5432)
    assert not passes(alone, DATA, WEB, 8080)
    both = [policy({"matchLabels": {"app": "web"}}, egress=[{"to": [{"podSelector": {}}]}])]
    assert passes(both, WEB, DATA, 5432)
    assert not passes(both, WEB, OUTSIDE, 443)


def test_a_policy_of_another_namespace_does_not_count() -> None:
    assert passes([policy({}, namespace="else", policyTypes=["Ingress"])], WEB, DATA, 5432)


@pytest.mark.parametrize(
    ("peer", "web", "other", "outside"),
    [
        ({"podSelector": {}}, True, False, False),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, True, False, False),
        ({"namespaceSelector": {}}, True, True, False),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, False, True, False),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}, True, False, False),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "none"}}}, False, False, False),
        ({"ipBlock": {"cidr": "8.8.0.0/16"}}, False, False, True),
        ({"ipBlock": {"cidr": "8.8.0.0/16", "except": ["8.8.8.0/24"]}}, False, False, False),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, True, True, True),
        ({"ipBlock": {"cidr": "::/0"}}, False, False, False),
    ],
)
def test_peers(peer: dict[str, Any], web: bool, other: bool, outside: bool) -> None:
    rules = [ingress({"from": [peer]})]
    assert [passes(rules, caller, DATA, 5432) for caller in (WEB, OTHER, OUTSIDE)] == [web, other, outside]


@pytest.mark.parametrize(
    ("ports", "open_ports"),
    [
        ([{"port": 5432}], {5432}),
        ([{"port": "sql"}], {5432}),
        ([{"port": "other"}], set()),
        ([{"port": 80, "endPort": 82}], {80, 81, 82}),
        ([{"port": 5432, "protocol": "UDP"}], set()),
        ([{"port": 443}, {"port": 80}], {443, 80}),
        ([{"protocol": "TCP"}], {79, 80, 81, 82, 83, 443, 5432}),
        ([], {79, 80, 81, 82, 83, 443, 5432}),
    ],
)
def test_ports(ports: list[dict[str, Any]], open_ports: set[int]) -> None:
    rules = [ingress({"from": [{"podSelector": {}}], "ports": ports})]
    assert {port for port in (79, 80, 81, 82, 83, 443, 5432) if passes(rules, WEB, DATA, port)} == open_ports


def test_a_rule_without_peers_lets_everybody_through() -> None:
    assert passes([ingress({})], OUTSIDE, DATA, 1)
    assert passes([ingress({"ports": [{"port": 5432}]})], OUTSIDE, DATA, 5432)
    assert not passes([ingress({"ports": [{"port": 5432}]})], OUTSIDE, DATA, 1)


def test_a_named_port_of_an_egress_rule_is_the_called_pods() -> None:
    rules = [egress({"to": [{"podSelector": {}}], "ports": [{"port": "sql"}]})]
    assert passes(rules, WEB, DATA, 5432)
    assert not passes(rules, WEB, DATA, 8080)


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ({"key": "app", "operator": "In", "values": ["web", "x"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["web"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
    ],
)
def test_expressions(expression: dict[str, Any], chosen: bool) -> None:
    assert selects({"matchExpressions": [expression]}, WEB.labels) is chosen


def test_no_selector_is_not_an_empty_one() -> None:
    assert selects({}, {})
    assert not selects(None, {})


@settings(deadline=None)
@given(
    first=st.integers(1, 65535), length=st.integers(0, 50), port=st.integers(1, 65535),
    prefix=st.integers(8, 32), net=st.integers(1, 2**32 - 1), address=st.integers(1, 2**32 - 1),
)  # fmt: skip
def test_boundaries_stand_for_everything(
    first: int, length: int, port: int, prefix: int, net: int, address: int
) -> None:
    """If a rule lets anything through, it lets one of its boundaries through."""
    from ipaddress import IPv4Address, IPv4Network

    network = str(IPv4Network((net, prefix), strict=False))
    last = min(first + length, 65535)
    rules = [
        egress({"to": [{"ipBlock": {"cidr": network}}], "ports": [{"port": first, "endPort": last}]}),
    ]
    addresses, ports = boundaries(rules)
    somewhere = Endpoint("somewhere", address=str(IPv4Address(address)))
    found = any(passes(rules, WEB, Endpoint("edge", address=a), p) for a in addresses for p in ports)
    assert found
    if passes(rules, WEB, somewhere, port):
        assert first <= port <= last
