"""Permits as a placer signs them: one for each node that a decision permits, for whoever is to send there.

Whoever decides signs: Placement for callers that send by themselves, a node for the questions that it
asks on a client's behalf. A permit says what was decided and no more; the decision must be on record
before it leaves (I7), which is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh import codec
from mesh.core.decision import Decision
from mesh.core.permits import Permit
from mesh.core.records import RecordType
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.identity.source import SvidSource


class PermitWriter:
    """Signs with the certificate that `source` has at the moment. `new_id` names permits."""

    def __init__(self, source: SvidSource, new_id: Callable[[], str]) -> None:
        self._source = source
        self._new_id = new_id

    def write(
        self,
        decision: Decision,
        node: SpiffeId,
        *,
        caller: SpiffeId,
        action: Action,
        context: RequestContext,
        model: str,
    ) -> bytes:
        """An envelope for one ranked node, valid from the decision until it expires."""
        if not decision.permitted or all(ranked.node != node for ranked in decision.ranked):
            raise ValueError("permits are for nodes that the decision permits")
        # This flow rests on the policies of its two ends (I3); whom else the decision was about is not for
        # every node to know.
        ends = {caller.trust_domain, node.trust_domain}
        digests = {td: digest for td, digest in decision.policy_digests.items() if td in ends}
        permit = Permit(decision.id, caller, node, action, context.digest, model, digests)
        return self._source.signer.sign(
            RecordType.PERMIT,
            self._new_id(),
            1,
            decision.decided_at,
            decision.expires_at,
            codec.permit_to_payload(permit),
        )
