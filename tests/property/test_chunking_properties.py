"""Cutting documents: whatever the text and whatever a token is, nothing is lost, doubled or too long."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.types import DataClass
from node.index.chunking import MIN_TOKENS, CountTokens, chunk, content_hash
from node.index.documents import Block, DocumentMeta, ParsedDocument

META = DocumentMeta(id="d", classes=frozenset({DataClass.PUBLIC}))


def words(texts: Sequence[str]) -> list[int]:
    return [2 + len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def characters(texts: Sequence[str]) -> list[int]:
    """Not additive: white space between two parts costs as well."""
    return [len(text) for text in texts]


def growing(texts: Sequence[str]) -> list[int]:
    """Far from additive: the whole is more than its parts."""
    return [len(text) + (len(text) // 5) ** 2 // 8 for text in texts]


def letters_are_free(texts: Sequence[str]) -> list[int]:
    """What WordPiece makes of a very long word: one unknown token."""
    return [2 + len(text.split()) for text in texts]


COUNTERS = st.sampled_from([words, characters, growing, letters_are_free])
TEXT = st.one_of(
    st.text(st.sampled_from("ab .!?\n\t\u3002\u00e9\u2003"), max_size=300),
    st.lists(st.sampled_from(["one", "two.", "three!", '"four."', "\n\n", "5"]), max_size=120).map(" ".join),
    st.text(max_size=60),
    st.integers(0, 3000).map(lambda n: "x" * n),
)
BLOCKS = st.lists(
    st.one_of(
        st.builds(Block, st.just("heading"), st.integers(1, 6), TEXT),
        st.builds(Block, st.sampled_from(["paragraph", "row", "code"]), st.just(0), TEXT),
    ),
    max_size=12,
)


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.slow
@given(BLOCKS, COUNTERS, st.integers(MIN_TOKENS, 60))
@settings(max_examples=300, deadline=None)
def test_chunks_are_the_document_and_fit(blocks: list[Block], count: CountTokens, most: int) -> None:
    document = ParsedDocument(META, tuple(blocks))
    chunks = chunk(document, count, most)
    assert bare("".join(c.text for c in chunks)) == bare("".join(b.text for b in blocks))
    assert all(tokens <= most for tokens in count([c.text for c in chunks]))
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    assert all(c.text == c.text.strip() != "" for c in chunks)
    assert chunk(document, count, most) == chunks
    assert all(len(c.text) <= most * 16 + 2 * len(blocks) for c in chunks)


@pytest.mark.slow
@given(BLOCKS, COUNTERS, st.integers(MIN_TOKENS, 60), st.data())
@settings(max_examples=200, deadline=None)
def test_overlap_repeats_only_what_went_before(
    blocks: list[Block], count: CountTokens, most: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, min(most - MIN_TOKENS, (most - 1) // 2)))
    document = ParsedDocument(META, tuple(blocks))
    chunks = chunk(document, count, most, overlap)
    assert all(tokens <= most for tokens in count([c.text for c in chunks]))
    plain = chunk(document, count, most - overlap)
    assert len(plain) == len(chunks)
    for before, own, got in zip([None, *plain], plain, chunks, strict=False):
        assert got.text.endswith(own.text)
        repeated = got.text.removesuffix(own.text)
        if before is None:
            assert repeated == ""
        assert repeated.split() == (before.text.split()[-len(repeated.split()) :] if repeated else [])


@pytest.mark.slow
@given(BLOCKS, BLOCKS)
@settings(max_examples=100, deadline=None)
def test_a_hash_tells_documents_apart(one: list[Block], other: list[Block]) -> None:
    first, second = ParsedDocument(META, tuple(one)), ParsedDocument(META, tuple(other))
    assert (content_hash(first) == content_hash(second)) == (one == other)
