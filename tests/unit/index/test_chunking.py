"""Where documents are cut."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import DataClass
from node.index import chunking
from node.index.chunking import chunk, content_hash
from node.index.documents import Block, DocumentMeta, ParsedDocument
from node.index.tokens import TokenCounter

META = DocumentMeta(id="d", classes=frozenset({DataClass.PUBLIC}))


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def doc(*blocks: Block) -> ParsedDocument:
    return ParsedDocument(META, blocks)


def head(level: int, text: str) -> Block:
    return Block("heading", level, text)


def para(text: str) -> Block:
    return Block("paragraph", 0, text)


def test_headings_begin_chunks_and_stand_above_them() -> None:
    found = chunk(
        doc(
            head(1, "Ward rules"), head(2, "Visits"), para("From two to four."), para("Not at night."),
            head(2, "Food"), para("Ask the nurse."), head(1, "Contact"), para("Ring."),
        ),
        words, 20,
    )  # fmt: skip
    assert [(c.text, c.headings) for c in found] == [
        ("Ward rules\n\nVisits\n\nFrom two to four.\n\nNot at night.", ("Ward rules", "Visits")),
        ("Food\n\nAsk the nurse.", ("Ward rules", "Food")),
        ("Contact\n\nRing.", ("Contact",)),
    ]


def test_a_paragraph_that_fits_is_not_cut() -> None:
    found = chunk(doc(para("a b c d e. f"), para("g h i. j k l")), words, 8)
    assert [c.text for c in found] == ["a b c d e. f", "g h i. j k l"]


def test_long_paragraphs_are_cut_at_sentences_then_words_then_anywhere() -> None:
    found = chunk(doc(para("a b c d. e f g h. i j k l. m n o p q r s t u v")), words, 8)
    assert [c.text for c in found] == ["a b c d. e f g h.", "i j k l. m n o p", "q r s t u v"]
    found = chunk(doc(para("x" * 300)), words, 8)
    assert [len(c.text) for c in found] == [128, 128, 44]


def test_table_rows_stay_lines() -> None:
    found = chunk(doc(Block("row", 0, "a\tb"), Block("row", 0, "c\td"), para("end")), words, 8)
    assert [c.text for c in found] == ["a\tb\nc\td\n\nend"]


def test_overlap_repeats_the_words_before_but_not_over_a_heading() -> None:
    found = chunk(doc(para("a b c d e f g h i j k l"), head(1, "New"), para("m n")), words, 11, 3)
    assert [c.text for c in found] == ["a b c d e f g h", "f g h i j k l", "New\n\nm n"]


def test_no_text_no_chunks() -> None:
    assert chunk(doc(para(" \n"), head(1, "")), words, 8) == []


def test_too_many_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "MAX_CHUNKS", 10)
    assert len(chunk(doc(*[para("a b c d e")] * 10), words, 8)) == 10
    with pytest.raises(MeshError) as refusal:
        chunk(doc(*[para("a b c d e")] * 11), words, 8)
    assert refusal.value.reason is Reason.DOCUMENT_TOO_LARGE


@pytest.mark.parametrize(("most", "overlap"), [(7, 0), (8, 4), (8, -1)])
def test_impossible_sizes_are_a_mistake(most: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="8 tokens"):
        chunk(doc(para("a")), words, most, overlap)


def test_the_hash_covers_metadata_and_text() -> None:
    base = doc(para("ab"), para("c"))
    seen = {content_hash(base), content_hash(doc(para("a"), para("bc"))), content_hash(doc(para("abc")))}
    seen |= {content_hash(doc(head(1, "ab"), para("c"))), content_hash(doc(head(2, "ab"), para("c")))}
    for change in (
        {"id": "e"}, {"title": "t"}, {"source": "s"}, {"owner": "o"}, {"language": "de"}, {"tenant": "t"},
        {"classes": frozenset({DataClass.PERSONAL})}, {"retain_until": datetime.date(2030, 1, 1)},
    ):  # fmt: skip
        meta = dataclasses.replace(META, **change)  # type: ignore[arg-type] # each of its field's type
        seen.add(content_hash(ParsedDocument(meta, base.blocks)))
    assert len(seen) == 13
    assert content_hash(base) == content_hash(doc(para("ab"), para("c")))


@pytest.mark.slow
def test_chunks_fit_what_the_embedder_reads() -> None:
    count = TokenCounter()
    assert count(["", "hello"]) == [2, 3]
    text = "The ward closes at eight; visitors leave (quietly), please. " * 200 + "Donaudampfschiff" * 40
    found = chunk(doc(head(1, "Rules"), para(text), Block("code", 0, "x=1;\n" * 400)), count, count.longest)
    counts = count([c.text for c in found])
    assert max(counts) <= 256
    assert min(counts[:-1]) > 100, "chunks are filled"
