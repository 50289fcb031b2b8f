"""Who can talk to whom, proven over the rendered NetworkPolicies: a node reaches what the mesh needs, no
more.

What the policies let through is compared with what is meant (tests/support/chart/intended_traffic.py) for
every pod of the release in both directions, against everybody for whom a policy could make a difference:
the release's own pods, strangers in its namespace and in others, an impostor with a node's labels, the
namespaces that the values name, and every address and port at which an answer may change.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chart.cases import CASES, Values, effective
from tests.support.chart.intended_traffic import (
    DNS,
    ENROLMENT,
    ETCD,
    ETCD_METRICS,
    ETCD_PEERS,
    MESH,
    METRICS,
    component,
    may_pass,
    named_namespaces,
)
from tests.support.chart.network import Endpoint, boundaries, closes, open_ports
from tests.support.chart.rendering import NAMESPACE, Case, Manifest, Pod, Rendered, Renderer

pytestmark = pytest.mark.slow

CLOSED = [case for case in CASES if effective(case)["networkPolicy"]["enabled"]]
closed = pytest.mark.parametrize("case", CLOSED, ids=lambda case: case.name)


def endpoint(pod: Pod) -> Endpoint:
    return Endpoint(
        f"{pod.owner} {pod.labels.get('ray.io/node-type', '')}", NAMESPACE, pod.labels, ports=pod.ports()
    )


def others(rendered: Rendered, values: Values, policies: list[Manifest]) -> list[Endpoint]:
    """Everybody else: pods that are not of the release, and addresses outside."""
    node = next((pod.labels for pod in rendered.pods if pod.component == "node"), {})
    dns, monitoring = values["networkPolicy"]["dns"], values["monitoring"]
    addresses, _ = boundaries(policies)
    return [
        Endpoint("stranger here", NAMESPACE, {"app": "other"}),
        Endpoint("stranger elsewhere", "elsewhere", {"app": "other"}),
        Endpoint("impostor elsewhere", "elsewhere", node),
        Endpoint("dns", dns["namespace"], dns["podLabels"]),
        Endpoint("prometheus", monitoring["namespace"] or "none", monitoring["podLabels"]),
        *(
            Endpoint(f"pod in {name}", name, {"app": "other"})
            for name in sorted(set(named_namespaces(values)))
        ),
        *(Endpoint(address, address=address) for address in addresses),
    ]


def ports(rendered: Rendered, policies: list[Manifest]) -> list[int]:
    _, edges = boundaries(policies)
    declared = {number for pod in rendered.pods for number in pod.ports().values()}
    known = {MESH, ENROLMENT, METRICS, DNS, ETCD, ETCD_PEERS, ETCD_METRICS, 6379, 8265, 10001}
    return sorted({*edges, *declared, *known})


def differences(rendered: Rendered, values: Values, policies: list[Manifest]) -> Iterator[str]:
    """Every way that is open and should not be, or the other way round."""
    both = [*rendered.of_kind("NetworkPolicy"), *policies]
    numbers = ports(rendered, both)
    release, rest = [endpoint(pod) for pod in rendered.pods], others(rendered, values, both)
    pairs = [(a, b) for a in release for b in release if a != b]
    pairs += [pair for a in release for b in rest for pair in ((a, b), (b, a))]
    for caller, called in pairs:
        for protocol in ("TCP", "UDP"):
            found = open_ports(policies, caller, called, numbers, protocol)
            meant = {port for port in numbers if may_pass(values, caller, called, port, protocol)}
            if found != meant:
                more, less = sorted(found - meant), sorted(meant - found)
                yield f"{caller.name} -> {called.name} {protocol}: open {more}, missing {less}"


@closed
def test_traffic_is_what_is_meant_and_nothing_else(case: Case, render: Renderer) -> None:
    rendered = render(case)
    wrong = list(differences(rendered, effective(case), rendered.of_kind("NetworkPolicy")))
    assert not wrong, "\n".join(wrong[:30])


def name(policy: Manifest) -> str:
    """What it is called without the release's own name."""
    found: str = policy["metadata"]["name"]
    return found.removeprefix("site-").removeprefix("sovereign-mesh-").removeprefix("mesh-")


def test_the_comparison_notices_what_is_taken_away_and_what_is_added(render: Renderer) -> None:
    """The check itself: without any of the policies, or with one more, some release is not what is meant."""
    unnoticed = {name(policy) for case in CLOSED for policy in render(case).of_kind("NetworkPolicy")}
    assert len(unnoticed) >= 10
    for case in CLOSED:
        rendered, values = render(case), effective(case)
        policies = rendered.of_kind("NetworkPolicy")
        for left_out in policies:
            kept = [policy for policy in policies if policy is not left_out]
            if name(left_out) in unnoticed and any(differences(rendered, values, kept)):
                unnoticed.discard(name(left_out))
        if not unnoticed:
            break
    assert not unnoticed
    opened = {
        "metadata": {"name": "more", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "198.18.0.0/15"}}], "ports": [{"port": 443}]}],
        },
    }
    assert any(differences(rendered, values, [*policies, opened]))


@closed
def test_every_pod_is_closed_in_both_directions(case: Case, render: Renderer) -> None:
    rendered = render(case)
    policies = rendered.of_kind("NetworkPolicy")
    for pod in rendered.pods:
        here = endpoint(pod)
        for direction in ("Ingress", "Egress"):
            assert any(closes(policy, here, direction) for policy in policies), f"{pod.owner} {direction}"


@closed
def test_a_node_cannot_phone_out(case: Case, render: Renderer) -> None:
    """Said once more by itself, since it is what the policies are for: no address but those of the values."""
    rendered, values = render(case), effective(case)
    policies = rendered.of_kind("NetworkPolicy")
    numbers = ports(rendered, policies)
    policy = values["networkPolicy"]
    named = [
        *policy["peers"]["destinations"], *policy["board"], *policy["control"], *policy["vectorStore"],
        *values["tracing"]["destinations"], *({"cidr": cidr} for cidr in policy["dns"]["cidrs"]),
    ]  # fmt: skip
    assert all(not destination["cidr"].endswith("/0") for destination in named)
    for pod in rendered.pods:
        if component(endpoint(pod)) in {"node", "control", "etcd", "ray"}:
            for address in ("8.8.8.8", "169.254.169.254", "10.96.0.1", "2001:4860:4860::8888"):
                outside = Endpoint(address, address=address)
                assert not open_ports(policies, endpoint(pod), outside, numbers), (
                    f"{pod.owner} reaches {address}"
                )
            stranger = Endpoint("stranger", NAMESPACE, {"app": "other"})
            assert not open_ports(policies, endpoint(pod), stranger, numbers)
            assert not open_ports(policies, stranger, endpoint(pod), numbers)
