"""Logs: one JSON object a line for machines, one readable line for people, and never a payload (I1).

Modules log through the standard library (`logging.getLogger(__name__)`), with facts about an event in
`extra={"fields": {...}}`. The filter here stands between every logger, other libraries' included, and
the output: arguments that are not short scalars are replaced by their type's name, and exceptions are
shown as type and frames, because an exception's text may quote what it choked on. Texts of MeshError are
public by construction and stay.

It does not know what a payload looks like; it lets through only what cannot be one by its type, and
cuts what is long. Whoever logs a prompt as a plain word still would: the tests of the servicers watch
for that.

What is written while a call is served says which (mesh/telemetry/calls.py): request_id and method, and
trace_id and span_id where traces are on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal, TextIO

from mesh.core.errors import MeshError
from mesh.core.text import printable
from mesh.core.types import SpiffeId
from mesh.telemetry import calls

Format = Literal["auto", "json", "text"]

MAX_VALUE_CHARS = 400
MAX_LINE_CHARS = 1000
_FRAMES = 12


def scrub(value: object) -> object:
    """The value, if it is a scalar that may be logged; else its type's name in angle brackets."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | SpiffeId | Enum | PurePath | MeshError):
        text = value.name if isinstance(value, Enum) and not isinstance(value, str) else str(value)
        return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"
    return f"<{type(value).__name__}>"


def describe(error: BaseException) -> str:
    """An exception as its type and frames, innermost last, and its text only if it is a MeshError."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " > ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}:{f.name}" for f in frames)
    what = str(scrub(error)) if isinstance(error, MeshError) else type(error).__name__
    return f"{what} at {where}" if where else what


class NoPayload(logging.Filter):
    """Makes every record safe to print, whoever made it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites the record in place, its message filled in; always lets it through."""
        if not isinstance(record.msg, str):
            record.msg = str(scrub(record.msg))
        record.msg = _filled(record.msg, record.args)
        record.args = None
        if record.exc_info and record.exc_info[1] is not None:
            record.failure = describe(record.exc_info[1])
        record.exc_info = record.exc_text = record.stack_info = None
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            record.fields = {str(scrub(key)): scrub(value) for key, value in fields.items()}
        return True


def _filled(text: str, args: object) -> str:
    """The message with its scrubbed arguments, on one line and not too long."""
    values: Any
    if isinstance(args, Mapping):
        # logging takes a single mapping for named arguments, whether any are named or not
        named = {key: scrub(value) for key, value in args.items()}
        values = named if "%(" in text else (f"<{type(args).__name__}>",)
    else:
        values = tuple(scrub(value) for value in args) if isinstance(args, tuple) else ()
    if values:
        # Where a scrubbed argument does not fit its place, the words alone have to do.
        with contextlib.suppress(TypeError, ValueError, KeyError):
            text = text % values
    return text if len(text) <= MAX_LINE_CHARS else text[: MAX_LINE_CHARS - 1] + "…"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = {**calls.log_fields(), **(getattr(record, "fields", None) or {})}
    failure = getattr(record, "failure", "")
    if failure:
        fields["failure"] = failure
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object: time (RFC 3339, UTC), level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps({**_fields(record), **head}, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """One line for people: local time, level, message, key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        facts = "".join(f"  {key}={value}" for key, value in _fields(record).items())
        line = f"{stamp} {record.levelname.lower():7} {record.getMessage()}{facts}"
        # One event is one line, and what a peer said in it neither begins another nor drives a terminal.
        return printable(line)


def configure(level: str = "info", style: Format = "auto", stream: TextIO | None = None) -> logging.Handler:
    """Sends the root logger to `stream` (standard error); "auto" is text on a terminal, else JSON."""
    out = stream if stream is not None else sys.stderr
    as_text = style == "text" or (style == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    handler.addFilter(NoPayload())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


def guard_process() -> None:
    """Routes uncaught exceptions through the filter; Python's own hook would print their texts."""
    log = logging.getLogger("uncaught")

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        log.critical("uncaught exception", exc_info=(kind, error, trace))

    sys.excepthook = hook


def guard_loop(loop: asyncio.AbstractEventLoop) -> None:
    """The same for exceptions that nobody awaited."""
    log = logging.getLogger("asyncio")

    def handler(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trouble = (type(error), error, error.__traceback__) if isinstance(error, BaseException) else None
        # "Exception in callback f(...)" quotes the arguments, and those may be a payload.
        what = str(context.get("message", "")).partition("(")[0]
        log.error("%s", what, exc_info=trouble)

    loop.set_exception_handler(handler)
