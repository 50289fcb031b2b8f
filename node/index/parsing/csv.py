"""CSV with a header: one document per record.

The header names the columns; `text` must be one of them, and what else means something are those of
documents.OVERRIDES, with ";" between data classes. The comma, the semicolon or the tab separates,
whichever makes the header name a text. A bad record is reported and the next one read, unless nobody can
say where that begins.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from node.index.documents import OVERRIDES
from node.index.parsing.complaints import Complaint, ParseFailure
from node.index.parsing.formats import BadRow, RawDocument, clean, paragraphs
from node.index.parsing.limits import ParseLimits

_MOST_COLUMNS = 1000


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """A document per record; its number, the header's being 1 as in a spreadsheet, is its row."""
    csv.field_size_limit(limits.row_bytes)
    lines = _Lines(file, limits.row_bytes)
    header, delimiter = _header(next(lines, "").removeprefix("\ufeff"))
    if lines.damaged:
        raise ParseFailure(Complaint.COLUMNS)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    row = 1
    while True:
        row += 1
        lines.begin_record()
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error:
            yield BadRow(row, Complaint.ROW_SYNTAX)
            continue
        if not record:
            continue  # an empty line
        if lines.damaged:
            yield BadRow(row, Complaint.ROW_SYNTAX)
        elif len(record) != len(header):
            yield BadRow(row, Complaint.ROW_COLUMNS)
        else:
            said: dict[str, object] = {n: v for n, v in zip(header, record, strict=True) if n in OVERRIDES}
            text = record[header.index("text")]
            yield RawDocument(row, paragraphs(clean(text)), said)


class _Lines(Iterator[str]):
    """Lines of UTF-8, each and each record of bounded length. `damaged`: some of the record was not UTF-8."""

    def __init__(self, file: BinaryIO, longest: int) -> None:
        self._file, self._longest = file, longest
        self.begin_record()

    def begin_record(self) -> None:
        self.damaged = False
        self._bytes = 0

    def __next__(self) -> str:
        line = self._file.readline(self._longest + 1)
        if not line:
            raise StopIteration
        self._bytes += len(line)
        if self._bytes > self._longest:
            # An open quote may be why: what follows could be anything.
            raise ParseFailure(Complaint.ROW_SIZE)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            # Read on in step: where the record ends is known, only what it says is not.
            self.damaged = True
            return line.decode("utf-8", "replace")


def _header(line: str) -> tuple[list[str], str]:
    """The columns' names and what separates them."""
    for delimiter in ",;\t":
        try:
            names = [
                name.strip().lower()
                for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])
            ]
        except csv.Error:
            continue
        if "text" in names:
            known = [name for name in names if name == "text" or name in OVERRIDES]
            if len(set(known)) == len(known) and len(names) <= _MOST_COLUMNS:
                return names, delimiter
    raise ParseFailure(Complaint.COLUMNS)
