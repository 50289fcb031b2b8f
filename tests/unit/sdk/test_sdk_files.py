"""Which files are documents, and what they are called."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.sdk.files import files_under, fingerprint, open_file
from node.index.parsing.media import media_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "handbook"
    for name in ("b.txt", "a.md", "deep/er/c.PDF", ".git/x.txt", ".hidden.txt", "tool.exe"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "link.txt").symlink_to(root / "b.txt")
    (root / "outside").symlink_to("/")
    os.mkfifo(root / "pipe.txt")
    return root


def test_a_folder_is_walked_in_order_without_links_and_hidden_files(folder: Path):
    files, left_out = files_under([folder])
    assert [(file.name, file.bytes) for file in files] == [
        ("handbook/a.md", 4), ("handbook/b.txt", 5), ("handbook/deep/er/c.PDF", 13),
    ]  # fmt: skip
    assert sorted((each.path.name, each.why) for each in left_out) == [
        ("link.txt", "a link"), ("outside", "a link"), ("pipe.txt", "not a regular file"),
        ("tool.exe", "not a kind of document"),
    ]  # fmt: skip


def test_names_do_not_depend_on_how_the_folder_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    expected = [file.name for file in files_under([folder])[0]]
    monkeypatch.chdir(folder)
    assert [file.name for file in files_under([Path()])[0]] == expected
    assert [file.name for file in files_under([Path("../handbook/deep/..")])[0]] == expected
    assert [file.name for file in files_under([Path("b.txt")], "wiki/")[0]] == ["wiki/b.txt"]


def test_a_file_named_itself_is_taken_whatever_its_ending(folder: Path):
    assert [file.name for file in files_under([folder / "tool.exe"])[0]] == ["tool.exe"]


def test_what_is_not_there_and_what_has_one_name_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(MeshError) as error:
        files_under([folder / "none.txt"])
    assert error.value.reason is Reason.NOT_FOUND
    other = tmp_path / "other" / "handbook"
    other.mkdir(parents=True)
    (other / "a.md").write_text("another")
    with pytest.raises(MeshError) as error:
        files_under([folder, other])
    assert error.value.reason is Reason.REQUEST_INVALID
    assert [file.name for file in files_under([folder, folder])[0]] == [
        file.name for file in files_under([folder])[0]
    ]


def test_names_that_cannot_be_shown_are_left_out(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("\x1b[31m.txt", os.fsdecode(b"\xff\xfe.txt")):
        (tmp_path / "in" / name).write_text("x")
    files, left_out = files_under([tmp_path / "in"])
    assert files == []
    assert len(left_out) == 2


def test_every_ending_that_is_walked_is_one_that_nodes_read(folder: Path):
    from mesh.sdk.files import EXTENSIONS

    assert all(media_of(f"x{ending}") for ending in EXTENSIONS)


def test_a_file_that_became_a_link_is_not_followed(folder: Path):
    files, _ = files_under([folder / "b.txt"])
    with open_file(files[0]) as opened:
        assert fingerprint(opened) == (hashlib.sha256(b"b.txt").digest(), 5)
        assert opened.read() == b"b.txt"
    (folder / "b.txt").unlink()
    (folder / "b.txt").symlink_to("/etc/hostname")
    with pytest.raises(OSError):  # noqa: PT011  which one is the system's business
        open_file(files[0])
