"""How many tokens the default embedder makes of a text, so that chunks are cut to what it reads.

Counts what it would read, with the two marks it puts around each text, and never cuts. It knows
nothing of vectors; loading the tokenizer takes a moment and some 10 MB, loading the model is not needed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from node.engine.embedder import Embedder, package_folder

_AT_ONCE = 1 << 18  # characters


class TokenCounter:
    """Call it with texts for their token counts, in order. Loads when first called; safe from several
    threads. Raises FileNotFoundError if the embedder's package is not installed."""

    longest: ClassVar[int] = Embedder.context_tokens  # what the embedder reads of a text

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Token counts, the marks at both ends included: at least 2 each."""
        tokenizer, counts = self._load(), list[int]()
        start = characters = 0
        for at, text in enumerate(texts):
            characters += len(text)
            # What is made of a text takes a hundred times its size: never of all of a large document.
            if characters >= _AT_ONCE or at == len(texts) - 1:
                # The fast variant tracks no offsets into the text, which nobody needs here.
                counts += (
                    len(found.ids) for found in tokenizer.encode_batch_fast(list(texts[start : at + 1]))
                )
                start, characters = at + 1, 0
        return counts

    def _load(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                from tokenizers import Tokenizer

                tokenizer = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
                tokenizer.no_padding()
                tokenizer.no_truncation()
                self._tokenizer = tokenizer
            return self._tokenizer
