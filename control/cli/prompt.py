"""Reading a prompt. Arguments show in the list of processes, so "-" reads it from standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import read_file
from mesh.sdk.requests import MAX_PAYLOAD_BYTES

PromptArgument = Annotated[
    str, typer.Argument(help='The text; "-" reads it from standard input, which others cannot see.')
]


def read_prompt(argument: str) -> str:
    """The text itself; raises REQUEST_INVALID or REQUEST_TOO_LARGE."""
    if argument != "-":
        return argument
    return _text(sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1), "standard input")


def read_text(file: Path) -> str:
    """The text in a file; raises NOT_FOUND, CONFIG_INVALID, REQUEST_INVALID or REQUEST_TOO_LARGE."""
    return _text(read_file(file, limit=MAX_PAYLOAD_BYTES + 1), file.name)


def _text(data: bytes, source: str) -> str:
    if len(data) > MAX_PAYLOAD_BYTES:
        raise MeshError(Reason.REQUEST_TOO_LARGE, f"expected at most {MAX_PAYLOAD_BYTES} bytes of text")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MeshError(Reason.REQUEST_INVALID, f"{source}: expected UTF-8 text") from None
