"""What may be part of a model that is fetched."""

from __future__ import annotations

import pytest

from mesh.core.errors import MeshError, Reason
from node.models import rules as model_rules
from node.models.rules import Rules, Tally, is_safe_name, readable, require_room, size_of

RULES = Rules(1000)


@pytest.mark.parametrize("name", ["config.json", "a/b/c.safetensors", "tokenizer model.json", "ünï", "a..b"])
def test_plain_names_are_safe(name: str) -> None:
    assert is_safe_name(name)
    assert RULES.wants(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "/etc/passwd", "../x", "a/../../x", "a/..", ".", "./x", "a//b", "a/", "a\\b", "a\0b", "a\nb",
        "\x1b[2J", "x" * 513, "/".join("abcdefghi"),
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    assert not is_safe_name(name)
    with pytest.raises(MeshError) as refusal:
        RULES.wants(name)
    assert refusal.value.reason is Reason.MODEL_UNSAFE
    assert not name or name not in refusal.value.message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x/y.PT", "a.pkl", "a.ckpt", "a.npz"])
def test_pickles_are_refused_unless_permitted(name: str) -> None:
    with pytest.raises(MeshError) as refusal:
        RULES.wants(name)
    assert refusal.value.reason is Reason.MODEL_UNSAFE
    assert Rules(1000, allow_pickle=True).wants(name)


def test_left_out_by_pattern_or_hidden() -> None:
    rules = Rules(1000, exclude=("*.bin", "onnx/*"))
    assert not rules.wants("pytorch_model.bin")
    assert not rules.wants("sub/x.bin")
    assert not rules.wants("onnx/model.safetensors")
    assert not rules.wants(".gitattributes")
    assert not rules.wants(".cache/x.bin")
    assert rules.wants("model.safetensors")


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_rules, "MOST_FILES", 2)
    tally = Tally(RULES)
    tally.add_name("a")
    with pytest.raises(MeshError) as refusal:
        tally.add_name("a")
    assert refusal.value.reason is Reason.MODEL_UNSAFE
    tally.add_name("b")
    with pytest.raises(MeshError) as refusal:
        tally.add_name("c")
    assert refusal.value.reason is Reason.MODEL_TOO_LARGE
    tally.add_bytes(1000)
    with pytest.raises(MeshError) as refusal:
        tally.add_bytes(1)
    assert refusal.value.reason is Reason.MODEL_TOO_LARGE
    assert (tally.files, tally.bytes) == (2, 1001)
    require_room(1000, RULES)


def test_sizes() -> None:
    sizes = {"1000": 1000, "2TB": 2 * 10**12, "500GiB": 500 << 30, "3k": None, "1.5G": None, "7M": 7_000_000}
    for text, size in sizes.items():
        if size is None:
            with pytest.raises(ValueError, match="expected a size"):
                size_of(text)
        else:
            assert size_of(text) == size
    with pytest.raises(ValueError, match="expected a size"):
        size_of("5iB")
    assert [readable(size) for size in (5, 2048, 150 << 30)] == ["5 B", "2.0 KiB", "150.0 GiB"]
