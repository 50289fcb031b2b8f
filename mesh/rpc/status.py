"""MeshError on the wire: the one table between reasons and gRPC.

A refusal travels as google.rpc.Status with an ErrorInfo (domain "sovereign-mesh", the reason's code,
short public facts) and, where waiting helps, a RetryInfo. The way back trusts nothing: a peer's text is
cut and reduced to printable characters, an unknown reason falls back to the gRPC code. It knows nothing
of servicers or of what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mesh.core.errors import ERROR_DOMAIN, MeshError, Reason
from mesh.core.text import shortened
from mesh.telemetry import calls

DETAILS_KEY = "grpc-status-details-bin"
# By what the log and the evidence of the server speak of a call that failed.
REQUEST_ID_KEY = "sovereign-request-id"
# gRPC refuses 8 KiB of trailing metadata; details are base64 in HTTP/2 accounting, so stay far below.
MAX_MESSAGE_CHARS = 600
MAX_FACTS = 16
MAX_FACT_CHARS = 160
_MAX_DETAILS_BYTES = 16 * 1024
_MAX_RETRY_S = 3600.0
_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_REASONS: Mapping[str, Reason] = {reason.code: reason for reason in Reason}

# What a status without our ErrorInfo means: (before the first message, after it).
_FOREIGN: Mapping[grpc.StatusCode, tuple[Reason, Reason]] = {
    grpc.StatusCode.UNAVAILABLE: (Reason.UNREACHABLE, Reason.NODE_LOST),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Reason.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
    grpc.StatusCode.CANCELLED: (Reason.CANCELLED, Reason.CANCELLED),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Reason.OVERLOADED, Reason.OVERLOADED),
    grpc.StatusCode.UNAUTHENTICATED: (Reason.IDENTITY_UNTRUSTED, Reason.IDENTITY_UNTRUSTED),
    grpc.StatusCode.PERMISSION_DENIED: (Reason.IDENTITY_NOT_ALLOWED, Reason.IDENTITY_NOT_ALLOWED),
    grpc.StatusCode.INVALID_ARGUMENT: (Reason.REQUEST_INVALID, Reason.REQUEST_INVALID),
    grpc.StatusCode.NOT_FOUND: (Reason.NOT_FOUND, Reason.NOT_FOUND),
}

# How gRPC words a peer whose certificate did not convince it.
_HANDSHAKE_FAILED = ("CERTIFICATE_VERIFY_FAILED", "ostname Verification", "Peer name ")


def status_code(reason: Reason) -> grpc.StatusCode:
    """The gRPC code that a reason travels under."""
    return grpc.StatusCode[reason.grpc]


def to_status(error: MeshError) -> Status:
    """google.rpc.Status with ErrorInfo and, if the error has a hint, RetryInfo."""
    facts = {
        shortened(key, MAX_FACT_CHARS): shortened(value, MAX_FACT_CHARS)
        for key, value in list(error.metadata.items())[:MAX_FACTS]
    }
    status = Status(
        code=status_code(error.reason).value[0], message=shortened(error.message, MAX_MESSAGE_CHARS)
    )
    status.details.add().Pack(ErrorInfo(reason=error.reason.code, domain=ERROR_DOMAIN, metadata=facts))
    if error.retry_after_s is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(max(0, round(error.retry_after_s * 1000)))
        status.details.add().Pack(retry)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: MeshError) -> NoReturn:
    """Ends a call with this error; never returns."""
    status = to_status(error)
    trailers: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    call = calls.current()
    if call is not None:
        call.failure = error
        trailers += ((REQUEST_ID_KEY, call.id),)
    await context.abort(status_code(error.reason), status.message, trailers)
    raise AssertionError("abort returned")


def from_status(status: Status) -> MeshError | None:
    """The MeshError that a status carries, or None if it is not one of ours."""
    info, retry = ErrorInfo(), RetryInfo()
    found = False
    retry_after_s: float | None = None
    for detail in status.details[:8]:
        if _unpack(detail, info) and info.domain == ERROR_DOMAIN and info.reason in _REASONS:
            found = True
        elif _unpack(detail, retry):
            retry_after_s = min(max(retry.retry_delay.ToMilliseconds() / 1000, 0.0), _MAX_RETRY_S)
    if not found:
        return None
    facts = {
        shortened(key, MAX_FACT_CHARS): shortened(value, MAX_FACT_CHARS)
        for key, value in list(info.metadata.items())[:MAX_FACTS]
    }
    message = shortened(status.message, MAX_MESSAGE_CHARS)
    return MeshError(_REASONS[info.reason], message, facts, retry_after_s)


def from_rpc_error(error: grpc.RpcError, *, began: bool = False) -> MeshError:
    """What a failed call means, as a MeshError.

    `began` says whether the peer had already answered with a message: a connection that breaks then
    is NODE_LOST, before it is UNREACHABLE. A failed handshake is IDENTITY_UNTRUSTED.
    """
    if not isinstance(error, grpc.aio.AioRpcError):
        return MeshError(Reason.INTERNAL, "the call failed without a status")
    request_id = _request_id(error)
    raw = _details(error)
    if raw is not None:
        known = from_status(raw)
        if known is not None:
            known.request_id = request_id
            return known
    code, text = error.code(), error.details() or ""
    reason = _FOREIGN.get(code, (Reason.INTERNAL, Reason.NODE_LOST))[began]
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        reason = Reason.REQUEST_TOO_LARGE
    elif reason is Reason.UNREACHABLE and any(sign in text for sign in _HANDSHAKE_FAILED):
        reason = Reason.IDENTITY_UNTRUSTED
    message = shortened(text, 300) or f"the call ended with {code.name}"
    return MeshError(reason, message, request_id=request_id)


def _request_id(error: grpc.aio.AioRpcError) -> str:
    """As the peer says; "" unless it has the form of one."""
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _ID.fullmatch(value):
            return value
    return ""


def _details(error: grpc.aio.AioRpcError) -> Status | None:
    trailing: Any = error.trailing_metadata()
    for key, value in trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes) and len(value) <= _MAX_DETAILS_BYTES:
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _unpack(detail: AnyMessage, into: ErrorInfo | RetryInfo) -> bool:
    try:
        return bool(detail.Unpack(into))
    except DecodeError:
        return False
