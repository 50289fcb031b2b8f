"""What a document is: its metadata, and its text as a row of blocks.

Metadata decides who may find a document, so it is strict: what is malformed is refused, and a file
can only say what its sender may say (`MetaDefaults.locked`). An empty value in a file says nothing; it
falls back to the default and so never widens. Errors name the field and never repeat its value (I1).
Pure: it knows nothing of formats, files or processes.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from mesh.core.errors import MeshError, Reason
from mesh.core.text import printable
from mesh.core.types import MAX_DATA_CLASSES, DataClass, parse_data_class

MAX_ID, MAX_TITLE, MAX_SOURCE, MAX_OWNER, MAX_LANGUAGE, MAX_TENANT = 256, 512, 1024, 128, 35, 128

# The shape of BCP 47, not its registry: a primary subtag of 2 to 8 letters, then others of 1 to 8.
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

OVERRIDES = frozenset({"id", "title", "source", "classes", "owner", "language", "retain_until", "tenant"})

BlockKind = Literal["heading", "paragraph", "row", "code"]
BLOCK_KINDS: frozenset[str] = frozenset(get_args(BlockKind))
MAX_HEADING_LEVEL = 6

# What no text of a document contains: control characters but tab and line feed, halves of surrogate
# pairs, and the two characters that XML and JSON tools stumble over.
UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class DocumentMeta:
    """What is known of a document. Lengths in characters; from `retain_until` on it is not kept.

    Raises DOCUMENT_INVALID, naming the field.
    """

    id: str
    title: str = ""
    source: str = ""
    classes: frozenset[DataClass] = frozenset()
    owner: str = ""
    language: str = ""
    retain_until: datetime.date | None = None
    tenant: str = ""

    def __post_init__(self) -> None:
        _check_text("id", self.id, MAX_ID)
        if not self.id:
            raise _invalid("id", f"1 to {MAX_ID} printable characters")
        if not 1 <= len(self.classes) <= MAX_DATA_CLASSES:
            raise _invalid("classes", "at least one data class")
        _check_optional(self)


@dataclass(frozen=True, slots=True)
class MetaDefaults:
    """What holds where a file says nothing. Fields in `locked` a file may repeat but not change.

    `id` names the file; rows of JSONL and CSV that name none are called "<id>#<row>".
    Raises DOCUMENT_INVALID like DocumentMeta, but for what may still be missing: id and classes.
    """

    id: str = ""
    title: str = ""
    source: str = ""
    classes: frozenset[DataClass] = frozenset()
    owner: str = ""
    language: str = ""
    retain_until: datetime.date | None = None
    tenant: str = ""
    locked: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _check_text("id", self.id, MAX_ID)
        _check_optional(self)
        if not self.locked <= OVERRIDES:
            raise ValueError("only fields of the metadata can be locked")

    def for_row(self, row: int) -> MetaDefaults:
        """The same for one row of a file with many documents."""
        return replace(self, id=f"{self.id}#{row}") if self.id else self


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of text as the document's author set it apart. `level` is 1 to 6 for headings, else 0."""

    kind: BlockKind
    level: int
    text: str

    def __post_init__(self) -> None:
        if self.kind not in BLOCK_KINDS:
            raise ValueError("not a kind of block")
        if not (1 <= self.level <= MAX_HEADING_LEVEL if self.kind == "heading" else self.level == 0):
            raise ValueError("headings have a level of 1 to 6, all else has 0")


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document as it was read: nothing of its layout, all of its text, in order."""

    meta: DocumentMeta
    blocks: tuple[Block, ...]


def meta_with(
    defaults: MetaDefaults, overrides: Mapping[str, object], hints: Mapping[str, str] | None = None
) -> DocumentMeta:
    """The defaults, with what a file says of itself.

    `overrides` holds strings by field name, for "classes" a list of strings or one string separated by
    ";"; other keys are ignored, as are None and what is empty. `hints` ("title", "language") are what
    the format knows anyway: used where nobody said anything, dropped where malformed.
    Raises DOCUMENT_INVALID: a malformed value, or a locked field that would change.
    """
    said = {name: value for name in OVERRIDES if (value := _read(name, overrides.get(name))) is not None}
    for name in sorted(defaults.locked.intersection(said)):
        if said[name] != getattr(defaults, name):
            raise _invalid(name, "no other value than the one that was given for the whole upload")
    values: dict[str, object] = {f.name: getattr(defaults, f.name) for f in fields(DocumentMeta)}
    for name, value in _usable(hints or {}).items():
        if not values[name] and name not in defaults.locked:
            values[name] = value
    return DocumentMeta(**(values | said))  # type: ignore[arg-type] # each was read as its field's type


def _read(name: str, value: object) -> object | None:
    """The field's value, or None if nothing is said."""
    if value is None or value == "" or value == []:
        return None
    if name == "classes":
        return _read_classes(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        if name == "retain_until":
            return value
    elif isinstance(value, str):
        text = value.strip()
        if name == "title":
            text = " ".join(text.split())
        if name == "retain_until" and text:
            return _read_date(text)
        return text or None
    raise _invalid(name, "a string")


def _read_classes(value: object) -> frozenset[DataClass] | None:
    names: Iterable[object]
    if isinstance(value, str):
        names = value.split(";")
    elif isinstance(value, list | tuple | set | frozenset):
        names = value
    else:
        raise _invalid("classes", "data classes")
    found = set()
    for name in names:
        if not isinstance(name, str):
            raise _invalid("classes", "data classes")
        if name.strip():
            try:
                found.add(parse_data_class(name.strip()))
            except MeshError as error:
                raise _invalid("classes", error.message.removeprefix("expected ")) from None
    return frozenset(found) or None


def _read_date(text: str) -> datetime.date:
    if _DATE.fullmatch(text):
        try:
            return datetime.date.fromisoformat(text)
        except ValueError:
            pass
    raise _invalid("retain_until", "a date such as 2031-12-31")


def _usable(hints: Mapping[str, str]) -> dict[str, str]:
    usable = {}
    if title := " ".join(UNWANTED.sub(" ", hints.get("title", "")).split()):
        usable["title"] = " ".join(printable(title[:MAX_TITLE]).split())
    language = hints.get("language", "")
    if len(language) <= MAX_LANGUAGE and _LANGUAGE.fullmatch(language):
        usable["language"] = language
    return usable


def _check_optional(meta: DocumentMeta | MetaDefaults) -> None:
    _check_text("title", meta.title, MAX_TITLE)
    _check_text("source", meta.source, MAX_SOURCE)
    _check_text("owner", meta.owner, MAX_OWNER)
    _check_text("tenant", meta.tenant, MAX_TENANT)
    if not all(isinstance(c, DataClass) for c in meta.classes):
        raise _invalid("classes", "data classes")
    if meta.language and (len(meta.language) > MAX_LANGUAGE or not _LANGUAGE.fullmatch(meta.language)):
        raise _invalid("language", "a BCP 47 tag such as de or pt-BR")


def _check_text(name: str, value: str, longest: int) -> None:
    # People are shown it: it must not be able to drive their terminal.
    if len(value) > longest or not value.isprintable():
        raise _invalid(name, f"at most {longest} printable characters")


def _invalid(name: str, expected: str) -> MeshError:
    return MeshError(Reason.DOCUMENT_INVALID, f"{name}: expected {expected}")
