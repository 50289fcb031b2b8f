"""MeshError survives the wire, and a peer's words are not trusted."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from mesh.core.errors import ERROR_DOMAIN, MeshError, Reason
from mesh.core.text import shortened
from mesh.rpc.status import (
    DETAILS_KEY,
    MAX_FACTS,
    MAX_MESSAGE_CHARS,
    from_rpc_error,
    from_status,
    status_code,
    to_status,
)


def rpc_error(
    code: grpc.StatusCode, details: str = "", status: Status | bytes | None = None
) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if status is not None:
        trailing.add(DETAILS_KEY, status if isinstance(status, bytes) else status.SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_comes_back_as_itself(reason: Reason):
    sent = MeshError(reason, "what was expected", {"policy": "p1"}, 1.5)
    back = from_rpc_error(rpc_error(status_code(reason), "", to_status(sent)))
    assert (back.reason, back.message, back.metadata, back.retry_after_s) == (
        reason,
        "what was expected",
        {"policy": "p1"},
        1.5,
    )


def test_every_reason_has_a_grpc_code():
    assert all(status_code(reason) is not grpc.StatusCode.OK for reason in Reason)


def test_what_is_sent_is_bounded_and_printable():
    error = MeshError(Reason.INTERNAL, "x" * 5000 + "\n", {f"k{i}": "v\x00" * 900 for i in range(99)})
    status = to_status(error)
    assert len(status.message) == MAX_MESSAGE_CHARS
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert len(info.metadata) == MAX_FACTS
    assert status.ByteSize() < 6000
    assert all(text.isprintable() for text in (status.message, *info.metadata.values()))


def test_a_hostile_status_is_cut_to_size():
    facts = {f"k{number}": "y" * 400 for number in range(50)}
    info = ErrorInfo(reason="OVERLOADED", domain=ERROR_DOMAIN, metadata=facts)
    status = Status(code=8, message="\x1b[31m" + "z" * 9000)
    status.details.add().Pack(info)
    back = from_status(status)
    assert back is not None
    assert back.reason is Reason.OVERLOADED
    assert len(back.message) == MAX_MESSAGE_CHARS
    assert back.message.isprintable()
    assert len(back.metadata) == MAX_FACTS


@pytest.mark.parametrize(
    ("reason", "domain"), [("OVERLOADED", "somebody-else"), ("NO_SUCH_REASON", ERROR_DOMAIN)]
)
def test_what_is_not_ours_is_read_by_its_code(reason: str, domain: str):
    status = Status(code=14, message="m")
    status.details.add().Pack(ErrorInfo(reason=reason, domain=domain))
    assert from_status(status) is None
    assert from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "m", status)).reason is Reason.UNREACHABLE


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x1a\x02\xff\xff", b""])
def test_details_that_are_no_status_are_ignored(garbage: bytes):
    assert from_rpc_error(rpc_error(grpc.StatusCode.UNAVAILABLE, "m", garbage)).reason is Reason.UNREACHABLE


@pytest.mark.parametrize(
    ("code", "details", "before", "after"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", Reason.UNREACHABLE, Reason.NODE_LOST),
        (grpc.StatusCode.UNKNOWN, "Stream removed", Reason.INTERNAL, Reason.NODE_LOST),
        (grpc.StatusCode.INTERNAL, "RST_STREAM", Reason.INTERNAL, Reason.NODE_LOST),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", Reason.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.CANCELLED, "", Reason.CANCELLED, Reason.CANCELLED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", Reason.OVERLOADED, Reason.OVERLOADED),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message larger than max (5 vs. 4)",
            Reason.REQUEST_TOO_LARGE,
            Reason.REQUEST_TOO_LARGE,
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: permitted subtree violation",
            Reason.IDENTITY_UNTRUSTED,
            Reason.NODE_LOST,
        ),
    ],
)
def test_foreign_codes(code: grpc.StatusCode, details: str, before: Reason, after: Reason):
    assert from_rpc_error(rpc_error(code, details)).reason is before
    assert from_rpc_error(rpc_error(code, details), began=True).reason is after


def test_printable_keeps_to_its_limit():
    assert shortened("a\nb\x00c", 10) == "a b c"
    assert len(shortened("x" * 50, 10)) == 10
