"""Reading hostile bytes: what every decoder shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from mesh.core.errors import MeshError, Reason
from mesh.core.targets import is_endpoint

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
    """Returns host:port unchanged; raises RECORD_MALFORMED.

    The rule is the one that callers hold targets to: a node that could advertise what callers refuse
    would spoil every answer in which it is ranked.
    """
    if not is_endpoint(text):
        raise MeshError(Reason.RECORD_MALFORMED, "endpoint: expected host:port")
    return text
