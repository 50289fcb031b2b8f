"""Permits: the decider's signed word that a caller may send one kind of request to one node, once.

A permit travels with the payload. The receiving node decides again by itself (I2) and then holds the
permit against what it sees: the peer on the connection, itself, the action, the request's context, the
model, the clock, and who signed it. Any difference refuses (I4), with a reason of its own.

Accepted signers are the nodes and the control plane of the caller's own trust domain or of the
receiving node's: nobody else has a say in a flow between the two (I3).

Signatures are verified before this (mesh/identity); what a Permit is in protobuf, mesh/codec.py knows.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.core.errors import MeshError, Reason
from mesh.core.records import CLOCK_TOLERANCE_S, RecordType, Statement
from mesh.core.types import Action, RequestContext, SpiffeId

# Long enough to walk down a ranked list of slow nodes, short enough that a withdrawn policy matters.
PERMIT_TTL_S = 60.0
MAX_PERMITS = 4  # per decision
MAX_TTL_S = 120.0  # what a node accepts from other placers
SIGNER_KINDS = frozenset({"node", "control"})


@dataclass(frozen=True, slots=True)
class Permit:
    """What a permit says. `context_digest` is RequestContext.digest; `model` is "" for any."""

    decision_id: str
    caller: SpiffeId
    node: SpiffeId
    action: Action
    context_digest: bytes
    model: str = ""
    policy_digests: Mapping[str, str] = field(default_factory=dict)


def may_sign(signer: SpiffeId, caller: SpiffeId, node: SpiffeId) -> bool:
    """Whether this identity may place requests of `caller` on `node`."""
    return signer.kind in SIGNER_KINDS and signer.trust_domain in (caller.trust_domain, node.trust_domain)


def check_permit(
    permit: Permit,
    statement: Statement,
    *,
    caller: SpiffeId,
    node: SpiffeId,
    action: Action,
    context: RequestContext,
    model: str,
    now: float,
) -> None:
    """Raises PERMIT_* unless the permit covers exactly this request at this moment.

    `statement` is the verified envelope's; `caller` is the peer on the connection, `node` whoever
    checks, `now` its clock in Unix seconds. Replays are ReplayGuard's business.
    """
    if statement.type is not RecordType.PERMIT:
        raise MeshError(Reason.PERMIT_MALFORMED, "expected a statement of type permit")
    if not may_sign(statement.signer, caller, node):
        raise MeshError(
            Reason.PERMIT_WRONG_SIGNER,
            f"expected a permit from a node or control plane of {caller.trust_domain} or {node.trust_domain}",
        )
    _check_time(statement, now)
    if permit.node != node:
        raise MeshError(Reason.PERMIT_WRONG_NODE, f"expected a permit for {node}")
    if permit.caller != caller:
        raise MeshError(
            Reason.PERMIT_WRONG_CALLER, f"expected a permit for {caller}, the peer on this connection"
        )
    if permit.action is not action:
        raise MeshError(Reason.PERMIT_WRONG_ACTION, f"expected a permit for the action {action}")
    if not hmac.compare_digest(permit.context_digest, context.digest):
        raise MeshError(
            Reason.PERMIT_WRONG_CONTEXT,
            "expected a permit for this very request context: data classes, purpose and narrowing as placed",
        )
    if permit.model != model:
        raise MeshError(Reason.PERMIT_WRONG_MODEL, "expected a permit for the model that is asked for")


def _check_time(statement: Statement, now: float) -> None:
    """The tolerance is for clocks that run behind; an expired permit gets none."""
    if now < statement.not_before - CLOCK_TOLERANCE_S:
        raise MeshError(
            Reason.PERMIT_NOT_YET_VALID,
            f"valid only in {statement.not_before - now:.0f} s by this node's clock: compare the clocks of"
            " placer and node",
        )
    if now >= statement.not_after:
        raise MeshError(
            Reason.PERMIT_EXPIRED,
            f"expired {now - statement.not_after:.0f} s ago by this node's clock: place anew; if that does"
            " not help, compare the clocks of placer and node",
        )
    if statement.not_after - statement.not_before > MAX_TTL_S:
        raise MeshError(Reason.PERMIT_MALFORMED, f"a permit holds for at most {MAX_TTL_S:.0f} s")


class ReplayGuard:
    """Remembers used permits until they expire, so that each is good for one use.

    Bounded: when it is full of permits that still hold, it refuses further ones rather than forget
    one (I4). It lives in memory: after a restart a permit could be used once more within its minute,
    by the same caller for the same kind of request, which could as well have asked for a new one.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._used: set[tuple[SpiffeId, str]] = set()
        # The second in which they expire -> the permits: forgetting is then a few dictionary steps.
        self._expiring: dict[int, list[tuple[SpiffeId, str]]] = {}
        self._forgotten_until = 0  # a clock that steps back must not bring forgotten permits back

    def use(self, statement: Statement, now: float) -> None:
        """Marks a permit that check_permit let pass as used.

        Raises PERMIT_REPLAYED, PERMIT_EXPIRED, or OVERLOADED with a retry hint when full.
        """
        self._forget(int(now))
        last_second = math.ceil(statement.not_after)
        if last_second <= self._forgotten_until:
            raise MeshError(
                Reason.PERMIT_EXPIRED, "expired before this node's clock stepped back: place anew"
            )
        permit = (statement.signer, statement.key)
        if permit in self._used:
            raise MeshError(Reason.PERMIT_REPLAYED, "this permit was used before: place anew")
        if len(self._used) >= self._capacity:
            raise MeshError(Reason.OVERLOADED, "too many permits are in use at once", {}, retry_after_s=1.0)
        self._used.add(permit)
        self._expiring.setdefault(last_second, []).append(permit)

    def _forget(self, second: int) -> None:
        if second <= self._forgotten_until:
            return
        self._forgotten_until = second
        for expired in [s for s in self._expiring if s <= second]:
            self._used.difference_update(self._expiring.pop(expired))

    def __len__(self) -> int:
        return len(self._used)
