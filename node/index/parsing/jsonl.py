"""JSON Lines: one object per line, one document per object.

`text` is the text; what else means something are the keys of documents.OVERRIDES. A bad line is reported
and the next one read, however long it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from node.index.documents import OVERRIDES
from node.index.parsing.complaints import Complaint
from node.index.parsing.formats import BadRow, RawDocument, clean, paragraphs
from node.index.parsing.limits import ParseLimits

_BOM = b"\xef\xbb\xbf"


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """A document per line; its number, counted as editors do, is its row. Empty lines are passed over."""
    row = 0
    while line := file.readline(limits.row_bytes + 1):
        row += 1
        if len(line) > limits.row_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(limits.row_bytes)
            yield BadRow(row, Complaint.ROW_SIZE)
        elif line := line.removeprefix(_BOM if row == 1 else b"").strip():
            yield _read(row, line)


def _read(row: int, line: bytes) -> RawDocument | BadRow:
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return BadRow(row, Complaint.ROW_SYNTAX)
    if not isinstance(found, dict) or not isinstance(text := found.get("text"), str):
        return BadRow(row, Complaint.ROW_COLUMNS)
    return RawDocument(row, paragraphs(clean(text)), {n: v for n, v in found.items() if n in OVERRIDES})


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuses an object that says something twice: which of them would hold?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found
