"""The digest of a model: what changes it, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.engine.model_files import folder_digest, model_digest


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
