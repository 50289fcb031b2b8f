"""What a caller sees of a request under way: values, in the order in which they happen.

`Placed`, then for each node that takes it `Started` and `Token`s, between nodes `FailedOver`, and
`Finished` last. A stream that ends without `Finished` raised an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from mesh.core.failover import Mode
from mesh.core.placement import Decision
from mesh.core.types import SpiffeId


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the request may go, and why not elsewhere. Comes again when it is placed anew."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Started:
    """A node has decided by itself and begun. `decision_id` is of the node's own decision."""

    node: SpiffeId
    decision_id: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class Token:
    """New text and how many tokens it stands for; the text may be empty."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class FailedOver:
    """Another node takes over.

    After Mode.RESUMED the text goes on where it stopped. After Mode.RESTARTED all text so far
    (`discarded_tokens`) must be thrown away. With Mode.FRESH no text had come yet. Never to a node that
    is not permitted.
    """

    from_node: SpiffeId
    to_node: SpiffeId
    mode: Mode
    reason: Reason
    kept_tokens: int
    discarded_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: "stop" or "length". `completion_tokens` counts what the caller holds."""

    reason: str
    node: SpiffeId
    prompt_tokens: int
    completion_tokens: int


Event = Placed | Started | Token | FailedOver | Finished


@dataclass(frozen=True, slots=True)
class Completion:
    """A stream read to its end."""

    text: str
    finished: Finished
    decision: Decision
    failovers: tuple[FailedOver, ...]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One unit vector per text, in order."""

    vectors: list[list[float]]
    model_digest: str
    node: SpiffeId
    decision: Decision


@dataclass(eq=False)
class PlacementRefused(MeshError):
    """No node may (NOT_PERMITTED) or can (NO_NODE_AVAILABLE) take the request; `decision` says why."""

    decision: Decision | None = None
