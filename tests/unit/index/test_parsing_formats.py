"""What each format's parser takes for text (well-formed files, read in this process)."""

from __future__ import annotations

import io

import docx
import pytest

from node.index.parsing import csv, html, jsonl, markdown, media, pdf, plain
from node.index.parsing import docx as word
from node.index.parsing.complaints import Complaint, ParseFailure
from node.index.parsing.formats import BadRow, Parser, RawDocument, blocks, decode
from node.index.parsing.limits import BLOCK_CHARACTERS, ParseLimits
from tests.support import files

LIMITS = ParseLimits()
Told = tuple[str, int, str]


def told(parse: Parser, data: bytes) -> tuple[list[Told], RawDocument]:
    (found,) = parse(io.BytesIO(data), LIMITS)
    assert isinstance(found, RawDocument)
    return [(b.kind, b.level, b.text) for b in found.blocks], found


def complaint(parse: Parser, data: bytes) -> Complaint:
    with pytest.raises(ParseFailure) as failure:
        told(parse, data)
    return failure.value.complaint


def test_text_is_cut_at_blank_lines() -> None:
    found, raw = told(
        plain.parse, b"---\r\nid: 007\r\nlanguage: no\r\nother: [1]\r\n---\r\none\r\ntwo\r\n \r\n\r\nthree"
    )
    assert found == [("paragraph", 0, "one\ntwo"), ("paragraph", 0, "three")]
    assert raw.overrides == {"id": "007", "language": "no"}


@pytest.mark.parametrize(
    "text", ["---\n\nA rule above.\n\n---\n\nmore", "---\nwords\n---\nx", "--- \n", "x\n---\nid: a\n---"]
)
def test_what_is_no_front_matter_is_text(text: str) -> None:
    found, raw = told(plain.parse, text.encode())
    assert raw.overrides == {}
    assert " ".join(t for _, _, t in found).split() == text.split()


@pytest.mark.parametrize(
    "said",
    [
        "id: [a, [b]]",
        "id: {a: b}",
        "classes: personal\nclasses: public",
        "id: 'x",
        "? [a]\n: b\nid: x",
        "id: x\n\ttitle: y",
    ],
)
def test_malformed_front_matter_is_refused_not_lost(said: str) -> None:
    if said.startswith("?"):
        said = "title: t\n" + said
    assert complaint(plain.parse, f"---\n{said}\n---\nx".encode()) is Complaint.FRONT_MATTER


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfcaf\xc3\xa9", "caf\u00e9"),
        ("caf\u00e9".encode("utf-16"), "caf\u00e9"),
        (b"\xfe\xff" + "caf\u00e9".encode("utf-16-be"), "caf\u00e9"),
        (b"x" * 99 + b"\xff", "x" * 99 + "\ufffd"),
        (b"x" * 99 + b"\x00", "x" * 99),
        (b"a\r\nb\rc\x0cd\x1be", "a\nb\nc\nde"),
        ("\ufffd".encode() * 50, "\ufffd" * 50),  # they were there before
    ],
)
def test_decoding(data: bytes, text: str) -> None:
    assert decode(data) == text


@pytest.mark.parametrize(
    "data", [b"x" * 98 + b"\xff", b"x" * 98 + b"\x00", "words".encode("utf-16-le"), "x".encode("utf-32")]
)
def test_what_is_damaged_is_no_text(data: bytes) -> None:
    with pytest.raises(ParseFailure):
        decode(data)


def test_markdown() -> None:
    found, raw = told(
        markdown.parse,
        b"Visits\n======\n\n* one *two*\n  [three](http://x/secret)\n\n> `four` ![five](y.png)\n\n## More\n\n"
        b"| a | b |\n|-|-|\n"
        b"| c | <b>d</b> |\n\n    code\n\n<p>in <script>bad()</script>HTML</p>\n",
    )
    assert found == [
        ("heading", 1, "Visits"), ("paragraph", 0, "one two three"), ("paragraph", 0, "four five"),
        ("heading", 2, "More"), ("row", 0, "a\tb"), ("row", 0, "c\td"), ("code", 0, "code"),
        ("paragraph", 0, "in HTML"),
    ]  # fmt: skip
    assert raw.hints == {"title": "Visits"}
    assert told(markdown.parse, b">" * 60 + b" deep")[0] == [("paragraph", 0, "deep")]


