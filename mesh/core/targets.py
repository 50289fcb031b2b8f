"""Where code may send: `Permitted`, which nothing outside this module can construct (I1).

A placer's answer holds a decision and offers: how to reach each ranked node, with a permit for it. An
offer becomes a target only if the decision ranks its node. Code that sends a payload takes a
`Permitted`, never an address.

The placer's word is not the last one: the node at the other end decides again (I2), and the channel to
it trusts only the root of the node's own authority.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId

MAX_ENDPOINTS = 8

_HOST_PORT = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})"
)
_DNS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_OURS = object()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a placer says about one node: how to reach it, and the permit (envelope bytes) for it."""

    node: SpiffeId
    endpoints: tuple[str, ...]
    dns_name: str
    permit: bytes
    model_digest: str = ""


class Permitted:
    """A node to which this request may be sent, as a decision ranks it. Made by `permitted_targets`."""

    __slots__ = ("decision_id", "dns_name", "endpoints", "model_digest", "node", "permit")

    decision_id: str
    node: SpiffeId
    endpoints: tuple[str, ...]
    dns_name: str
    permit: bytes
    model_digest: str

    def __init__(self, decision_id: str, offer: Offer, made_by: object) -> None:
        if made_by is not _OURS:
            raise TypeError("only mesh.core.targets.permitted_targets makes a Permitted")
        put = super().__setattr__
        put("decision_id", decision_id)
        put("node", offer.node)
        put("endpoints", offer.endpoints)
        put("dns_name", offer.dns_name)
        put("permit", offer.permit)
        put("model_digest", offer.model_digest)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Permitted never changes")

    def __repr__(self) -> str:
        return f"Permitted({self.node})"


def permitted_targets(decision: Decision, offers: Iterable[Offer]) -> tuple[Permitted, ...]:
    """The offers as targets, in the order of the decision's ranking.

    Raises REQUEST_INVALID if an offer is for a node that the decision does not rank, comes twice, lacks
    a permit, or does not say how to reach it: such an answer is not used in part.
    """
    rank = (
        {ranked.node: position for position, ranked in enumerate(decision.ranked)}
        if decision.permitted
        else {}
    )
    found: dict[SpiffeId, Permitted] = {}
    for offer in offers:
        if offer.node not in rank:
            raise MeshError(
                Reason.REQUEST_INVALID, "expected targets only for nodes that the decision permits"
            )
        if offer.node in found:
            raise MeshError(Reason.REQUEST_INVALID, "expected one target for each node")
        if not offer.permit:
            raise MeshError(Reason.REQUEST_INVALID, "expected a permit with each target")
        if not 1 <= len(offer.endpoints) <= MAX_ENDPOINTS or not all(map(is_endpoint, offer.endpoints)):
            raise MeshError(Reason.REQUEST_INVALID, f"expected 1 to {MAX_ENDPOINTS} endpoints as host:port")
        if not _DNS_NAME.fullmatch(offer.dns_name):
            raise MeshError(Reason.REQUEST_INVALID, "expected the DNS name in the node's certificate")
        found[offer.node] = Permitted(decision.id, offer, _OURS)
    return tuple(sorted(found.values(), key=lambda target: rank[target.node]))


def is_endpoint(text: str) -> bool:
    """Whether the text is host:port, the host a name or an address (IPv6 in brackets) and nothing else:
    no scheme that would make a channel go elsewhere, such as to a local socket."""
    match = _HOST_PORT.fullmatch(text)
    return match is not None and 1 <= int(match[1]) <= 65535
