"""What a document may say of itself, and what its sender has said already."""

from __future__ import annotations

import datetime

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import DataClass
from node.index.documents import Block, DocumentMeta, MetaDefaults, meta_with

PUBLIC = frozenset({DataClass.PUBLIC})
DEFAULTS = MetaDefaults(id="a.md", classes=PUBLIC, tenant="clinic", locked=frozenset({"tenant"}))
SECRET = "Zebra-77"


def refused(defaults: MetaDefaults, **overrides: object) -> str:
    with pytest.raises(MeshError) as refusal:
        meta_with(defaults, overrides)
    assert refusal.value.reason is Reason.DOCUMENT_INVALID
    assert SECRET not in str(refusal.value), "I1: what was sent is not repeated"
    return refusal.value.message.split(":")[0]


def test_what_a_file_says_replaces_the_defaults() -> None:
    meta = meta_with(
        DEFAULTS,
        {
            "id": " rules ", "title": "Ward\u00a0 rules", "source": "intranet", "text": "-",
            "classes": "personal; dpv:PersonalData", "owner": "ward 3", "language": "de-AT",
            "retain_until": "2031-12-31", "tenant": "clinic",
        },
    )  # fmt: skip
    assert meta == DocumentMeta(
        id="rules", title="Ward rules", source="intranet", classes=frozenset({DataClass.PERSONAL}),
        owner="ward 3", language="de-AT", retain_until=datetime.date(2031, 12, 31), tenant="clinic",
    )  # fmt: skip


@pytest.mark.parametrize("empty", ["", None, [], " "])
def test_saying_nothing_changes_nothing(empty: object) -> None:
    said = dict.fromkeys(["id", "title", "owner", "language", "retain_until", "tenant"], empty)
    assert meta_with(DEFAULTS, said | {"classes": "" if empty == " " else empty}).tenant == "clinic"
    assert meta_with(DEFAULTS, said) == DocumentMeta(id="a.md", classes=PUBLIC, tenant="clinic")


def test_i4_a_locked_field_cannot_be_changed() -> None:
    assert refused(DEFAULTS, tenant=SECRET) == "tenant"
    assert (
        refused(MetaDefaults(id="a", classes=PUBLIC, locked=frozenset({"tenant"})), tenant=SECRET) == "tenant"
    )
    strict = MetaDefaults(id="a", classes=frozenset({DataClass.PERSONAL}), locked=frozenset({"classes"}))
    assert refused(strict, classes=["public"]) == "classes"
    assert refused(strict, classes="personal;public") == "classes"
    assert meta_with(strict, {"classes": ["personal"]}).classes == {DataClass.PERSONAL}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", SECRET + "x" * 250), ("id", SECRET + "\x1b[2J"), ("id", SECRET + "\x00"),
        ("id", 7), ("id", [SECRET]),
        ("title", SECRET + "x" * 512), ("source", SECRET + "x" * 1024), ("owner", SECRET + "\n" + SECRET),
        ("classes", SECRET), ("classes", [SECRET]), ("classes", {SECRET: 1}),
        ("classes", [["public"]]), ("classes", 3),
        ("language", SECRET + "_"), ("language", "d"), ("language", "de-" + "x" * 9),
        ("language", "de" + "-abcd" * 8),
        ("retain_until", SECRET), ("retain_until", "2031-02-30"), ("retain_until", "20311231"),
        ("retain_until", datetime.datetime(2031, 1, 1)), ("tenant", SECRET),
    ],
)  # fmt: skip
def test_i4_what_is_malformed_is_refused(name: str, value: object) -> None:
    assert (
        refused(MetaDefaults(id="a", classes=PUBLIC, locked=frozenset({"tenant"})), **{name: value}) == name
    )


def test_a_document_has_an_id_and_a_class() -> None:
    assert refused(MetaDefaults(classes=PUBLIC)) == "id"
    assert refused(MetaDefaults(id="a")) == "classes"


def test_hints_fill_what_nobody_said() -> None:
    hints = {"title": " A\x00 \ttitle\u202e\ud800" + "x" * 600, "language": "de"}
    meta = meta_with(DEFAULTS, {}, hints)
    assert meta.title.startswith("A title xxx")
    assert len(meta.title) <= 512
    assert meta.language == "de"
    said = MetaDefaults(id="a", title="Given", classes=PUBLIC, locked=frozenset({"language"}))
    assert meta_with(said, {}, hints) == DocumentMeta(id="a", title="Given", classes=PUBLIC)
    assert meta_with(DEFAULTS, {"title": "Said"}, hints).title == "Said"
    assert meta_with(DEFAULTS, {}, {"title": "\x00", "language": "not a tag"}) == meta_with(DEFAULTS, {})


def test_rows_are_named_after_their_file() -> None:
    assert DEFAULTS.for_row(7).id == "a.md#7"
    assert MetaDefaults().for_row(7).id == ""


def test_mistakes_of_ours_are_not_refusals() -> None:
    with pytest.raises(ValueError, match="locked"):
        MetaDefaults(locked=frozenset({"text"}))
    for kind, level in (("heading", 0), ("heading", 7), ("row", 1), ("table", 0)):
        with pytest.raises(ValueError, match=r"level|kind"):
            Block(kind, level, "")  # type: ignore[arg-type] # the mistake
