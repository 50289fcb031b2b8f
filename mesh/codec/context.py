"""Request contexts and actions, from and to protobuf."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Action, RequestContext
from sovereign.mesh.v1 import context_pb2

_ACTIONS_PB: Mapping[Action, context_pb2.Action] = {
    Action.INFER: context_pb2.ACTION_INFER,
    Action.EMBED: context_pb2.ACTION_EMBED,
    Action.SEARCH: context_pb2.ACTION_SEARCH,
    Action.RELEASE: context_pb2.ACTION_RELEASE,
    Action.TRANSIT: context_pb2.ACTION_TRANSIT,
    Action.EGRESS: context_pb2.ACTION_EGRESS,
}
_ACTIONS = {int(number): action for action, number in _ACTIONS_PB.items()}


def context_from_pb(message: context_pb2.RequestContext) -> RequestContext:
    """Reads a request's statement about itself."""
    return RequestContext.of(
        message.data_classes,
        message.purpose,
        transfer_basis=message.transfer_basis,
        tenant=message.tenant,
        allowed_jurisdictions=message.narrowing.allowed_jurisdictions,
        required_assurances=message.narrowing.required_assurances,
    )


def context_to_pb(context: RequestContext) -> context_pb2.RequestContext:
    """Writes it."""
    return context_pb2.RequestContext(
        data_classes=sorted(context.data_classes),
        purpose=context.purpose,
        transfer_basis=context.transfer_basis,
        tenant=context.tenant,
        narrowing=context_pb2.Narrowing(
            allowed_jurisdictions=sorted(context.narrowing.allowed_jurisdictions),
            required_assurances=sorted(context.narrowing.required_assurances),
        ),
    )


def action_from_pb(number: int) -> Action:
    """Reads an action; unset or unknown is refused (I4)."""
    if number not in _ACTIONS:
        raise MeshError(Reason.REQUEST_INVALID, "action: expected one of " + ", ".join(Action))
    return _ACTIONS[number]


def action_to_pb(action: Action) -> context_pb2.Action:
    """Writes it."""
    return _ACTIONS_PB[action]
