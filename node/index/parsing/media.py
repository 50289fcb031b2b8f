"""What kind of file it is: the name says so, and the first bytes must agree.

Nothing is guessed from content: a file that looks like another kind than its name says is not read, so
that nobody chooses a parser by surprise. Pure.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from node.index.parsing.complaints import Complaint

TEXT: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
HTML: Final = "text/html"
PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
JSONL: Final = "application/jsonl"
CSV: Final = "text/csv"

STREAMED = frozenset({JSONL, CSV})  # many documents, read one by one
MEDIA = frozenset({TEXT, MARKDOWN, HTML, PDF, DOCX, JSONL, CSV})

_BY_EXTENSION = {
    ".txt": TEXT, ".text": TEXT, ".log": TEXT, ".rst": TEXT, ".md": MARKDOWN, ".markdown": MARKDOWN,
    ".html": HTML, ".htm": HTML, ".xhtml": HTML, ".pdf": PDF, ".docx": DOCX,
    ".jsonl": JSONL, ".ndjson": JSONL, ".csv": CSV, ".tsv": CSV,
}  # fmt: skip

HEAD_BYTES = 1024

# How well-known kinds of file begin that are no text, whatever they are called.
_BINARY = (
    b"%PDF-", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf", b"Rar!",
    b"\x28\xb5\x2f\xfd", b"\x7fELF", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"\xd0\xcf\x11\xe0", b"{\\rtf",
    b"SQLite format 3\x00",
)  # fmt: skip


def media_of(name: str) -> str:
    """The media type that a file's name says. Raises DOCUMENT_UNREADABLE if it says none."""
    found = _BY_EXTENSION.get(PurePath(name).suffix.lower())
    if found is None:
        raise Complaint.UNKNOWN_KIND.error()
    return found


def agrees(media: str, head: bytes) -> bool:
    """Whether a file that begins with `head` (HEAD_BYTES, or all) can be of that type."""
    if media == PDF:
        return b"%PDF-" in head  # its specification lets other bytes stand before
    if media == DOCX:
        return head.startswith(b"PK\x03\x04")
    return not head.startswith(_BINARY)
