"""Why a file, or a row of it, cannot be read.

A worker names one of these and nothing else: a sentence of its own might repeat what it read (I1), or
be the work of a file that took it over.
"""

from __future__ import annotations

from enum import Enum

from mesh.core.errors import MeshError, Reason

_UNREADABLE, _TOO_LARGE, _INVALID = (
    Reason.DOCUMENT_UNREADABLE,
    Reason.DOCUMENT_TOO_LARGE,
    Reason.DOCUMENT_INVALID,
)


class Complaint(Enum):
    """A reason and what was expected."""

    UNKNOWN_KIND = (_UNREADABLE, "expected text, Markdown, HTML, PDF, DOCX, JSONL or CSV, by its extension")
    NOT_A_FILE = (_UNREADABLE, "expected a file that can be opened")
    WRONG_KIND = (_UNREADABLE, "its content is not of the kind that its name says")
    BROKEN = (_UNREADABLE, "expected a well-formed file of its kind")
    ENCRYPTED = (_UNREADABLE, "expected a file that opens without a password")
    ENCODING = (_UNREADABLE, "expected UTF-8 or UTF-16 text with at most 1 % of it damaged")
    NO_TEXT = (_UNREADABLE, "there is no text in it")
    GAVE_UP = (_UNREADABLE, "reading it ended the parser")
    TOO_SLOW = (_UNREADABLE, "reading it takes longer than is allowed")
    FILE_SIZE = (_TOO_LARGE, "the file is larger than is allowed for its kind")
    MEMORY = (_TOO_LARGE, "reading it takes more memory than is allowed")
    INFLATES = (_TOO_LARGE, "it unpacks to more than is allowed")
    TEXT_SIZE = (_TOO_LARGE, "it has more text than is allowed")
    BLOCKS = (_TOO_LARGE, "it has more paragraphs than are allowed")
    PAGES = (_TOO_LARGE, "it has more pages than are allowed")
    ROWS = (_TOO_LARGE, "it has more rows than are allowed")
    ROW_SIZE = (_TOO_LARGE, "the row is longer than is allowed")
    ROW_SYNTAX = (_UNREADABLE, "expected a row in UTF-8 of the file's own format")
    ROW_COLUMNS = (_INVALID, "expected as many columns as the header names, or an object with a text")
    COLUMNS = (_INVALID, "expected a header that names a text column, and no column twice")
    METADATA = (_INVALID, "expected metadata of at most 16 KiB")
    FRONT_MATTER = (_INVALID, "front matter: expected YAML with a string, or strings, for each key, once")

    def error(self) -> MeshError:
        """The refusal."""
        reason, message = self.value
        return MeshError(reason, message)


class ParseFailure(Exception):
    """The file, or what is left of it, cannot be read."""

    def __init__(self, complaint: Complaint) -> None:
        super().__init__(complaint.name)
        self.complaint = complaint
