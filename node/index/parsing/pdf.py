"""PDF: the words of each page, in the order in which the file has them.

Attachments, forms, scripts and outlines are not looked at, and images are not read: a scan has no text.
pypdf bounds what a stream may unpack to; those bounds are tightened here, and the worker's own are below
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from pypdf import PasswordType, PdfReader, apply_configuration
from pypdf.errors import LimitReachedError

from node.index.documents import Block
from node.index.parsing.complaints import Complaint, ParseFailure
from node.index.parsing.formats import BadRow, RawDocument, blocks, clean, one_line
from node.index.parsing.limits import ParseLimits

_STREAM_BYTES = 32 << 20  # what one stream may unpack to


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """One document, with the title that it states."""
    with apply_configuration(
        zlib_maximum_output_length=_STREAM_BYTES,
        lzw_maximum_output_length=_STREAM_BYTES,
        run_length_maximum_output_length=_STREAM_BYTES,
        array_based_stream_maximum_output_length=_STREAM_BYTES,
        brotli_maximum_output_length=_STREAM_BYTES,
        stream_filters_maximum_length=4,
        page_tree_maximum_entries=4 * limits.pages,
        jbig2dec_binary=None,  # no other program
        disable_legacy_handling=True,
    ):
        try:
            reader = PdfReader(file)
            # Many files forbid printing, with an empty password for reading.
            if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
                raise ParseFailure(Complaint.ENCRYPTED)
        except LimitReachedError:
            raise ParseFailure(Complaint.INFLATES) from None
        hints: dict[str, str] = {}
        yield RawDocument(0, _blocks(reader, limits, hints), hints=hints)


def _blocks(reader: Any, limits: ParseLimits, hints: dict[str, str]) -> Iterator[Block]:
    try:
        yield from _pages(reader, limits, hints)
    except LimitReachedError:
        raise ParseFailure(Complaint.INFLATES) from None


def _pages(reader: Any, limits: ParseLimits, hints: dict[str, str]) -> Iterator[Block]:
    if len(reader.pages) > limits.pages:
        raise ParseFailure(Complaint.PAGES)
    if isinstance(title := reader.metadata and reader.metadata.title, str):
        hints["title"] = title[:2000]
    for page in reader.pages:
        lines: list[str] = []
        for line in (*clean(page.extract_text()).split("\n"), ""):
            if line.strip():
                lines.append(line)
            elif lines:
                yield from blocks("paragraph", one_line(" ".join(lines)))
                lines = []
