"""What NetworkPolicies let through: Kubernetes' semantics as one pure function, for proofs over rendered
manifests.

The rules, from the NetworkPolicy reference (networking.k8s.io/v1):

- A policy speaks about the pods of its own namespace that its podSelector selects. An empty selector
  selects all.
- policyTypes says which directions it closes. Left out: ingress, and egress if it has egress rules.
- A pod that no policy closes in a direction is open in it. One that is closed gets what any of them lets
  through.
- A rule lets through what matches one of its peers and one of its ports; no peers or no ports at all match
  everything.
- A peer with podSelector alone is of the policy's namespace; with namespaceSelector alone, any pod there;
  with both, the pods in those namespaces. ipBlock is by address, without what `except` takes out.
- A named port is looked up at the pod that is called. endPort makes a range.
- Traffic passes if the caller may go out and the called one lets in. Whatever is outside the cluster is
  always open.

Not here: an ipBlock and the address of a pod. Whether one matches is left to the network plugin; it counts
as a match if the pod was given an address, so that a proof with addresses is the careful one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """Somebody who calls or is called: a pod, or (without a namespace) an address outside the cluster.

    `ports` are a pod's named ports: name to number.
    """

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_pod(self) -> bool:
        """Whether policies speak about it."""
        return bool(self.namespace)


def selects(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels. None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        has, value = expression["key"] in labels, labels.get(expression["key"])
        holds = {
            "In": has and value in expression.get("values", []),
            "NotIn": not has or value not in expression.get("values", []),
            "Exists": has,
            "DoesNotExist": not has,
        }[expression["operator"]]
        if not holds:
            return False
    return True


def closes(policy: Manifest, pod: Endpoint, direction: str) -> bool:
    """Whether a policy speaks about this pod in a direction, "Ingress" or "Egress"."""
    if policy["metadata"].get("namespace", pod.namespace) != pod.namespace:
        return False
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return direction in types and selects(spec.get("podSelector", {}), pod.labels)


def _is_peer(peer: Manifest, namespace: str, other: Endpoint) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if not other.address:
            return False
        address = ip_address(other.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(taken) for taken in block.get("except", [])
        )
    if not other.is_pod:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        if not selects(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def _is_port(rule: Manifest, called: Endpoint, port: int, protocol: str) -> bool:
    if rule.get("protocol", "TCP") != protocol:
        return False
    wanted = rule.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return called.ports.get(wanted) == port
    return bool(wanted <= port <= rule.get("endPort", wanted))


def _ways(
    policies: Iterable[Manifest], pod: Endpoint, other: Endpoint, direction: str
) -> list[Sequence[Manifest]] | None:
    """The ports of each rule that lets `other` through in a direction of `pod`; None if that is open."""
    if not pod.is_pod:
        return None
    closing = [policy for policy in policies if closes(policy, pod, direction)]
    if not closing:
        return None
    rules, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return [
        rule.get("ports") or []
        for policy in closing
        for rule in policy["spec"].get(rules) or []
        if not rule.get(peers) or any(_is_peer(peer, pod.namespace, other) for peer in rule[peers])
    ]


def open_ports(
    policies: Sequence[Manifest],
    caller: Endpoint,
    called: Endpoint,
    ports: Iterable[int],
    protocol: str = "TCP",
) -> set[int]:
    """Those of `ports` on which `caller` may open a connection to `called`. A pod may always call itself."""
    if caller == called:
        return set(ports)
    both = [_ways(policies, caller, called, "Egress"), _ways(policies, called, caller, "Ingress")]
    return {
        port
        for port in ports
        if all(
            ways is None
            or any(not way or any(_is_port(item, called, port, protocol) for item in way) for way in ways)
            for ways in both
        )
    }


def passes(
    policies: Sequence[Manifest], caller: Endpoint, called: Endpoint, port: int, protocol: str = "TCP"
) -> bool:
    """Whether `caller` may open a connection to `called` on this port."""
    return bool(open_ports(policies, caller, called, [port], protocol))


def boundaries(policies: Iterable[Manifest]) -> tuple[list[str], list[int]]:
    """Addresses and ports at which an answer may change: whatever holds for these holds for all.

    Of each address range in the policies the first and last address and their neighbours outside; of each
    port the number, what ends its range, and their neighbours; and one of each that no policy names.
    """
    addresses = {"8.8.8.8", "2001:4860:4860::8888", "169.254.169.254"}
    ports = {1, 22, 80, 443, 6443, 65535}
    for policy in policies:
        spec = policy["spec"]
        for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
            for item in rule.get("ports") or []:
                if isinstance(item.get("port"), int):
                    for edge in (item["port"], item.get("endPort", item["port"])):
                        ports |= {edge - 1, edge, edge + 1} & set(range(1, 65536))
            for peer in [*(rule.get("from") or []), *(rule.get("to") or [])]:
                block = peer.get("ipBlock")
                for text in [block["cidr"], *block.get("except", [])] if block else []:
                    network = ip_network(text)
                    first, last = int(network.network_address), int(network.broadcast_address)
                    top = 2**network.max_prefixlen - 1
                    kind = type(network.network_address)
                    addresses |= {
                        str(kind(value)) for value in (first - 1, first, last, last + 1) if 0 <= value <= top
                    }
    return sorted(addresses), sorted(ports)
