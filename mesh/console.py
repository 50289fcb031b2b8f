"""How the commands speak: exactly one line on stderr for an error, JSON where it is asked for.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a policy or by an authority's word.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

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
# What JSON may hold as it is, but a terminal obeys or cannot show: C1 controls, directions of writing,
# line separators, halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def exit_code_of(error: MeshError) -> int:
    """The exit code that an error means."""
    if error.reason.is_policy:
        return EXIT_REFUSED
    return EXIT_USAGE if error.reason in _USAGE else EXIT_FAILED


def harmless(text: str) -> str:
    """The text without control characters: what other machines say must not be able to drive a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def json_line(data: Mapping[str, Any]) -> str:
    """One JSON document on one line. What could drive a terminal is escaped, and so are halves of surrogate
    pairs, which file names have: the document says the same."""
    line = json.dumps(data, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n"


def emit_json(data: Mapping[str, Any]) -> None:
    """One JSON document on one line, at once."""
    sys.stdout.write(json_line(data))
    sys.stdout.flush()


def report(program: str, error: MeshError, *, as_json: bool) -> int:
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
        line = harmless(" ".join(f"{program}: {error.reason.code}: {error.message}{hint}".split())) + "\n"
    sys.stderr.write(line)
    sys.stderr.flush()
    return code


def report_usage(program: str, message: str, *, as_json: bool) -> int:
    """Prints a usage error as one line on stderr; returns the exit code."""
    text = " ".join(message.split())
    if as_json:
        document = {"reason": "USAGE", "message": text, "exit_code": EXIT_USAGE}
        sys.stderr.write(json_line({"error": document}))
    else:
        sys.stderr.write(harmless(f"{program}: {text} (see --help)\n"))
    sys.stderr.flush()
    return EXIT_USAGE
