"""How meshctl speaks: results on stdout as text or JSON, errors as exactly one line on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a policy or by an authority's word.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mesh.core.errors import MeshError, Reason

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3

# Said about the caller's own words before anything was asked of anybody.
_USAGE = frozenset(
    {
        Reason.CONTEXT_INVALID,
        Reason.DATA_CLASS_MISSING,
        Reason.DATA_CLASS_UNKNOWN,
        Reason.COUNTRY_UNKNOWN,
        Reason.REQUEST_INVALID,
        Reason.REQUEST_TOO_LARGE,
        Reason.FILTER_UNKNOWN,
    }
)
# Where output is not a terminal, nobody wants lines broken at 80 characters.
_WIDTH_OF_A_PIPE = 240
# What JSON may hold as it is, but a terminal obeys or cannot show: C1 controls, directions of writing,
# line separators, halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Output(StrEnum):
    """What stdout carries."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="text for people, json for programs (errors too).")
]


def exit_code_of(error: MeshError) -> int:
    """The exit code that an error means."""
    if error.reason.is_policy:
        return EXIT_REFUSED
    return EXIT_USAGE if error.reason in _USAGE else EXIT_FAILED


def console() -> Console:
    """The console for results."""
    # No markup: texts of other machines are shown, not interpreted.
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False, markup=False)


def harmless(text: str) -> str:
    """The text without control characters: what other machines say must not be able to drive a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def _shown(part: RenderableType) -> RenderableType:
    """The same of whatever is printed. rich lets escape sequences in texts through."""
    if isinstance(part, Text):
        return Text(harmless(part.plain), style=part.style)
    return harmless(part) if isinstance(part, str) else part


def emit(output: Output, data: Mapping[str, Any], *text: RenderableType) -> None:
    """Prints the one form or the other. JSON is one line."""
    if output is Output.JSON:
        emit_json(data)
        return
    target = console()
    for part in text:
        target.print(_shown(part))


def json_line(data: Mapping[str, Any]) -> str:
    """One JSON document on one line. What could drive a terminal is escaped, and so are halves of surrogate
    pairs, which file names have: the document says the same."""
    line = json.dumps(data, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n"


def emit_json(data: Mapping[str, Any]) -> None:
    """One JSON document on one line, at once."""
    sys.stdout.write(json_line(data))
    sys.stdout.flush()


def report(error: MeshError, *, as_json: bool) -> int:
    """Prints the error as one line on stderr; returns the exit code."""
    code = exit_code_of(error)
    if as_json:
        document: dict[str, Any] = {
            "reason": error.reason.code,
            "message": error.message,
            "exit_code": code,
        }
        if error.metadata:
            document["metadata"] = error.metadata
        if error.request_id:
            document["request_id"] = error.request_id
        if error.retry_after_s is not None:
            document["retry_after_s"] = error.retry_after_s
        line = json_line({"error": document})
    else:
        hint = f" (try again in {error.retry_after_s:g} s)" if error.retry_after_s is not None else ""
        line = harmless(" ".join(f"meshctl: {error.reason.code}: {error.message}{hint}".split())) + "\n"
    sys.stderr.write(line)
    sys.stderr.flush()
    return code


def report_usage(message: str, *, as_json: bool) -> int:
    """Prints a usage error as one line on stderr; returns the exit code."""
    text = " ".join(message.split())
    if as_json:
        document = {"reason": "USAGE", "message": text, "exit_code": EXIT_USAGE}
        sys.stderr.write(json_line({"error": document}))
    else:
        sys.stderr.write(harmless(f"meshctl: {text} (see --help)\n"))
    sys.stderr.flush()
    return EXIT_USAGE


@contextmanager
def progress(what: str, output: Output) -> Iterator[None]:
    """Shows that something is going on, on a terminal and for people only."""
    if output is Output.JSON or not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


def table(columns: Sequence[str], rows: Sequence[Sequence[RenderableType]], title: str = "") -> Table:
    """A plain table; strings in it are shown as they are."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(harmless(cell)) if isinstance(cell, str) else _shown(cell) for cell in row))
    return made
