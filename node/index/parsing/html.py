"""HTML: the words that a reader sees, in blocks as a browser would set them.

Scripts, styles, navigation and what is embedded from elsewhere are dropped, and nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag

from node.index.documents import Block
from node.index.parsing.formats import BadRow, RawDocument, blocks, decode, one_line, read_all
from node.index.parsing.limits import ParseLimits

_DROPPED = frozenset({
    "script", "style", "nav", "template", "noscript", "head", "iframe", "object", "embed", "svg", "canvas",
    "audio", "video", "select", "button",
})  # fmt: skip
_SET_APART = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li", "main",
    "ol", "p", "section", "summary", "table", "tbody", "tfoot", "thead", "ul",
})  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}

_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s{0,8}=\s{0,8}[\"']?([A-Za-z0-9_-]{1,20})", re.IGNORECASE)
# Encodings that browsers know too and that are nothing but character sets. To a browser, Latin-1 is
# Windows' superset of it.
_ENCODINGS = {"iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252"} | {
    name: name
    for name in (
        *(f"windows-125{digit}" for digit in range(9)),
        *(f"iso-8859-{part}" for part in (2, 5, 7, 9, 13, 15)),
        "koi8-r", "koi8-u", "shift_jis", "euc-jp", "euc-kr", "gbk", "gb2312", "gb18030", "big5",
    )
}  # fmt: skip


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """One document, with the title and the language that its head names."""
    data = read_all(file, limits)
    declared = _DECLARED.search(data, 0, 4096)
    name = declared[1].decode("ascii").lower() if declared else ""
    hints: dict[str, str] = {}
    yield RawDocument(0, blocks_of(decode(data, _ENCODINGS.get(name, "utf-8")), hints), hints=hints)


def blocks_of(markup: str, hints: dict[str, str]) -> Iterator[Block]:
    """The blocks of a page or a part of one; notes the title and the language it states."""
    soup = BeautifulSoup(markup, "lxml")
    if soup.title is not None:
        hints["title"] = soup.title.get_text()[:2000]
    if soup.html is not None and isinstance(language := soup.html.get("lang"), str):
        hints["language"] = language.strip()
    return _walk(soup)


def _walk(root: Tag) -> Iterator[Block]:
    # A loop, not recursion: depth is the author's choice.
    parts: list[str] = []
    level = rows = code = 0
    open_tags: list[tuple[Tag, Iterator[object]]] = [(root, iter(root.children))]

    def flush() -> Iterator[Block]:
        text = "".join(parts)
        parts.clear()
        if rows:
            yield from blocks("row", "\t".join(one_line(cell) for cell in text.split("\t")))
        elif code:
            yield from blocks("code", text)
        elif level:
            yield from blocks("heading", one_line(text), level)
        else:
            yield from blocks("paragraph", one_line(text))

    while open_tags:
        tag, children = open_tags[-1]
        node = next(children, None)
        entering = isinstance(node, Tag)
        if node is not None and not isinstance(node, Tag):
            if type(node) is NavigableString:  # comments and the like are subclasses
                parts.append(str(node) if code and not rows else node.replace("\t", " "))
            continue
        if isinstance(node, Tag):
            if node.name in _DROPPED:
                continue
            tag = node
        name, step = tag.name, 1 if entering else -1
        if name == "tr" or (not rows and (name in _HEADINGS or name == "pre" or name in _SET_APART)):
            yield from flush()
        elif rows and name in ("td", "th"):
            parts.append("\t" if entering else " ")
        elif name == "br" or name in _SET_APART or name in _HEADINGS:
            parts.append("\n")
        if name == "tr":
            rows += step
        elif name == "pre":
            code += step
        elif name in _HEADINGS:
            level = _HEADINGS[name] if entering else 0
        if entering:
            open_tags.append((tag, iter(tag.children)))
        else:
            open_tags.pop()
    yield from flush()
