"""Cuts a document into chunks along its structure.

The rules, in order of weight:
- every chunk has at most `max_tokens` tokens, as the caller's counter counts its whole text;
- without overlap, the chunks one after another are the document's text, but for white space: nothing is
  lost, nothing comes twice, and nothing is added, headings included (what is released is the document's
  own words);
- a heading begins a chunk, unless the chunk before it would hold headings alone;
- a block that fits into a chunk is not cut; one that does not is cut at the ends of sentences, a
  sentence at the ends of words, a word anywhere.
Time is that of the counter; for a large document that is seconds, so call it from a thread.

The same document gives the same chunks. Pure: what a token is, the caller's counter says. It is given
many texts at once, and need not be additive: what it says of a finished chunk is what counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import chain, islice

from mesh.core.errors import MeshError, Reason
from node.index.documents import MAX_HEADING_LEVEL, Block, DocumentMeta, ParsedDocument

CountTokens = Callable[[Sequence[str]], Sequence[int]]

MAX_CHUNKS = 100_000
_MAX_PIECES = 20 * MAX_CHUNKS  # what chunks are put together from, all at once in memory
MIN_TOKENS = 8  # so that any one character fits, with the marks that tokenizers put around a text
# Text has four or five characters per token; one with more than this is no prose, and its tokens are no
# measure of its size (a tokenizer may call a thousand letters in a row one unknown token).
CHARACTERS_PER_TOKEN = 16
HEADING_SHOWN = 256  # characters of a heading that are repeated as where a chunk stands

# A full stop of any script with the brackets that close behind it, or a blank line.
_SENTENCE_END = re.compile(
    "[.!?\u2026][\"')\\]\u201d\u2019\u00bb]*\\s|[\u3002\uff01\uff1f][\"')\\]\u201d\u300d\u300f]*|\\n\\s*\\n"
)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class ChunkText:
    """A piece of a document: its number from 0, its text, and the headings above it, outermost first
    (each cut to 256 characters)."""

    ordinal: int
    text: str
    headings: tuple[str, ...]


class _Cut(IntEnum):
    """How finely a block has been cut."""

    BLOCK = 0
    SENTENCE = 1
    RUN = 2  # some words: few enough to fill a chunk well, many enough not to count each alone
    WORD = 3
    CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class _Piece:
    """Characters `start` to `end` of a block. `tokens` when it stands alone; -1: not counted yet."""

    block: int
    start: int
    end: int
    cut: _Cut
    tokens: int = -1


def chunk(
    document: ParsedDocument, count_tokens: CountTokens, max_tokens: int, overlap: int = 0
) -> list[ChunkText]:
    """The document's chunks, in order; none if it has no text.

    With `overlap`, a chunk that does not begin with a heading begins with up to so many tokens (whole
    words) from the end of the one before. `overlap` is less than half of `max_tokens` and leaves 8 of
    them.
    Raises DOCUMENT_TOO_LARGE past 100,000 chunks, ValueError for impossible sizes.
    """
    if max_tokens - overlap < MIN_TOKENS or not 0 <= overlap * 2 < max_tokens:
        raise ValueError("expected 8 tokens a chunk besides the overlap, and more of them than that")
    work = _Chunking(document.blocks, count_tokens, max_tokens - overlap)
    groups = work.fitted(work.packed(work.pieces()))
    if len(groups) > MAX_CHUNKS:
        raise _too_many()
    texts = [work.text(group) for group in groups]
    if overlap:
        texts = _with_overlap(texts, work.begin_with_heading(groups), count_tokens, max_tokens, overlap)
    return [
        ChunkText(ordinal, text, headings)
        for ordinal, (text, headings) in enumerate(zip(texts, work.headings(groups), strict=True))
    ]


def content_hash(document: ParsedDocument) -> str:
    """ "sha256:<hex>" over metadata and text: two documents that have the same are the same."""
    digest = hashlib.sha256(b"sovereign-mesh/v1/document\x00")
    meta = {f.name: getattr(document.meta, f.name) for f in fields(DocumentMeta)}
    meta["classes"] = sorted(document.meta.classes)
    meta["retain_until"] = document.meta.retain_until.isoformat() if document.meta.retain_until else ""
    digest.update(json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
    for block in document.blocks:
        text = block.text.encode()
        digest.update(f"\x00{block.kind}{block.level}:{len(text)}:".encode() + text)
    return f"sha256:{digest.hexdigest()}"


class _Chunking:
    """One document being cut. A group is the pieces of one chunk, in order."""

    def __init__(self, blocks: Sequence[Block], count_tokens: CountTokens, room: int) -> None:
        self._blocks, self._count, self._room = blocks, count_tokens, room
        self._characters = room * CHARACTERS_PER_TOKEN
        self._marks = count_tokens([""])[0]  # what a text costs before its first word

    def pieces(self) -> list[_Piece]:
        """The blocks, cut until each piece fits on its own."""
        done: list[_Piece] = []
        open_pieces: list[_Piece] = []
        for number, block in enumerate(self._blocks):
            piece = self._trimmed(number, 0, len(block.text), _Cut.BLOCK)
            if piece is not None:
                open_pieces.append(piece)
        while open_pieces:
            small = [p for p in open_pieces if p.end - p.start <= self._characters]
            counts = self._count([self._blocks[p.block].text[p.start : p.end] for p in small])
            finer = [p for p in open_pieces if p.end - p.start > self._characters]
            for piece, tokens in zip(small, counts, strict=True):
                if tokens <= self._room:
                    done.append(_Piece(piece.block, piece.start, piece.end, piece.cut, tokens))
                else:
                    finer.append(piece)
            open_pieces = []
            for piece in finer:
                for smaller in self._cut(piece):
                    open_pieces.append(smaller)
                    if len(done) + len(open_pieces) > _MAX_PIECES:
                        raise _too_many()
        return sorted(done, key=lambda p: (p.block, p.start))

    def packed(self, pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces into groups, each as full as the sum of its pieces lets it be."""
        group: list[_Piece] = []
        tokens = characters = 0
        headings_alone = True
        for piece in pieces:
            more, longer = piece.tokens - self._marks, piece.end - piece.start
            goes_on = bool(group) and group[-1].block == piece.block
            if goes_on:
                longer = piece.end - group[-1].end  # with the white space between
            full = tokens + more + self._marks > self._room or characters + longer > self._characters
            begins = self._is_heading(piece) and not goes_on and not headings_alone
            if group and (full or begins):
                yield group
                group, tokens, characters, headings_alone = [], 0, 0, True
            group.append(piece)
            tokens, characters = tokens + more, characters + longer
            headings_alone = headings_alone and self._is_heading(piece)
        if group:
            yield group

    def fitted(self, groups: Iterator[list[_Piece]]) -> list[list[_Piece]]:
        """The groups, halved where the counter says of the whole what it did not say of the parts."""
        waiting, fitting = list(groups), []
        while waiting:
            counts = self._count([self.text(group) for group in waiting])
            halves = []
            for group, tokens in zip(waiting, counts, strict=True):
                if tokens <= self._room or len(group) == 1:
                    fitting.append(group)
                else:
                    halves += [group[: len(group) // 2], group[len(group) // 2 :]]
            waiting = halves
        return sorted(fitting, key=lambda group: (group[0].block, group[0].start))

    def text(self, group: Sequence[_Piece]) -> str:
        """The group's text: as it stands within a block, with a blank line between blocks."""
        parts: list[str] = []
        at = 0
        while at < len(group):
            first = last = group[at]
            while at < len(group) and group[at].block == first.block:
                last = group[at]
                at += 1
            block = self._blocks[first.block]
            if parts:
                rows = block.kind == self._blocks[first.block - 1].kind == "row"
                parts.append("\n" if rows else "\n\n")
            parts.append(block.text[first.start : last.end])
        return "".join(parts)

    def begin_with_heading(self, groups: Sequence[Sequence[_Piece]]) -> list[bool]:
        """For each group, whether it begins with the start of a heading."""
        before = [-1, *(group[-1].block for group in groups)]
        return [
            self._is_heading(group[0]) and group[0].block != last
            for group, last in zip(groups, before, strict=False)
        ]

    def headings(self, groups: Sequence[Sequence[_Piece]]) -> Iterator[tuple[str, ...]]:
        """For each group, the headings above its last piece, its own among them."""
        path = [""] * MAX_HEADING_LEVEL
        seen = 0
        for group in groups:
            for block in self._blocks[seen : group[-1].block + 1]:
                if block.kind == "heading":
                    shown = " ".join(block.text[: 4 * HEADING_SHOWN].split())[:HEADING_SHOWN]
                    path[block.level - 1 :] = [shown] + [""] * (MAX_HEADING_LEVEL - block.level)
            seen = group[-1].block + 1
            yield tuple(filter(None, path))

    def _is_heading(self, piece: _Piece) -> bool:
        return self._blocks[piece.block].kind == "heading"

    def _trimmed(self, block: int, start: int, end: int, cut: _Cut) -> _Piece | None:
        """The piece without white space around it; None if nothing is left."""
        text = self._blocks[block].text[start:end]
        left = len(text) - len(text.lstrip())
        kept = len(text.strip())
        return _Piece(block, start + left, start + left + kept, cut) if kept else None

    def _cut(self, piece: _Piece) -> Iterator[_Piece]:
        text = self._blocks[piece.block].text[piece.start : piece.end]
        ends: Iterator[int]
        cut = _Cut(min(piece.cut + 1, _Cut.CHARACTERS))
        if cut is _Cut.SENTENCE:
            ends = (found.end() for found in _SENTENCE_END.finditer(text))
        elif cut is _Cut.RUN or cut is _Cut.WORD:
            words = max(1, self._room // 8) if cut is _Cut.RUN else 1
            ends = (found.end() for found in islice(_WORD.finditer(text), words - 1, None, words))
        elif len(text) == 1:
            raise ValueError("the counter says that one character is more than a chunk")
        else:
            step = min(self._characters, (len(text) + 1) // 2)
            ends = iter(range(step, len(text), step))
        start = 0
        for end in chain(ends, (len(text),)):
            smaller = self._trimmed(piece.block, piece.start + start, piece.start + end, cut)
            if smaller is not None:
                yield smaller
            start = end


def _with_overlap(
    texts: Sequence[str], fresh: Sequence[bool], count: CountTokens, max_tokens: int, overlap: int
) -> list[str]:
    """The texts, each but a fresh one with words from the end of the one before in front of it."""
    tails = [_tail_words(text, overlap) for text in texts[:-1]]
    marks = count([""])[0]
    kept: list[str] = list(texts[:1])
    for text, words, is_fresh in zip(texts[1:], tails, fresh[1:], strict=True):
        # Marks are counted once for the whole chunk, so they are not the overlap's.
        while words and not is_fresh:
            joined = " ".join((*words, text))
            alone, whole = count([" ".join(words), joined])
            if alone - marks <= overlap and whole <= max_tokens:
                text = joined
                break
            words = words[(len(words) + 1) // 2 :]
        kept.append(text)
    return kept


def _tail_words(text: str, at_most: int) -> list[str]:
    """The last words; a word has a token at least, so no more of them can be wanted."""
    return text[-at_most * CHARACTERS_PER_TOKEN :].split()[1:][-at_most:]


def _too_many() -> MeshError:
    return MeshError(Reason.DOCUMENT_TOO_LARGE, f"expected a document of at most {MAX_CHUNKS} chunks")
