"""Reading hostile bytes: what every decoder shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from mesh.core.errors import MeshError, Reason

_M = TypeVar("_M", bound=Message)
_T = TypeVar("_T")

MAX_ENDPOINTS = 8


def parse(message: type[_M], payload: bytes) -> _M:
    """Parses a message; raises RECORD_MALFORMED."""
    try:
        return message.FromString(payload)
    except DecodeError:
        raise MeshError(Reason.RECORD_MALFORMED, f"expected a {message.DESCRIPTOR.name} message") from None


def bounded(what: str, values: Iterable[_T], limit: int, least: int = 0) -> list[_T]:
    """The values as a list, if they are neither too few nor too many."""
    found = list(values)
    if not least <= len(found) <= limit:
        raise MeshError(Reason.RECORD_MALFORMED, f"{what}: expected {least} to {limit}")
    return found


def as_record(build: Callable[[], _T]) -> _T:
    """Whatever a value's constructor objects to, in a record it means: malformed."""
    try:
        return build()
    except MeshError as error:
        raise MeshError(Reason.RECORD_MALFORMED, error.message) from None


def endpoint(text: str) -> str:
    """Returns host:port unchanged; raises RECORD_MALFORMED."""
    host, _, port = text.rpartition(":")
    if not host or len(text) > 261 or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise MeshError(Reason.RECORD_MALFORMED, "endpoint: expected host:port")
    if any(c.isspace() or not c.isprintable() or c in "/,@" for c in host):
        raise MeshError(Reason.RECORD_MALFORMED, "endpoint: expected host:port")
    return text
