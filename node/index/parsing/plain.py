"""Plain text: front matter, then paragraphs with blank lines between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from node.index.parsing.formats import BadRow, RawDocument, decode, paragraphs, read_all
from node.index.parsing.front_matter import split
from node.index.parsing.limits import ParseLimits


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """One document."""
    overrides, text = split(decode(read_all(file, limits)))
    yield RawDocument(0, paragraphs(text), overrides)
