"""Counting word by word gives what the embedder's own tokenizer gives for the whole."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.engine.embedder import package_folder
from node.index.tokens import TokenCounter


@functools.cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
    made.no_padding()
    made.no_truncation()
    return made


COUNT = TokenCounter()
AWKWARD = st.sampled_from(
    ["[CLS]", "[SEP]x", "a\x85b", "\u0301", "\u03a3", "\u4e2d\u6587", "\u200b", "\u2003", "\x1c", "x" * 101,
     "don't", "\ufffd", "\x00"]
)  # fmt: skip


@pytest.mark.slow
@given(
    st.lists(st.one_of(st.text(max_size=20), AWKWARD, st.sampled_from(" \n\t\r")), max_size=20).map("".join)
)
@example("[MASK] [MASK]\n[CLS]")
@example("a \u0301b \u00a0c")
@settings(max_examples=400, deadline=None)
def test_word_by_word_is_the_whole(text: str) -> None:
    whole = [len(tokenizer().encode(text).ids), len(tokenizer().encode(text * 2).ids)]
    assert COUNT([text, text * 2]) == whole
    assert COUNT([text]) == whole[:1]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.index.tokens._MOST_KEPT", 5)
    monkeypatch.setattr("node.index.tokens._AT_ONCE", 10)
    count = TokenCounter()
    texts = [f"word{n} and other{n} " * 3 + "y" * 80 for n in range(20)]
    assert count(texts) == [len(tokenizer().encode(text).ids) for text in texts]
    assert len(count._known) <= 5
    assert count([]) == []
