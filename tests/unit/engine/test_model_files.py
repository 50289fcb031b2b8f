"""The digest of a model: what changes it, and what does not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from node.engine.model_files import (
    computed_digest,
    folder_digest,
    is_digest,
    model_digest,
    permitted_model,
    require_digest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "inner" / "weights").write_bytes(b"\0" * 1000)
    return folder


def test_is_of_names_and_contents_alone(folder: Path, tmp_path: Path) -> None:
    first = folder_digest(folder, tmp_path / "cache.json")
    moved = folder.rename(tmp_path / "elsewhere")
    os.utime(moved / "config.json", (1, 1))
    (moved / ".git").mkdir()
    (moved / ".git" / "HEAD").write_text("x")
    assert folder_digest(moved, tmp_path / "other.json") == first
    assert first.startswith("sha256:")


@pytest.mark.parametrize("change", ["content", "name", "added", "boundary"])
def test_any_change_changes_it(folder: Path, tmp_path: Path, change: str) -> None:
    before = folder_digest(folder, tmp_path / "cache.json")
    config = folder / "config.json"
    if change == "content":
        config.write_text("[]")
        os.utime(config, (1, 1))
    elif change == "name":
        config.rename(folder / "config.jsom")
    elif change == "added":
        (folder / "empty").touch()
    else:
        (folder / "inner" / "weights").write_bytes(b"\0" * 999)
    assert folder_digest(folder, tmp_path / "cache.json") != before


def test_is_remembered(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    digest = folder_digest(folder, cache)
    known = cache.read_text()
    cache.write_text(known.replace(digest, "sha256:remembered"))
    assert folder_digest(folder, cache) == "sha256:remembered"
    cache.write_text("not JSON")
    assert folder_digest(folder, cache) == digest


def test_a_cache_that_cannot_be_written_costs_only_time(folder: Path, tmp_path: Path) -> None:
    assert folder_digest(folder, tmp_path / "missing" / "cache.json").startswith("sha256:")


def test_a_hub_id_that_is_not_there_is_known_by_its_name(tmp_path: Path) -> None:
    digests = {
        model_digest("nobody/nothing", "", tmp_path / "c"),
        model_digest("nobody/nothing", "main", tmp_path / "c"),
        model_digest("nobody/else", "", tmp_path / "c"),
    }
    assert len(digests) == 3


def test_is_what_it_says_byte_by_byte(tmp_path: Path) -> None:
    """The format, from its words: nodes of different versions compare these."""
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "a" / "x" / "y").write_bytes(b"")
    total = hashlib.sha256()
    for name, content in ((b"a/x/y", b""), (b"b", b"two")):
        total.update(len(name).to_bytes(8, "big") + name)
        total.update(len(content).to_bytes(8, "big") + hashlib.sha256(content).digest())
    seen: list[int] = []
    assert computed_digest(tmp_path, seen.append) == f"sha256:{total.hexdigest()}"
    assert sum(seen) == 3
    assert folder_digest(tmp_path, tmp_path.parent / "cache.json") == f"sha256:{total.hexdigest()}"


def test_a_change_that_hides_its_time_is_seen(folder: Path, tmp_path: Path) -> None:
    cache, config = tmp_path / "cache.json", folder / "config.json"
    before, stat = folder_digest(folder, cache), config.stat()
    config.write_text("[]")
    os.utime(config, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert config.stat().st_mtime_ns == stat.st_mtime_ns
    assert folder_digest(folder, cache) != before


def test_only_the_model_of_the_digest_is_permitted(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    own = folder_digest(folder, cache)
    assert permitted_model(str(folder), "", own, cache) == str(folder)
    assert permitted_model("any/thing", "", "", cache) == "any/thing"
    (folder / "inner" / "weights").write_bytes(b"1" * 1000)
    with pytest.raises(MeshError) as refusal:
        permitted_model(str(folder), "", own, cache)
    assert refusal.value.reason is Reason.MODEL_DIGEST_MISMATCH
    assert own in refusal.value.message


def test_a_pinned_folder_links_to_no_other(folder: Path, tmp_path: Path) -> None:
    """What lies behind such a link is not part of the digest, but could be loaded."""
    cache, own = tmp_path / "cache.json", folder_digest(folder, tmp_path / "cache.json")
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MeshError) as refusal:
        require_digest(folder, own, cache)
    assert refusal.value.reason is Reason.MODEL_DIGEST_MISMATCH


def test_how_a_digest_reads() -> None:
    assert is_digest(f"sha256:{'0f' * 32}")
    for wrong in ("", "0f" * 32, f"sha256:{'0F' * 32}", f"sha256:{'0f' * 31}", f"sha256:{'0f' * 32}\n"):
        assert not is_digest(wrong)
