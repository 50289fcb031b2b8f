"""A worker's word is checked as if the file's maker had written it (I4)."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import DataClass
from node.index.documents import Block, MetaDefaults, ParsedDocument
from node.index.parsing import frames
from node.index.parsing.intake import Intake, Misbehaved, Skipped
from node.index.parsing.limits import BLOCK_CHARACTERS, FRAME_BYTES, ParseLimits

DEFAULTS = MetaDefaults(id="f", classes=frozenset({DataClass.INTERNAL}), locked=frozenset({"tenant"}))
LIMITS = ParseLimits(blocks=3, text_bytes=100, rows=2)
TEXT = ["blocks", [["paragraph", 0, "x"]]]


def fed(said: list[list[Any]], streamed: bool = False) -> list[ParsedDocument | Skipped]:
    intake = Intake(DEFAULTS, streamed, LIMITS)
    found = [intake.feed(frame) for frame in said]
    assert intake.done
    return [each for each in found if each is not None]


def test_a_document_told_in_order_is_taken() -> None:
    said = [["document", 0], ["blocks", [["heading", 2, "H"]]], TEXT, ["end", {}, {"title": "T"}], ["done"]]
    (found,) = fed(said)
    assert isinstance(found, ParsedDocument)
    assert (found.meta.id, found.meta.title) == ("f", "T")
    assert found.blocks == (Block("heading", 2, "H"), Block("paragraph", 0, "x"))


def test_rows_are_documents_or_skipped() -> None:
    said = [["document", 3], TEXT, ["end", {"tenant": "other"}, {}], ["bad", 5, "ROW_SIZE"], ["done"]]
    skipped = fed(said, streamed=True)
    assert [(s.position, s.reason.reason) for s in skipped if isinstance(s, Skipped)] == [
        (3, Reason.DOCUMENT_INVALID),
        (5, Reason.DOCUMENT_TOO_LARGE),
    ]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        [["hello"]], [[1]], [[None]], [[["document"]]], [["document"]], [["document", "0"]],
        [["document", -1]],
        [["document", False]], [["document", 1 << 60]], [["document", 1], ["document", 2]], [TEXT],
        [["end", {}, {}]], [["document", 1], ["done"]], [["bad", 1, "NO_SUCH"]], [["bad", 1, 2]],
        [["failed", "secret words of the file"]], [["failed"]], [["ready", True]],
    ],
)  # fmt: skip
def test_what_no_worker_says_ends_it(said: list[list[Any]], streamed: bool) -> None:
    with pytest.raises(Misbehaved):
        fed(said, streamed)


@pytest.mark.parametrize(
    "blocks",
    [
        "x", [1], [["paragraph", 0]], [["paragraph", 0, 1]], [["paragraph", "0", "x"]], [["title", 0, "x"]],
        [["heading", 0, "x"]], [["heading", 7, "x"]], [["paragraph", 1, "x"]], [["paragraph", 0, "\x00"]],
        [["paragraph", 0, "\x1b[2J"]], [["paragraph", 0, "\ud800"]],
        [["paragraph", 0, "x" * (BLOCK_CHARACTERS + 1)]],
    ],
)  # fmt: skip
def test_malformed_blocks_end_it(blocks: object) -> None:
    with pytest.raises(Misbehaved):
        fed([["document", 0], ["blocks", blocks], ["end", {}, {}], ["done"]])


@pytest.mark.parametrize("hints", [{"classes": "public"}, {"title": 1}, {"title": "x" * 5000}])
def test_hints_are_titles_and_languages(hints: dict[str, object]) -> None:
    with pytest.raises(Misbehaved):
        fed([["document", 0], TEXT, ["end", {}, hints], ["done"]])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([["document", 0], ["blocks", [["paragraph", 0, "x"]] * 4]], Reason.DOCUMENT_TOO_LARGE),
        ([["document", 0], ["blocks", [["paragraph", 0, "\u00e9" * 51]]]], Reason.DOCUMENT_TOO_LARGE),
        ([["document", 0], ["end", {}, {}]], Reason.DOCUMENT_UNREADABLE),
        ([["document", 0], ["blocks", [["code", 0, " "]]], ["end", {}, {}]], Reason.DOCUMENT_UNREADABLE),
        ([["document", 0], TEXT, ["end", {"tenant": "other"}, {}]], Reason.DOCUMENT_INVALID),
        ([["document", 0], TEXT, ["end", None, {}]], Reason.DOCUMENT_INVALID),
        ([["document", 0], ["failed", "PAGES"]], Reason.DOCUMENT_TOO_LARGE),
    ],
)
def test_refusals_of_a_whole_file(said: list[list[Any]], reason: Reason) -> None:
    with pytest.raises(MeshError) as refusal:
        fed(said)
    assert refusal.value.reason is reason


def test_rows_go_forward_and_are_counted() -> None:
    row = [TEXT, ["end", {}, {}]]
    with pytest.raises(Misbehaved):
        fed([["document", 2], *row, ["document", 2]], streamed=True)
    with pytest.raises(Misbehaved):
        fed([["document", 0]], streamed=True)
    with pytest.raises(MeshError) as refusal:
        fed([["document", 1], *row, ["bad", 2, "ROW_SIZE"], ["document", 3]], streamed=True)
    assert refusal.value.reason is Reason.DOCUMENT_TOO_LARGE


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"[" * 100_000, b"\xff", b"[9" + b"9" * 5000 + b"]", b"1"]
)
def test_frames_that_are_none(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        frames.decode(body)


def test_frames_have_a_bounded_length() -> None:
    whole = frames.encode(["blocks", ["\ud800\u00e9"]])
    assert frames.body_length(whole[:4]) == len(whole) - 4
    assert frames.decode(whole[4:]) == ["blocks", ["\ud800\u00e9"]]
    with pytest.raises(ValueError, match="long"):
        frames.body_length(frames.HEADER.pack(FRAME_BYTES + 1))
    with pytest.raises(ValueError, match="long"):
        frames.encode(["x" * FRAME_BYTES])
