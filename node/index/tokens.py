"""How many tokens the default embedder makes of a text, so that chunks are cut to what it reads.

Counts what it would read, with the two marks it puts around each text, and never cuts. It knows
nothing of vectors; loading the tokenizer takes a moment and some 10 MB, loading the model is not needed.

The tokenizer (BERT's WordPiece) never looks across white space, so a text's count is the sum over its
words, and words come again: they are counted once and remembered, which is many times faster than
tokenizing and exact (tests/unit/index/test_tokens.py compares).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from node.engine.embedder import Embedder, package_folder

_MARKS = 2
# Only white space that everybody agrees on: the tokenizer deletes some that Python would split at.
_WORD = re.compile(r"[^ \t\n\r]+")
_LONGEST_KEPT = 64  # characters of a word; longer ones rarely come again
_MOST_KEPT = 200_000
_AT_ONCE = 1 << 18  # characters: what is made of a text takes a hundred times its size


class TokenCounter:
    """Call it with texts for their token counts, in order. Loads when first called; safe from several
    threads. Raises FileNotFoundError if the embedder's package is not installed."""

    longest: ClassVar[int] = Embedder.context_tokens  # what the embedder reads of a text

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._known: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Token counts, the marks at both ends included: at least 2 each."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _load()
            return [self._count(text) for text in texts]

    def _count(self, text: str) -> int:
        words = _WORD.findall(text)
        known = self._known
        total = _MARKS
        if new := {word for word in words if word not in known}:
            if len(known) + len(new) > _MOST_KEPT:
                known.clear()
                new = set(words)
            counts = dict(self._tokenized(new))
            known.update((word, n) for word, n in counts.items() if len(word) <= _LONGEST_KEPT)
            for word in words:
                total += counts[word] if word in counts else known[word]
            if len(known) > _MOST_KEPT:
                known.clear()
            return total
        for word in words:
            total += known[word]
        return total

    def _tokenized(self, words: Iterable[str]) -> Iterable[tuple[str, int]]:
        batch: list[str] = []
        characters = 0
        for word in words:
            batch.append(word)
            characters += len(word)
            if characters > _AT_ONCE:
                yield from self._batch(batch)
                batch, characters = [], 0
        if batch:
            yield from self._batch(batch)

    def _batch(self, words: list[str]) -> Iterable[tuple[str, int]]:
        # The fast variant tracks no offsets into the text, which nobody needs here.
        found = self._tokenizer.encode_batch_fast(words, add_special_tokens=False)
        return zip(words, (len(each.ids) for each in found), strict=True)


def _load() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
