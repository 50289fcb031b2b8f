"""What the parsers of all formats give, and how they read text.

The rule for text files: the byte order mark says UTF-8 or UTF-16, without one it is UTF-8 (HTML may
declare another). NUL characters are removed and what cannot be decoded becomes U+FFFD, as long as both
together are at most 1 % of the characters; above that it is no text. JSONL and CSV must be UTF-8 without
damage, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from node.index.documents import MAX_HEADING_LEVEL, UNWANTED, Block, BlockKind
from node.index.parsing.complaints import Complaint, ParseFailure
from node.index.parsing.limits import BLOCK_CHARACTERS, ParseLimits

_DAMAGE = 100  # one character in so many
_LONGEST_HEADING = 1000  # what is longer is no heading, whatever the author called it
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_SPACES = re.compile(r"\s+")


@dataclass(slots=True)
class RawDocument:
    """A document as its file has it. `row` is its line or record, from 1; 0 if it is the whole file.

    `blocks` is read once; `overrides` and `hints` (see node.index.documents.meta_with) hold after that.
    """

    row: int
    blocks: Iterable[Block]
    overrides: dict[str, object] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read; those after it can."""

    row: int
    complaint: Complaint


Parser = Callable[[BinaryIO, ParseLimits], Iterator[RawDocument | BadRow]]


def read_all(file: BinaryIO, limits: ParseLimits) -> bytes:
    """The bytes of a file that is one document."""
    data = file.read(limits.file_bytes + 1)
    if len(data) > limits.file_bytes:  # it has grown since somebody looked
        raise ParseFailure(Complaint.FILE_SIZE)
    return data


def decode(data: bytes, declared: str = "utf-8") -> str:
    """Bytes to text by the rule above, with line ends as line feeds; raises ParseFailure."""
    encoding = declared
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data.startswith(b"\xef\xbb\xbf"):
        encoding, data = "utf-8", data[3:]
    try:
        text, damaged = data.decode(encoding), 0
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        damaged = text.count("\ufffd")
        if encoding == "utf-8":
            damaged -= data.count(b"\xef\xbf\xbd")  # those were there before
    damaged += text.count("\x00")
    if damaged * _DAMAGE > len(text):
        raise ParseFailure(Complaint.ENCODING)
    return clean(text)


def clean(text: str) -> str:
    """The text without what no document contains (documents.UNWANTED)."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return UNWANTED.sub(_instead, text) if UNWANTED.search(text) else text


def _instead(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\x0b\x0c\r":
        return "\n"
    return "\ufffd" if "\ud800" <= character <= "\udfff" else ""


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return _SPACES.sub(" ", text).strip()


def blocks(kind: BlockKind, text: str, level: int = 0) -> Iterator[Block]:
    """The text as a block; none if it is empty, several if it is too long for one."""
    text = clean(text).strip()
    if kind == "heading" and len(text) > _LONGEST_HEADING:
        kind, level = "paragraph", 0
    while len(text) > BLOCK_CHARACTERS:
        space = max(text.rfind(" ", 1, BLOCK_CHARACTERS), text.rfind("\n", 1, BLOCK_CHARACTERS))
        end = space if space > 0 else BLOCK_CHARACTERS
        if piece := text[:end].strip():
            yield Block(kind, level, piece)
        text = text[end:].lstrip()
    if text:
        yield Block(kind, min(level, MAX_HEADING_LEVEL), text)


def paragraphs(text: str) -> Iterator[Block]:
    """Plain text, cut at blank lines."""
    start = 0
    for found in _BLANK_LINE.finditer(text):
        yield from blocks("paragraph", text[start : found.start()])
        start = found.end()
    yield from blocks("paragraph", text[start:])
