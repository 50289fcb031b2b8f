"""Reading a prompt. Arguments show in the list of processes, so "-" reads it from standard input."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mesh.core.errors import MeshError, Reason
from mesh.sdk.requests import MAX_PAYLOAD_BYTES

PromptArgument = Annotated[
    str, typer.Argument(help='The text; "-" reads it from standard input, which others cannot see.')
]


def read_prompt(argument: str) -> str:
    """The text itself; raises REQUEST_INVALID or REQUEST_TOO_LARGE."""
    if argument != "-":
        return argument
    data = sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1)
    if len(data) > MAX_PAYLOAD_BYTES:
        raise MeshError(Reason.REQUEST_TOO_LARGE, f"expected at most {MAX_PAYLOAD_BYTES} bytes of text")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MeshError(Reason.REQUEST_INVALID, "expected UTF-8 text on standard input") from None
