"""Which traffic the chart is meant to let through, said in the words of its values and not read off its
policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from tests.support.chart.cases import Values
from tests.support.chart.network import Endpoint
from tests.support.chart.rendering import NAMESPACE

MESH, ENROLMENT, METRICS, DNS = 7443, 7444, 9464, 53
ENGINE = range(7450, 7466)  # a node's replicas under KubeRay, one port each
ETCD, ETCD_PEERS, ETCD_METRICS = 2379, 2380, 2381


def named_namespaces(values: Values) -> Iterator[str]:
    policy = values["networkPolicy"]
    yield from policy["from"]["namespaces"]
    yield from policy["peers"]["namespaces"]
    yield from policy["etcdClients"]["namespaces"]
    for name in (
        values["gateway"]["namespace"],
        values["monitoring"]["namespace"],
        values["tracing"]["namespace"],
        values["ray"]["kuberay"]["operatorNamespace"],
        policy["dns"]["namespace"],
    ):
        if name:
            yield name


def within(other: Endpoint, port: int, destinations: list[dict[str, Any]]) -> bool:
    """Whether an address and port are among destinations of the values."""
    if not other.address:
        return False
    address = ip_address(other.address)
    return any(
        address in ip_network(destination["cidr"])
        and not any(address in ip_network(taken) for taken in destination.get("except", []))
        and port in destination["ports"]
        for destination in destinations
    )


def in_ranges(other: Endpoint, ranges: dict[str, Any]) -> bool:
    """Whether somebody is in the address ranges or namespaces that the values name."""
    if other.address:
        return any(ip_address(other.address) in ip_network(cidr) for cidr in ranges.get("cidrs", []))
    return other.namespace in ranges.get("namespaces", [])


def component(other: Endpoint) -> str:
    """Which part of this release it is; empty for everybody else."""
    if other.namespace != NAMESPACE or "app.kubernetes.io/instance" not in other.labels:
        return ""
    return other.labels.get("app.kubernetes.io/component", "")


def is_dns(values: Values, other: Endpoint, port: int) -> bool:
    dns = values["networkPolicy"]["dns"]
    inside = other.namespace == dns["namespace"] and dns["podLabels"].items() <= other.labels.items()
    return port == DNS and (inside or in_ranges(other, {"cidrs": dns["cidrs"]}))


def may_go_out(values: Values, caller: Endpoint, called: Endpoint, port: int, protocol: str) -> bool:
    """Where a pod of the release may go, by what it is for."""
    policy = values["networkPolicy"]
    part, other = component(caller), component(called)
    if is_dns(values, called, port):
        return True
    if protocol != "TCP" and not (part == other == "ray"):
        return False
    board = (
        (other == "etcd" and port == ETCD)
        if values["etcd"]["enabled"]
        else within(called, port, policy["board"])
    )
    tracing = values["tracing"]
    traces = bool(tracing["endpoint"]) and (
        within(called, port, tracing["destinations"])
        or (
            called.namespace == (tracing["namespace"] or None)
            and port == int(tracing["endpoint"].rpartition(":")[2])
        )
    )
    peers = within(called, port, policy["peers"]["destinations"]) or (
        called.namespace in policy["peers"]["namespaces"] and port == MESH
    )
    control = (
        (other == "control" and port in {MESH, ENROLMENT})
        if values["control"]["enabled"]
        else within(called, port, policy["control"])
    )
    kubernetes = in_ranges(called, {"cidrs": policy["kubernetesApi"]["cidrs"]}) and (
        port in policy["kubernetesApi"]["ports"]
    )
    return {
        "node": board
        or control
        or peers
        or traces
        or (other == "node" and port == MESH)
        or within(called, port, policy["vectorStore"])
        or (values["ray"]["mode"] == "kuberay" and other == "ray" and port in replicas(values)),
        "control": board or traces,
        "etcd": other == "etcd" and port == ETCD_PEERS,
        "etcd-backup": other == "etcd" and port == ETCD,
        "ray": other == "ray",
        "authority": kubernetes,
        "board-tls": kubernetes,
        "engine-tls": kubernetes,
        "tokens": kubernetes or control,
        "policy": control,
        "trust": control,
        "model": within(called, port, values["model"]["fetch"]["egress"]),
        "test": (control and values["control"]["enabled"])
        or peers
        or (other == "node" and port in {MESH, METRICS}),
    }[part]


def replicas(values: Values) -> range:
    return ENGINE[: min(16, values["node"]["engine"]["replicas"])]


def may_come_in(values: Values, caller: Endpoint, called: Endpoint, port: int, protocol: str) -> bool:
    """Who may call a pod of the release, by what it is for."""
    policy, gateway, monitoring = values["networkPolicy"], values["gateway"], values["monitoring"]
    part, other = component(called), component(caller)
    if protocol != "TCP" and not (part == other == "ray"):
        return False
    outsiders = in_ranges(caller, policy["from"])
    through_gateway = gateway["enabled"] and caller.namespace == (gateway["namespace"] or None)
    prometheus = (
        caller.namespace == (monitoring["namespace"] or None)
        and monitoring["podLabels"].items() <= caller.labels.items()
    )
    administers = other in {"node", "tokens", "policy", "trust", "test"}
    if part == "node":
        return (port == MESH and (other in {"node", "test"} or outsiders or through_gateway)) or (
            port == METRICS and (other == "test" or prometheus)
        )
    if part == "control":
        return (
            port in {MESH, ENROLMENT}
            and (administers or outsiders or (through_gateway and gateway["control"]))
        ) or (port == METRICS and prometheus)
    if part == "etcd":
        return (
            (
                port == ETCD
                and (other in {"node", "control", "etcd-backup"} or in_ranges(caller, policy["etcdClients"]))
            )
            or (port == ETCD_PEERS and other == "etcd")
            or (port == ETCD_METRICS and prometheus)
        )
    if part == "ray":
        operator = caller.namespace == values["ray"]["kuberay"]["operatorNamespace"]
        return (
            other == "ray"
            or (other == "node" and port in replicas(values))
            or (operator and port in {8265, 8000})
        )
    return False


def may_pass(values: Values, caller: Endpoint, called: Endpoint, port: int, protocol: str) -> bool:
    """Whether a connection is meant to be possible; one of both is a pod of the release."""
    return (not component(caller) or may_go_out(values, caller, called, port, protocol)) and (
        not component(called) or may_come_in(values, caller, called, port, protocol)
    )
