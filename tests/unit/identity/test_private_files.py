"""Files that hold keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import read_file, write_file


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


def test_written_files_are_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_file(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_file(path, private=True) == b"secret"
    assert os.listdir(tmp_path) == ["a.key"]


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_file(path, b"first")
    with refused(Reason.CONFIG_INVALID):
        write_file(path, b"second")
    assert path.read_bytes() == b"first"
    write_file(path, b"third", replace=True)
    assert path.read_bytes() == b"third"
    assert os.listdir(tmp_path) == ["a.key"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.key"
    write_file(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new", replace=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_what_others_may_read_or_write_is_no_private_file(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    write_file(path, b"secret")
    path.chmod(mode)
    with refused(Reason.CONFIG_INVALID):
        read_file(path, private=True)
    assert read_file(path) == b"secret"


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    with refused(Reason.NOT_FOUND):
        read_file(tmp_path / "missing")
    with refused(Reason.CONFIG_INVALID):
        read_file(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with refused(Reason.CONFIG_INVALID):
        read_file(tmp_path / "pipe", private=True)  # and does not wait for a writer
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with refused(Reason.CONFIG_INVALID):
        read_file(tmp_path / "link", private=True)


def test_reading_is_bounded(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"12345")
    assert read_file(tmp_path / "a", limit=5) == b"12345"
    with refused(Reason.CONFIG_INVALID):
        read_file(tmp_path / "a", limit=4)
