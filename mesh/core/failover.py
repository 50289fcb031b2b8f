"""What a caller does when a node fails under its request: one transition table, no IO.

A delivery is one request on its way: it is placed, sent to the first permitted node, streamed, and,
if that node is lost, sent on down the same ranked list or placed anew. Rules kept here:

- A `Send` step names only a node of a placement's own list: failover never widens what was
  permitted (I1), and a node that failed is not asked again before another one has delivered something. A
  long stream so outlives a restart of every node, one after the other.
- A permit is good for one use and for a short time: one that is about to expire is not tried, the
  request is placed anew instead.
- Text already delivered is kept only if the next node serves the very same model (equal digests);
  otherwise the caller is told to discard it.
- Attempts, placements and time are bounded, and the error at the end says what was tried.

It does not know what a prompt, a permit or a channel is; mesh/sdk/delivery.py carries out the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mesh.core.errors import Reason
from mesh.core.types import SpiffeId

MAX_ATTEMPTS = 6
MAX_PLACEMENTS = 4
# A permit must outlive the way to the node and the clock tolerance on it.
PERMIT_MARGIN_S = 1.0


class Phase(StrEnum):
    """Where a delivery is in its life."""

    PLACING = "placing"
    SENDING = "sending"
    STREAMING = "streaming"
    FINISHED = "finished"
    FAILED = "failed"


class Mode(StrEnum):
    """How a request is sent."""

    FRESH = "fresh"  # nothing was delivered before
    RESUMED = "resumed"  # goes on right after what was delivered
    RESTARTED = "restarted"  # what was delivered must be discarded


class Recovery(StrEnum):
    """What a failure of one node means for the request."""

    NEXT = "next"  # leave this node out and go on
    PLACE = "place"  # the permit was at fault, not the node: place anew


# Everything not listed ends the delivery: it would fail in the same way anywhere else.
RECOVERY: Mapping[Reason, Recovery] = {
    # The node or the way to it is gone
    Reason.NODE_LOST: Recovery.NEXT,
    Reason.UNREACHABLE: Recovery.NEXT,
    Reason.IDENTITY_UNTRUSTED: Recovery.NEXT,
    # It is there and cannot serve
    Reason.ENGINE_UNAVAILABLE: Recovery.NEXT,
    Reason.ENGINE_FAILED: Recovery.NEXT,
    Reason.EVIDENCE_UNAVAILABLE: Recovery.NEXT,
    Reason.DRAINING: Recovery.NEXT,
    Reason.OVERLOADED: Recovery.NEXT,
    Reason.NODE_NOT_READY: Recovery.NEXT,
    Reason.NODE_CORDONED: Recovery.NEXT,
    Reason.MODEL_NOT_SERVED: Recovery.NEXT,
    # Its copy of the policies is newer than the placer's: it decides for itself (I2), others may serve
    Reason.POLICY_SENDER_DENIES: Recovery.NEXT,
    Reason.POLICY_RECEIVER_DENIES: Recovery.NEXT,
    Reason.POLICY_MISSING: Recovery.NEXT,
    Reason.RECORDS_STALE: Recovery.NEXT,
    Reason.NODE_UNKNOWN: Recovery.NEXT,
    Reason.NOT_PERMITTED: Recovery.NEXT,
    Reason.PERMIT_WRONG_SIGNER: Recovery.NEXT,
    Reason.PERMIT_NOT_YET_VALID: Recovery.NEXT,
    # The permit ran out on the way, or its first use was lost on the way back
    Reason.PERMIT_EXPIRED: Recovery.PLACE,
    Reason.PERMIT_REPLAYED: Recovery.PLACE,
}


# For a question to a collection, besides: this node's index or embedder is not the only one there is, and
# what it says of its peers may be its own fault.
RECOVERY_OF_QUESTIONS: Mapping[Reason, Recovery] = {
    **RECOVERY,
    Reason.INDEX_UNAVAILABLE: Recovery.NEXT,
    Reason.EMBEDDER_MISMATCH: Recovery.NEXT,
    Reason.COLLECTION_UNKNOWN: Recovery.NEXT,
    Reason.PEER_MISBEHAVED: Recovery.NEXT,
    Reason.INTERNAL: Recovery.NEXT,
}


@dataclass(frozen=True, slots=True)
class Route:
    """A permitted node as a delivery sees it. `expires_at` of its permit: Unix seconds."""

    node: SpiffeId
    model_digest: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Tried:
    """A node that was tried, and how it failed."""

    node: SpiffeId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Delivery:
    """The state of one request. `deadline`: Unix seconds; `delivered`: tokens the caller holds.

    One that is not `movable` ends with the node that has begun to answer it: another node's answer would
    not go with what the caller holds.
    """

    max_tokens: int
    deadline: float
    recovery: Mapping[Reason, Recovery] = field(default_factory=lambda: RECOVERY)
    movable: bool = True
    phase: Phase = Phase.PLACING
    routes: tuple[Route, ...] = ()
    current: Route | None = None
    tried: tuple[Tried, ...] = ()
    excluded: tuple[SpiffeId, ...] = ()
    placements: int = 1
    delivered: int = 0
    progressed: bool = False  # whether the current node has delivered something
    digest: str = ""  # of the model that wrote what was delivered


# Events: what happened.
@dataclass(frozen=True, slots=True)
class Placed:
    """The placement answered. Routes best first; none with the reason why."""

    routes: tuple[Route, ...]
    reason: Reason = Reason.NOT_PERMITTED


@dataclass(frozen=True, slots=True)
class Accepted:
    """The node decided for itself and has begun. With the digest of its model."""

    model_digest: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The caller was handed so many tokens."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The node, or the way to it, failed. `breach`: it broke the protocol, so keep nothing of it."""

    reason: Reason
    breach: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """The node said that it is done."""


