"""meshctl index ingest as people see it: the bar, the lines, the table of what was skipped, and Ctrl-C."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control.cli.main import run
from mesh.core.documents import FileSkipped, FileStored, SkippedRow
from mesh.core.errors import MeshError, Reason
from mesh.sdk.files import SourceFile
from mesh.sdk.uploads import FileDone, SoFar


class FakeIndex:
    """Stores every file but those called bad; `end` comes after so many files, if anything does."""

    def __init__(self) -> None:
        self.end: BaseException | None = None
        self.after = 0

    async def ingest(
        self, collection: str, files: list[SourceFile], defaults: Any
    ) -> AsyncIterator[FileDone | SoFar]:
        for number, file in enumerate(files):
            if self.end is not None and number == self.after:
                raise self.end
            yield SoFar(number, number)
            row = SkippedRow(7, "DOCUMENT_UNREADABLE", "expected a row \x1b[31m")
            if file.name.endswith("rows.jsonl"):
                yield FileDone(file, FileStored(2, 2, 1, (row,), 1), True)
            elif "bad" in file.name:
                yield FileDone(file, FileSkipped("DOCUMENT_TOO_LARGE", "less"), False)
            else:
                yield FileDone(file, FileStored(1, 3, 0), True)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    fake = FakeIndex()

    @asynccontextmanager
    async def open_index(profile: Path | None, node: str) -> AsyncIterator[FakeIndex]:
        yield fake

    monkeypatch.setattr("control.cli.index_ingest.open_index", open_index)
    return fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.txt", "bad.txt", "rows.jsonl"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    return tmp_path / "in"


def ingest(folder: Path, *more: str) -> int:
    return run(["index", "ingest", "handbook", str(folder), "--node", "fra-1", *more])


def test_what_was_skipped_is_a_table_and_exit_code_1(
    index: FakeIndex, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert ingest(folder) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "fra-1 holds 3 documents of 3 files in handbook: 5 chunks; 1 documents were there already." in out
    assert "DOCUMENT_TOO_LARGE" in out
    assert "in/rows.jsonl" in out
    assert "\x1b" not in out
    for name in ("bad.txt", "rows.jsonl"):
        (folder / name).unlink()
    assert ingest(folder) == 0
    assert "SKIPPED" not in capsys.readouterr().out


def test_programs_get_one_document(index: FakeIndex, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert ingest(folder, "-o", "json") == 1
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    found = json.loads(out)
    assert (found["documents"], found["unchanged"], found["sent"], found["skipped_total"]) == (3, 1, 2, 2)
    assert found["skipped"][1] == {
        "file": "in/rows.jsonl",
        "row": 7,
        "reason": "DOCUMENT_UNREADABLE",
        "detail": "expected a row \x1b[31m",
    }


def test_a_terminal_gets_a_bar_with_rate_and_time_left(
    index: FakeIndex, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    assert ingest(folder) == 1
    shown = screen.getvalue()
    assert "3/3 files" in shown
    assert "documents/s" in shown
    assert "MB/s" in shown
    assert "0:00:0" in shown


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (KeyboardInterrupt(), 130, "CANCELLED"),
        (MeshError(Reason.NODE_LOST, "the node is gone"), 1, "NODE_LOST"),
    ],
    ids=["Ctrl-C", "a lost node"],
)
def test_an_interruption_says_what_is_done_and_how_to_go_on(
    index: FakeIndex,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    end: BaseException,
    code: int,
    reason: str,
):
    index.end, index.after = end, 2
    assert ingest(folder) == code
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"meshctl: {reason}: ")
    assert "2 of 3 files are done and stay so: run the same command again to go on" in err


def test_nothing_is_pruned_when_a_folder_cannot_be_read(
    index: FakeIndex, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (folder / "closed").mkdir()
    real = __import__("os").scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("mesh.sdk.files.os.scandir", scandir)
    assert ingest(folder, "--prune", "--yes") == 1
    assert "--prune" in capsys.readouterr().err