def test_html() -> None:
    found, raw = told(
        html.parse,
        b"<!doctype html><html lang=de><head><title>T &amp; U</title><style>s</style></head>"
        b"<body><nav>n</nav>"
        b"<h2>Head <i>line</i></h2>loose<p>one<br>two<!-- c --><script>s</script></p><ul><li>a<li>b</ul>"
        b"<table><tr><th>k<td><p>v</p>w</tr></table><pre>x\n  y</pre><h1>" + b"long " * 300 + b"</h1></body>",
    )
    assert found[:-1] == [
        ("heading", 2, "Head line"), ("paragraph", 0, "loose"), ("paragraph", 0, "one two"),
        ("paragraph", 0, "a"), ("paragraph", 0, "b"), ("row", 0, "k\tv w"), ("code", 0, "x\n  y"),
    ]  # fmt: skip
    assert found[-1][:2] == ("paragraph", 0), "what is that long is no heading"
    assert raw.hints == {"title": "T & U", "language": "de"}


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("iso-8859-1", b"\x80\xe9", "\u20ac\u00e9"),
        ("koi8-r", b"\xc1", "\u0430"),
        ("utf-8", b"\xc3\xa9", "\u00e9"),
        ("rot13", b"abc", "abc"),
    ],
)
def test_html_in_another_encoding(charset: str, data: bytes, text: str) -> None:
    found, _ = told(html.parse, b"<meta charset=" + charset.encode() + b"><p>" + data)
    assert found == [("paragraph", 0, text)]


def test_pdf() -> None:
    found, _ = told(pdf.parse, files.pdf("Two words."))
    assert found == [("paragraph", 0, "Two words.")]


def test_docx() -> None:
    document = docx.Document(io.BytesIO(files.word()))
    document.add_heading("Deep", 3)
    document.add_paragraph("kept").add_run().add_break()
    document.styles.add_style("Mine", 1).base_style = document.styles["Heading 2"]
    document.add_paragraph("Own style", style="Mine")
    outer = document.add_table(1, 1).cell(0, 0)
    outer.text = "outer"
    outer.add_table(1, 1).cell(0, 0).text = "inner"
    out = io.BytesIO()
    document.save(out)
    found, raw = told(word.parse, out.getvalue())
    assert found == [
        ("heading", 1, "Visits"), ("paragraph", 0, files.WORDS), ("row", 0, "Monday\topen"),
        ("heading", 3, "Deep"), ("paragraph", 0, "kept"), ("heading", 2, "Own style"),
        ("row", 0, "outer"), ("row", 0, "inner"),
    ]  # fmt: skip
    assert raw.hints == {"title": "Rules"}


def test_rows() -> None:
    found = list(
        jsonl.parse(
            io.BytesIO(b'\xef\xbb\xbf{"text": "a\\n\\nb", "classes": ["public"], "n": 1}\n\n{"text": ""}'),
            LIMITS,
        )
    )
    assert [f.row for f in found] == [1, 3]
    assert isinstance(found[0], RawDocument)
    assert found[0].overrides == {"classes": ["public"]}
    assert [b.text for b in found[0].blocks] == ["a", "b"]
    tabs = list(csv.parse(io.BytesIO(b"\xef\xbb\xbfID\tText\n1\ta, b\n2\n3\tc"), LIMITS))
    assert [(f.row, isinstance(f, BadRow)) for f in tabs] == [(2, False), (3, True), (4, False)]
    assert isinstance(tabs[0], RawDocument)
    assert tabs[0].overrides == {"id": "1"}
    assert complaint(csv.parse, b"") is Complaint.COLUMNS


def test_long_blocks_come_in_several() -> None:
    text = "word " * (BLOCK_CHARACTERS // 2)
    found = list(blocks("paragraph", text))
    assert len(found) == 3
    assert all(len(b.text) <= BLOCK_CHARACTERS for b in found)
    assert "".join("".join(b.text for b in found).split()) == "".join(text.split())
    assert [len(b.text) for b in blocks("code", "x" * (BLOCK_CHARACTERS + 1))] == [BLOCK_CHARACTERS, 1]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.MD", media.MARKDOWN), ("b/c.tar.docx", media.DOCX), ("x.tsv", media.CSV)]
)
def test_names_say_the_kind(name: str, kind: str) -> None:
    assert media.media_of(name) == kind


def test_the_first_bytes_must_agree() -> None:
    for kind, data in files.one_of_each().items():
        assert media.agrees(kind, data[:1024])
    assert not media.agrees(media.PDF, files.word())
    assert not media.agrees(media.DOCX, files.pdf())
    assert not media.agrees(media.CSV, files.pdf())
    assert not media.agrees(media.TEXT, b"\x89PNG\r\n")
