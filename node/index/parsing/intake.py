"""What a worker says, turned into documents, and trusted no more than the file was.

A worker may have been taken over by what it read. So every frame is checked for its place, its shape and
its size before anything is made of it; text must be as clean as documents are (documents.UNWANTED); and
what a file may say of itself is decided here, out of the worker's reach. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason
from node.index.documents import UNWANTED, Block, BlockKind, MetaDefaults, ParsedDocument, meta_with
from node.index.parsing.complaints import Complaint
from node.index.parsing.limits import BLOCK_CHARACTERS, ParseLimits

_HINTS = frozenset({"title", "language"})
_HINT_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not held, and why. `position` counts from 1, as formats do (jsonl.py, csv.py)."""

    position: int
    reason: MeshError


class Misbehaved(Exception):
    """A worker said what no worker says."""


class Intake:
    """One file's frames. `feed` each in order until `done`; then, or when it raises, that was all."""

    def __init__(self, defaults: MetaDefaults, streamed: bool, limits: ParseLimits) -> None:
        self._defaults, self._streamed, self._limits = defaults, streamed, limits
        self._row = 0
        self._rows = 0
        self._blocks: list[Block] | None = None  # of the document that is being told
        self._bytes = 0
        self.done = False

    def feed(self, frame: list[object]) -> ParsedDocument | Skipped | None:
        """What the frame completes. Raises the file's MeshError, or Misbehaved."""
        match frame:
            case ["document", int(row)] if self._blocks is None:
                self._next_row(row)
                self._blocks, self._bytes = [], 0
            case ["blocks", list(found)] if self._blocks is not None:
                self._take(self._blocks, found)
            case ["end", None | dict() as overrides, dict(hints)] if self._blocks is not None:
                return self._finish(overrides, hints)
            case ["bad", int(row), str(name)] if self._streamed and self._blocks is None:
                self._next_row(row)
                return Skipped(row, _complaint(name).error())
            case ["failed", str(name)]:
                raise _complaint(name).error()
            case ["done"] if self._blocks is None and (self._streamed or self._rows == 1):
                self.done = True
            case _:
                raise Misbehaved
        return None

    def _next_row(self, row: int) -> None:
        self._rows += 1
        if self._rows > (self._limits.rows if self._streamed else 1):
            raise Complaint.ROWS.error()
        if isinstance(row, bool) or not (self._row < row < 1 << 48 if self._streamed else row == 0):
            raise Misbehaved
        self._row = row

    def _take(self, blocks: list[Block], found: list[object]) -> None:
        if len(blocks) + len(found) > self._limits.blocks:
            raise Complaint.BLOCKS.error()
        for each in found:
            match each:
                case [str(kind), int(level), str(text)] if len(text) <= BLOCK_CHARACTERS:
                    if UNWANTED.search(text):
                        raise Misbehaved
                    self._bytes += len(text.encode())
                    blocks.append(_block(kind, level, text))
                case _:
                    raise Misbehaved
        if self._bytes > self._limits.text_bytes:
            raise Complaint.TEXT_SIZE.error()

    def _finish(
        self, overrides: dict[object, object] | None, hints: dict[object, object]
    ) -> ParsedDocument | Skipped:
        blocks, self._blocks = self._blocks or [], None
        try:
            if overrides is None:
                raise Complaint.METADATA.error()
            if not any(block.text.strip() for block in blocks):
                raise Complaint.NO_TEXT.error()
            defaults = self._defaults.for_row(self._row) if self._streamed else self._defaults
            named = {str(name): value for name, value in overrides.items()}
            return ParsedDocument(meta_with(defaults, named, _checked(hints)), tuple(blocks))
        except MeshError as error:
            if self._streamed and error.reason in (Reason.DOCUMENT_INVALID, Reason.DOCUMENT_UNREADABLE):
                return Skipped(self._row, error)
            raise


def _block(kind: str, level: int, text: str) -> Block:
    try:
        checked: BlockKind = kind  # type: ignore[assignment] # Block itself checks it
        return Block(checked, level, text)
    except ValueError:
        raise Misbehaved from None


def _checked(hints: Mapping[object, object]) -> dict[str, str]:
    checked = {}
    for name, value in hints.items():
        if name not in _HINTS or not isinstance(value, str) or len(value) > _HINT_CHARACTERS:
            raise Misbehaved
        checked[str(name)] = value
    return checked


def _complaint(name: str) -> Complaint:
    try:
        return Complaint[name]
    except KeyError:
        raise Misbehaved from None
