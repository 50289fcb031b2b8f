"""The permit that came with a request: opened, verified, held against the request.

Signatures are mesh/identity's business, the comparison mesh/core/permits.py's; this puts the two together
and gives every failure a PERMIT_* reason of its own. A permit is good for one use: `use` is called when
the request gets its turn, so that a refusal for lack of room does not spend it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import Permit, ReplayGuard, check_permit
from mesh.core.records import Statement
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, RequestContext, SpiffeId
from mesh.identity.signing import open_envelope
from sovereign.mesh.v1 import inference_pb2

_REASONS = {
    Reason.RECORD_EXPIRED: Reason.PERMIT_EXPIRED,
    Reason.RECORD_NOT_YET_VALID: Reason.PERMIT_NOT_YET_VALID,
    Reason.RECORD_WRONG_SIGNER: Reason.PERMIT_WRONG_SIGNER,
}


@dataclass(frozen=True, slots=True)
class Presented:
    """A permit whose signature holds, and the statement around it."""

    permit: Permit
    statement: Statement

    def entry(self) -> dict[str, object]:
        """As the decision log keeps it: which permit, never its bytes."""
        return {
            "id": self.statement.key,
            "decision": self.permit.decision_id,
            "signer": str(self.statement.signer),
            "digest": self.statement.digest,
        }


class PermitCheck:
    """Checks permits for one node and remembers which were used."""

    def __init__(self, node: SpiffeId, used: ReplayGuard | None = None) -> None:
        self._node = node
        self._used = used or ReplayGuard()

    def open(self, admission: inference_pb2.Admission, snapshot: Snapshot, now: float) -> Presented:
        """The permit, if its signer and signature hold; raises PERMIT_*."""
        if not admission.HasField("permit"):
            raise MeshError(Reason.PERMIT_MISSING, "expected a permit from Placement.Place")
        data = admission.permit.SerializeToString(deterministic=True)
        try:
            statement = open_envelope(data, snapshot.bundles, now)
        except MeshError as error:
            reason = _REASONS.get(error.reason, Reason.PERMIT_MALFORMED)
            said = error.message
            if reason is Reason.PERMIT_EXPIRED:  # what an expired record needs does not help here
                said = (
                    "it has expired: place anew; if that does not help, compare the clocks of placer and node"
                )
            raise MeshError(reason, f"the permit: {said}") from None
        if snapshot.is_revoked(statement.signer, statement.signer_serial):
            raise MeshError(Reason.PERMIT_WRONG_SIGNER, "the permit's signer has been revoked")
        return Presented(codec.permit_from_payload(statement.payload), statement)

    def check(
        self,
        presented: Presented,
        *,
        caller: SpiffeId,
        action: Action,
        context: RequestContext,
        model: str,
        now: float,
    ) -> None:
        """Raises PERMIT_* unless it covers exactly this request from this caller."""
        check_permit(
            presented.permit,
            presented.statement,
            caller=caller,
            node=self._node,
            action=action,
            context=context,
            model=model,
            now=now,
        )

    def use(self, presented: Presented, now: float) -> None:
        """Spends it; PERMIT_REPLAYED the second time."""
        self._used.use(presented.statement, now)
