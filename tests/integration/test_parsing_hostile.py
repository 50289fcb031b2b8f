"""Files that were made to break their reader: each ends with a stable reason, and the next one is read."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from node.index.documents import ParsedDocument
from node.index.parsing import media
from node.index.parsing.intake import Skipped
from node.index.parsing.limits import ParseLimits
from node.index.parsing.pool import ParserPool
from tests.support import files
from tests.support.files import WORDS
from tests.support.parsers import Outcome, alive, read, texts, worker_pids

pytestmark = pytest.mark.slow

UNREADABLE, TOO_LARGE, INVALID = (
    Reason.DOCUMENT_UNREADABLE, Reason.DOCUMENT_TOO_LARGE, Reason.DOCUMENT_INVALID,
)  # fmt: skip
LIMITS = ParseLimits(cpu_s=5, wall_s=20.0)
MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[ParserPool]:
    pool = ParserPool(limits=LIMITS)
    yield pool
    pids = worker_pids(pool)
    await pool.aclose()
    assert pids
    assert not any(map(alive, pids))


def refused(outcome: Outcome) -> Reason:
    assert isinstance(outcome, MeshError), outcome
    assert WORDS not in str(outcome), "I1: what was read is not repeated"
    return outcome.reason


def laughs(levels: int = 9) -> bytes:
    entities = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(levels))
    return f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><x>&l{levels};</x>'.encode()


def many_members(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("[Content_Types].xml", b"<Types/>")
        for number in range(count):
            package.writestr(f"m{number}", b"")
    return out.getvalue()


BOMBS = {
    "pdf: packed four times": (media.PDF, lambda: files.pdf_bomb(4, 300 * MIB), TOO_LARGE),
    "pdf: one large stream": (media.PDF, lambda: files.pdf_bomb(1, 300 * MIB), TOO_LARGE),
    "pdf: more filters than any needs": (media.PDF, lambda: files.pdf_bomb(40, MIB), None),
    "pdf: one page a million times": (
        media.PDF, lambda: files.pdf_with_page(files.stream_of(b""), b"3 0 R " * 1_000_000, 1_000_000), None,
    ),
    "pdf: pages that hold themselves": (
        media.PDF, lambda: files.pdf_with_page(files.stream_of(b""), b"2 0 R"), None,
    ),
    "pdf: arrays in arrays": (
        media.PDF, lambda: files.pdf_with_page(files.stream_of(b"[" * 500_000 + b"] TJ")), None,
    ),
    "pdf: no text": (media.PDF, lambda: files.pdf(""), UNREADABLE),
    "docx: zip bomb": (
        media.DOCX, lambda: files.word_with({"word/document.xml": b" " * (300 * MIB)}), TOO_LARGE,
    ),
    "docx: packed too well": (
        media.DOCX, lambda: files.word_with({"word/x.bin": b" " * (20 * MIB)}), TOO_LARGE,
    ),
    "docx: bomb that says it is small": (
        media.DOCX,
        lambda: files.understated(files.word_with({"word/x.bin": b" " * (20 * MIB)}), b"word/x.bin", 100),
        UNREADABLE,
    ),
    "docx: too many members": (media.DOCX, lambda: many_members(5000), TOO_LARGE),
    "docx: some other zip": (media.DOCX, lambda: many_members(3), UNREADABLE),
    "docx: billion laughs": (
        media.DOCX, lambda: files.word_with({"word/document.xml": laughs()}), UNREADABLE,
    ),
    "docx: billion laughs in UTF-16": (
        media.DOCX,
        lambda: files.word_with({"word/styles.xml": laughs().decode().encode("utf-16")}),
        UNREADABLE,
    ),
    "html: billion laughs": (media.HTML, laughs, None),
    "html: deep": (media.HTML, lambda: b"<div>" * 300_000 + WORDS.encode(), None),
    "html: a million tags": (media.HTML, lambda: b"<b>x" * 3_000_000, None),
    "markdown: deep quotes": (media.MARKDOWN, lambda: b">" * 200_000 + b"x", None),
    "markdown: open brackets": (media.MARKDOWN, lambda: b"[" * 100_000 + b"x", None),
    "markdown: open emphasis": (media.MARKDOWN, lambda: b"*a_ " * 100_000, None),
    "markdown: deep front matter": (
        media.MARKDOWN, lambda: b"---\nid: " + b"[" * 9000 + b"\n---\nx", INVALID,
    ),
    "markdown: front matter without end": (
        media.MARKDOWN, lambda: b"---\nclasses: personal\n\ntext", INVALID,
    ),
    "markdown: a class twice": (
        media.MARKDOWN, lambda: b"---\nclasses: personal\nclasses: public\n---\nx", INVALID,
    ),
    "markdown: front matter laughs": (
        media.MARKDOWN,
        lambda: b"---\na: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nid: *c\n---\nx", INVALID,
    ),
    "text: another tenant's": (media.TEXT, lambda: b"---\ntenant: other\n---\nx", INVALID),
    "text: NULs": (media.TEXT, lambda: b"\x00" * 1000 + b"x" * 1000, UNREADABLE),
    "text: noise": (media.TEXT, lambda: bytes(range(256)) * 100, UNREADABLE),
    "text: nothing": (media.TEXT, lambda: b"", UNREADABLE),
    "text: white space": (media.TEXT, lambda: b"\xef\xbb\xbf \n\t", UNREADABLE),
    "text: more paragraphs than are allowed": (media.TEXT, lambda: b"x\n\n" * 200_001, TOO_LARGE),
    "text: a zip": (media.TEXT, lambda: files.word(), UNREADABLE),
    "pdf: a zip": (media.PDF, lambda: files.word(), UNREADABLE),
    "csv: no text column": (media.CSV, lambda: b"id,body\n1,x\n", INVALID),
    "csv: two text columns": (media.CSV, lambda: b"text,text\n1,x\n", INVALID),
    "csv: a quote that never ends": (media.CSV, lambda: b'text\n"' + b"x\n" * (3 * MIB), TOO_LARGE),
}  # fmt: skip


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", BOMBS)
async def test_bombs_are_bounded_and_reported(pool: ParserPool, tmp_path: Path, name: str) -> None:
    kind, make, expected = BOMBS[name]
    outcome = await read(pool, tmp_path / "bomb", kind, make())
    if expected is not None or isinstance(outcome, MeshError):
        assert refused(outcome) in ({expected} if expected else {UNREADABLE, TOO_LARGE})
    else:
        assert sum(map(len, texts(outcome))) < 16 * MIB  # it was read after all, and nothing blew up
    assert texts(await read(pool, tmp_path / "next", media.TEXT, WORDS.encode())) == [WORDS]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", sorted(media.MEDIA))
async def test_whatever_is_cut_short_ends_with_a_reason(pool: ParserPool, tmp_path: Path, kind: str) -> None:
    whole = files.one_of_each()[kind]
    assert WORDS in " ".join(texts(await read(pool, tmp_path / "f", kind, whole)))
    for length in sorted({*range(0, len(whole), max(1, len(whole) // 25)), len(whole) - 1}):
        outcome = await read(pool, tmp_path / "f", kind, whole[:length])
        if isinstance(outcome, MeshError):
            assert refused(outcome) in {UNREADABLE, TOO_LARGE, INVALID}
    assert isinstance(await read(pool, tmp_path / "f", kind, b""), MeshError | list)


@pytest.mark.asyncio(loop_scope="module")
@given(
    kind=st.sampled_from(sorted(media.MEDIA)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6
    ),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_mutated_files_never_hang_or_break_the_pool(
    pool: ParserPool, tmp_path: Path, kind: str, changes: list[tuple[float, bytes]]
) -> None:
    data = bytearray(files.one_of_each()[kind])
    for where, new in changes:
        at = int(where * len(data))
        data[at : at + len(new)] = new
    outcome = await read(pool, tmp_path / "f", kind, bytes(data))
    if isinstance(outcome, MeshError):
        assert refused(outcome) in {UNREADABLE, TOO_LARGE, INVALID}
    else:
        assert all(isinstance(found, ParsedDocument | Skipped) for found in outcome)
    assert len(worker_pids(pool)) <= 1


@pytest.mark.asyncio(loop_scope="module")
async def test_enormous_files_are_refused_before_they_are_read(pool: ParserPool, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # takes no room
    for kind in sorted(media.MEDIA - media.STREAMED):
        assert refused(await read(pool, path, kind)) is TOO_LARGE
    with path.open("r+b") as file:
        file.truncate(9 << 30)
    for kind in sorted(media.STREAMED):
        assert refused(await read(pool, path, kind)) is TOO_LARGE


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_file_is_refused_without_waiting(pool: ParserPool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none", Path("/dev/zero"), Path("a\x00b")):
        assert refused(await read(pool, path, media.TEXT)) is UNREADABLE
    assert refused(await read(pool, tmp_path / "x", "image/png", b"x")) is UNREADABLE
    with pytest.raises(MeshError):
        media.media_of("a.exe")


@pytest.mark.asyncio(loop_scope="module")
async def test_bad_rows_are_skipped_and_the_rest_goes_on(pool: ParserPool, tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * (5 * MIB) + b'"}'
    rows = [
        b'{"id": "a", "text": "one\\u0000\\ud800"}', b"[1]", b'{"text": 1}', b'{"text": "\xff"}', b"{", b"",
        b'{"text": "x", "text": "y"}', b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}", long,
        b'{"text": "x", "classes": "secret"}', b'{"text": "x", "tenant": "other"}', b'{"text": " "}',
        b'{"text": "x", "id": "\\ud800"}', b'{"text": "x", "owner": "' + b"o" * 20_000 + b'"}',
        b'{"text": "last"}',
    ]  # fmt: skip
    outcome = await read(pool, tmp_path / "f", media.JSONL, b"\n".join(rows))
    assert texts(outcome) == ["one\ufffd", "last"]
    assert isinstance(outcome, list)
    assert outcome[-1].meta.id == "f#16" if isinstance(outcome[-1], ParsedDocument) else False
    skipped = {found.position: found.reason.reason for found in outcome if isinstance(found, Skipped)}
    assert skipped == {
        2: INVALID, 3: INVALID, 4: UNREADABLE, 5: UNREADABLE, 7: UNREADABLE, 8: UNREADABLE, 9: UNREADABLE,
        10: TOO_LARGE, 11: INVALID, 12: INVALID, 13: UNREADABLE, 14: INVALID, 15: INVALID,
    }  # fmt: skip
    rows = [
        b"id;text;classes",
        b"1;one;public",
        b"2;two",
        b"3;\xff;public",
        b'4;"a"b;',
        b"",
        b'5;"x\ny";"public;personal"',
    ]
    outcome = await read(pool, tmp_path / "f", media.CSV, b"\r\n".join(rows))
    assert texts(outcome) == ["one", "x\ny"]
    assert isinstance(outcome, list)
    assert [found.position for found in outcome if isinstance(found, Skipped)] == [3, 4, 5]
