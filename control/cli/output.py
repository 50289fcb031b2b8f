"""How meshctl speaks: results on stdout as text or JSON, errors as exactly one line on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a policy or by an authority's word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

import mesh.console
from mesh.console import (
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_USAGE,
    emit_json,
    exit_code_of,
    harmless,
    json_line,
)
from mesh.core.errors import MeshError

__all__ = [
    "EXIT_FAILED",
    "EXIT_REFUSED",
    "EXIT_USAGE",
    "Output",
    "OutputOption",
    "console",
    "emit",
    "emit_json",
    "exit_code_of",
    "harmless",
    "json_line",
    "progress",
    "report",
    "report_usage",
    "table",
]

# Where output is not a terminal, nobody wants lines broken at 80 characters.
_WIDTH_OF_A_PIPE = 240


class Output(StrEnum):
    """What stdout carries."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="text for people, json for programs (errors too).")
]


def console() -> Console:
    """The console for results."""
    # No markup: texts of other machines are shown, not interpreted.
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE, highlight=False, markup=False)


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


def report(error: MeshError, *, as_json: bool) -> int:
    """Prints the error as one line on stderr; returns the exit code."""
    return mesh.console.report("meshctl", error, as_json=as_json)


def report_usage(message: str, *, as_json: bool) -> int:
    """Prints a usage error as one line on stderr; returns the exit code."""
    return mesh.console.report_usage("meshctl", message, as_json=as_json)


@contextmanager
def progress(what: str, output: Output) -> Iterator[None]:
    """Shows that something is going on, on a terminal and for people only."""
    if output is Output.JSON or not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


@contextmanager
def following(what: str, output: Output) -> Iterator[Callable[[str], None]]:
    """The same for what says how far it is: yields what changes the words shown."""
    if output is Output.JSON or not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True).status(what) as shown:
        yield lambda words: shown.update(Text(harmless(words)))


def table(columns: Sequence[str], rows: Sequence[Sequence[RenderableType]], title: str = "") -> Table:
    """A plain table; strings in it are shown as they are."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(harmless(cell)) if isinstance(cell, str) else _shown(cell) for cell in row))
    return made
