"""Markdown (CommonMark and tables): front matter, then its blocks without the marks.

What a link points to is not text, what it says is. Embedded HTML is read as HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from markdown_it import MarkdownIt
from markdown_it.token import Token

from node.index.documents import Block
from node.index.parsing import html
from node.index.parsing.formats import BadRow, RawDocument, blocks, decode, one_line, read_all
from node.index.parsing.front_matter import split
from node.index.parsing.limits import ParseLimits

_DEPTH = 100  # what is quoted or listed deeper than this is dropped by the library


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """One document. Its first heading of level 1 is its title."""
    overrides, text = split(decode(read_all(file, limits)))
    hints: dict[str, str] = {}
    yield RawDocument(0, _blocks(text, hints), overrides, hints)


def _blocks(text: str, hints: dict[str, str]) -> Iterator[Block]:
    level = 0
    cells: list[str] | None = None
    for token in MarkdownIt("commonmark", {"maxNesting": _DEPTH}).enable("table").parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1:])
        elif token.type == "heading_close":
            level = 0
        elif token.type == "tr_open":
            cells = []
        elif token.type == "tr_close" and cells is not None:
            yield from blocks("row", "\t".join(cells))
            cells = None
        elif token.type == "inline":
            words = one_line(_words(token.children or ()))
            if cells is not None:
                cells.append(words)
            elif level:
                if level == 1:
                    hints.setdefault("title", words)
                yield from blocks("heading", words, level)
            else:
                yield from blocks("paragraph", words)
        elif token.type in ("fence", "code_block"):
            yield from blocks("code", token.content)
        elif token.type == "html_block":
            yield from html.blocks_of(token.content, {})


def _words(tokens: Sequence[Token]) -> str:
    parts = []
    for token in tokens:
        if token.type in ("text", "code_inline", "image"):  # of an image, the words in its stead
            parts.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)
