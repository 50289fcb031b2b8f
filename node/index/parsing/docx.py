"""DOCX: headings, paragraphs and table rows of the document's body, in order.

The package is checked before python-docx sees it: what it says it unpacks to, what it does unpack to, and
that no part of it declares XML entities. Headers, footers, notes, comments and deleted text are not read.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from docx import Document
from docx.oxml.ns import qn

from node.index.documents import MAX_HEADING_LEVEL, Block
from node.index.parsing.complaints import Complaint, ParseFailure
from node.index.parsing.formats import BadRow, RawDocument, blocks, one_line, read_all
from node.index.parsing.limits import ParseLimits

_PIECE = 1 << 16
_SMALL = 1 << 20  # a member of so many bytes may be packed as well as it likes
_ENCRYPTED = 0x1
_DECLARATIONS = tuple(
    word.encode(encoding)
    for word in ("<!DOCTYPE", "<!ENTITY")
    for encoding in ("utf-8", "utf-16le", "utf-16be")
)
_P, _TBL, _TR, _TC, _T = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc"), qn("w:t")
_BREAKS = {qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:tab"): " ", qn("w:noBreakHyphen"): "-", _P: "\n"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # says it a second time
_STYLE_ANCESTORS = 10


def parse(file: BinaryIO, limits: ParseLimits) -> Iterator[RawDocument | BadRow]:
    """One document, with the title that its properties state."""
    data = read_all(file, limits)
    try:
        check_package(data, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError):
        raise ParseFailure(Complaint.BROKEN) from None
    document = Document(io.BytesIO(data))
    hints = {"title": document.core_properties.title or ""}
    yield RawDocument(0, _walk(document.element.body, _heading_levels(document)), hints=hints)


def check_package(data: bytes, limits: ParseLimits) -> None:
    """Raises ParseFailure, or what zipfile raises, unless the package unpacks to what is allowed."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        members = package.infolist()
        names = {member.filename for member in members}
        if "[Content_Types].xml" not in names:
            raise ParseFailure(Complaint.WRONG_KIND)
        if len(names) != len(members):
            raise ParseFailure(Complaint.BROKEN)  # one name, two contents: tools would differ on which
        if len(members) > limits.members or sum(m.file_size for m in members) > limits.inflated_bytes:
            raise ParseFailure(Complaint.INFLATES)
        for member in members:
            if member.flag_bits & _ENCRYPTED:
                raise ParseFailure(Complaint.ENCRYPTED)
            if member.file_size > max(_SMALL, limits.inflated_ratio * member.compress_size):
                raise ParseFailure(Complaint.INFLATES)
        left = limits.inflated_bytes
        for member in members:
            left -= _inflate(package, member, left)


def _inflate(package: zipfile.ZipFile, member: zipfile.ZipInfo, left: int) -> int:
    """Unpacks a member for its true size and its checksum; raises ParseFailure past `left` bytes."""
    size, tail = 0, b""
    is_xml = member.filename.lower().endswith((".xml", ".rels"))
    with package.open(member) as inside:
        while piece := inside.read(_PIECE):
            size += len(piece)
            if size > left:
                raise ParseFailure(Complaint.INFLATES)
            seen = tail + piece  # a word may lie across two pieces
            if is_xml and any(word in seen for word in _DECLARATIONS):
                raise ParseFailure(Complaint.BROKEN)
            tail = piece[-32:]
    return size


def _heading_levels(document: Any) -> dict[str, int]:
    """Style ids that are headings, and those made from them, with their levels."""
    levels = {}
    for style in document.styles:
        ancestor = style
        for _ in range(_STYLE_ANCESTORS):
            name = (getattr(ancestor, "name", None) or "").lower()
            kind, _, number = name.partition(" ")
            if name == "title" or (kind == "heading" and number.isdecimal()):
                levels[style.style_id] = min(int(number or 1), MAX_HEADING_LEVEL) or 1
                break
            ancestor = getattr(ancestor, "base_style", None)
            if ancestor is None:
                break
    return levels


def _walk(parent: Any, levels: dict[str, int]) -> Iterator[Block]:
    # Recursion is safe here: libxml2 refuses XML deeper than 256.
    for child in parent:
        if child.tag == _P:
            level = levels.get(child.style or "", 0)
            text = _words(child)
            yield from blocks("heading", one_line(text), level) if level else blocks("paragraph", text)
        elif child.tag == _TBL:
            for row in child.iter(_TR):
                cells = (
                    one_line(_words(cell)) for cell in row.iter(_TC) if next(cell.iterancestors(_TR)) is row
                )
                yield from blocks("row", "\t".join(cells))
        elif isinstance(child.tag, str) and child.tag != _FALLBACK:
            yield from _walk(child, levels)  # content controls, insertions and the like


def _words(root: Any) -> str:
    """All text below, a text box's included, but not a nested table's rows, which come by themselves."""
    parts = []
    waiting = list(reversed(root))
    while waiting:
        node = waiting.pop()
        if node.tag == _T:
            parts.append(node.text or "")
        elif node.tag in _BREAKS:
            parts.append(_BREAKS[node.tag])
        if node.tag not in (_T, _TBL, _FALLBACK):
            waiting += reversed(node)
    return "".join(parts)
