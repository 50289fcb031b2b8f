"""What placement answers: who may get this request, who may not, and why.

Plain values without behaviour of their own; they travel (mesh/codec.py), are logged
(mesh/evidence/entries.py) and are told to people. They hold metadata only, never payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.core.errors import MeshError, Reason
from mesh.core.text import shortened
from mesh.core.types import SpiffeId

MAX_RANKED = 8
MAX_FAN_OUT = 64  # nodes asked together
MAX_REFUSED = 1000
# An authority's policy set may hold thousands of policies that all determine an answer; an answer names
# a thousand nodes. What is said of one node is bounded, or the two multiply.
MAX_NAMED_POLICIES = 16
MAX_DETAIL_CHARS = 300


def sentence(text: str) -> str:
    """A detail as it may travel: one printable line, cut to its limit."""
    return shortened(text, MAX_DETAIL_CHARS)


class Ranked(NamedTuple):
    """A permitted node. `score` is its expected share of capacity in use: lower is better.

    `permitted_by` are the @ids of the permits, of both authorities: the first 16 of each.
    """

    node: SpiffeId
    score: float
    location: str
    permitted_by: tuple[str, ...] = ()


class Refused(NamedTuple):
    """A refused node. `detail` is one sentence for people; `policies` the first 16 @ids that forbade it."""

    node: SpiffeId
    reason: Reason
    detail: str
    policies: tuple[str, ...] = ()
    location: str = ""


@dataclass(frozen=True)
class Decision:
    """What was decided and why. Times are Unix seconds.

    `ranked` holds the permitted nodes, best first, at most 8 (64 if they are to be asked together, 1,000 if
    everybody was to be explained);
    `refused` the refused ones that were looked at, at most 1,000, of `refused_total`; `considered` is
    how many nodes there were. Permits issued on it hold until `expires_at`.
    """

    id: str
    permitted: bool
    ranked: tuple[Ranked, ...]
    refused: tuple[Refused, ...]
    refused_total: int
    considered: int
    policy_digests: Mapping[str, str] = field(default_factory=dict)
    snapshot_version: int = 0
    decided_at: float = 0.0
    expires_at: float = 0.0
    decided_by: SpiffeId | None = None

    @property
    def chosen(self) -> SpiffeId | None:
        """The best permitted node, or None."""
        return self.ranked[0].node if self.ranked else None

    def refusal(self) -> MeshError:
        """The refusal of a decision about one node, as an error for whoever asked.

        Its metadata names the decision and the policies that refused.
        """
        first = self.refused[0]
        metadata = {"decision": self.id}
        if first.policies:
            metadata["policies"] = ",".join(first.policies)
        return MeshError(first.reason, first.detail, metadata)
