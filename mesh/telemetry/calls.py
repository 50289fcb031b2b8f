"""The call that a server is serving: its id, by which caller, log and evidence speak of the same thing.

A call has one id from its first moment. Whoever writes the first decision about it takes that id for it
(`claim_id`), so that the id in a log line, in an error that the caller gets (`sovereign-request-id`) and in
the evidence is the same. What is decided later in the same call has ids of its own.

Kept per task like spans. It knows nothing of who calls: a client's name is its tenant's, and stays out of
logs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from mesh.core.errors import MeshError
from mesh.telemetry import spans


@dataclass(slots=True, eq=False)
class Call:
    """One call. `method` is "package.Service/Method"; `failure` is what its caller is told."""

    method: str
    id: str
    claimed: bool = False
    failure: MeshError | None = None
    over: bool = False


_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)


def begin(call: Call) -> None:
    """Makes it the call of this task, and of the tasks that it makes."""
    _CURRENT.set(call)


def current() -> Call | None:
    """The call that is being served here; None outside of one, and in tasks that outlived theirs."""
    call = _CURRENT.get()
    return None if call is None or call.over else call


def claim_id(new_id: Callable[[], str]) -> str:
    """The call's id for whoever decides about it first, else another one."""
    call = current()
    if call is None or call.claimed:
        return new_id()
    call.claimed = True
    return call.id


def log_fields() -> dict[str, object]:
    """What each log line says of the call during which it was written."""
    fields: dict[str, object] = {}
    call = current()
    if call is not None:
        fields["request_id"], fields["method"] = call.id, call.method
        span = spans.current()
        if span.trace_id:
            fields["trace_id"], fields["span_id"] = span.trace_id, span.span_id
    return fields