Event = Placed | Accepted | Delivered | Lost | Completed


# Steps: what to do next.
@dataclass(frozen=True, slots=True)
class AskPlacement:
    """Place the request (anew), leaving these nodes out."""

    excluded: tuple[SpiffeId, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """Send to this node. After a failure `lost` names the node and reason left behind."""

    route: Route
    mode: Mode
    max_tokens: int
    lost: Tried | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Go on reading from the node."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Done. `cut`: the node was lost after its last token, before it could say so."""

    cut: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """Give up, with this reason and a message that says what was tried.

    `passed_on`: the error of the last node, as it came, is the answer.
    """

    reason: Reason
    message: str
    passed_on: bool = False


Step = AskPlacement | Send | Read | Finish | Fail


class IllegalMove(RuntimeError):
    """An event that cannot happen in this phase: a broken invariant, not an input error."""


def step(state: Delivery, event: Event, now: float) -> tuple[Delivery, Step]:
    """The next state and what to do. Raises IllegalMove, and then nothing has changed."""
    move = _MOVES.get((state.phase, type(event)))
    if move is None:
        raise IllegalMove(f"{type(event).__name__} while {state.phase}")
    return move(state, event, now)


def _on_placed(state: Delivery, event: Placed, now: float) -> tuple[Delivery, Step]:
    if not event.routes:
        return _fail(state, event.reason, now)
    return _send_next(replace(state, routes=event.routes), now)


def _on_accepted(state: Delivery, event: Accepted, now: float) -> tuple[Delivery, Step]:
    if state.delivered and event.model_digest != state.digest:
        # The node now serves another model than its record said: what is held does not fit.
        return _on_lost(state, Lost(Reason.NODE_LOST, breach=True), now)
    return replace(state, phase=Phase.STREAMING, digest=event.model_digest), Read()


def _on_delivered(state: Delivery, event: Delivered, now: float) -> tuple[Delivery, Step]:
    progressed = state.progressed or event.tokens > 0
    return replace(state, delivered=state.delivered + event.tokens, progressed=progressed), Read()


def _on_completed(state: Delivery, event: Completed, now: float) -> tuple[Delivery, Step]:
    return replace(state, phase=Phase.FINISHED, current=None), Finish()


def _on_lost(state: Delivery, event: Lost, now: float) -> tuple[Delivery, Step]:
    if state.current is None:
        raise IllegalMove("a node is lost only after something was sent to it")
    node = state.current.node
    begun = state.phase is Phase.STREAMING
    state = replace(state, current=None, tried=(*state.tried, Tried(node, event.reason)))
    recovery = state.recovery.get(event.reason) if state.movable or not begun else None
    if recovery is None:
        return replace(state, phase=Phase.FAILED), Fail(event.reason, f"by {node}", passed_on=True)
    if event.breach:
        state = replace(state, digest="")
    elif state.delivered >= state.max_tokens > 0:
        return replace(state, phase=Phase.FINISHED), Finish(cut=True)
    if recovery is Recovery.PLACE:
        state = replace(state, routes=())
    else:
        before = () if state.progressed else state.excluded
        state = replace(state, excluded=(*before, node))
    if len(state.tried) >= MAX_ATTEMPTS:
        return _fail(state, event.reason, now)
    return _send_next(state, now)


def _send_next(state: Delivery, now: float) -> tuple[Delivery, Step]:
    """Down the ranked list, to the first node whose permit still holds; else place anew."""
    if now >= state.deadline:
        return _fail(state, Reason.DEADLINE_EXCEEDED, now)
    for index, route in enumerate(state.routes):
        if route.node in state.excluded or route.expires_at - now < PERMIT_MARGIN_S:
            continue
        mode = Mode.FRESH
        if state.delivered:
            same = route.model_digest != "" and route.model_digest == state.digest
            mode = Mode.RESUMED if same else Mode.RESTARTED
        delivered = state.delivered if mode is Mode.RESUMED else 0
        lost = state.tried[-1] if state.tried else None
        sending = replace(
            state,
            phase=Phase.SENDING,
            current=route,
            routes=state.routes[index + 1 :],
            delivered=delivered,
            progressed=False,
        )
        return sending, Send(route, mode, state.max_tokens - delivered, lost)
    if state.placements >= MAX_PLACEMENTS:
        return _fail(state, Reason.NO_NODE_AVAILABLE, now)
    placing = replace(state, phase=Phase.PLACING, routes=(), placements=state.placements + 1)
    return placing, AskPlacement(state.excluded)


def _fail(state: Delivery, reason: Reason, now: float) -> tuple[Delivery, Step]:
    """The error at the end. What the nodes said outweighs what the last placement said."""
    failed = replace(state, phase=Phase.FAILED, current=None)
    if not state.tried:
        return failed, Fail(reason, "no node may or can serve this request")
    said = {tried.reason for tried in state.tried}
    if now >= state.deadline:
        final = Reason.DEADLINE_EXCEEDED
    elif all(r.is_policy for r in said):
        final = reason if reason.is_policy else state.tried[-1].reason
    else:
        # What tells the caller more than that nodes were lost, if all say the same.
        telling = said - RECOVERY.keys() | said & {Reason.OVERLOADED}
        final = said.pop() if len(said) == 1 and telling else Reason.NODE_LOST
    tried = ", ".join(f"{t.node} ({t.reason.code})" for t in state.tried)
    return failed, Fail(final, f"tried {tried}; then: {reason.code}")


_MOVES: Mapping[tuple[Phase, type], Callable[..., tuple[Delivery, Step]]] = {
    (Phase.PLACING, Placed): _on_placed,
    (Phase.SENDING, Accepted): _on_accepted,
    (Phase.SENDING, Lost): _on_lost,
    (Phase.STREAMING, Delivered): _on_delivered,
    (Phase.STREAMING, Completed): _on_completed,
    (Phase.STREAMING, Lost): _on_lost,
}
