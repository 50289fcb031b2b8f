"""meshctl audit over files: what it shows, what it writes, and that what it reads drives neither terminal nor
spreadsheet."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from control.cli import audit_sources
from control.cli.audit_sources import LinesSource, followed, leaves_of, open_sources
from control.cli.audit_view import guarded
from control.cli.main import run
from mesh.core.audit_entries import Leaf
from mesh.core.errors import MeshError, Reason
from mesh.core.strict_json import MAX_ENTRY_BYTES
from tests.support.audit_log import AT, action, client, encoded, lines_of, place, release, serve

ENTRIES = [
    place("d1", "de", ["fr"], refused={"us": "POLICY_SENDER_DENIES"}),
    serve("s1", "fr", "de", cites="d1", at=AT + 1),
    serve("s2", "us", "de", refused="POLICY_RECEIVER_DENIES", at=AT + 2),
    release("h1", "fr", "de", {"snippet": 2}, asked="q1", at=AT + 3),
    action("a1", "revoke", "done", at=AT + 4),
]


class Shell:
    """Runs meshctl audit in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run(["audit", *map(str, arguments)])
        out, err = self._capsys.readouterr()
        return code, out, err

    def text(self, *arguments: object) -> str:
        code, out, err = self(*arguments)
        assert (code, err) == (0, "")
        return out

    def json(self, *arguments: object) -> Any:
        out = self.text(*arguments, "--output", "json")
        assert out.count("\n") == 1
        return json.loads(out)

    def refused(self, code: int, *arguments: object) -> str:
        found, _, err = self(*arguments)
        assert (found, err.count("\n")) == (code, 1), err
        return err


@pytest.fixture
def meshctl(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(lines_of(ENTRIES))
    return path


def test_list_shows_entries_oldest_first(log: Path, meshctl: Shell):
    out = meshctl.text("list", "--log", log)
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["0", "2026-03-01T12:00:00Z", "place"],
        ["1", "2026-03-01T12:00:01Z", "serve"],
        ["2", "2026-03-01T12:00:02Z", "serve"],
        ["3", "2026-03-01T12:00:03Z", "release"],
        ["4", "2026-03-01T12:00:04Z", "action"],
    ]
    assert "DE → FR" in out
    assert "refused POLICY_RECEIVER_DENIES" in out
    assert "clinic/app (de)" in out


def test_list_keeps_the_newest_and_says_how_many_there_are(log: Path, meshctl: Shell):
    assert "and 3 older ones" in meshctl.text("list", "--log", log, "--limit", 2)
    found = meshctl.json("list", "--log", log, "--limit", 2)
    assert [entry["index"] for entry in found["entries"]] == [3, 4]
    assert (found["matching"], found["unreadable_total"]) == (5, 0)


def test_list_by_options(log: Path, meshctl: Shell):
    found = meshctl.json(
        "list", "--log", log, "--kind", "serve", "--to-country", "FR", "--from", "2026-03-01"
    )
    assert [entry["id"] for entry in found["entries"]] == ["s1"]
    assert meshctl.text("list", "--log", log, "--id", "nobody") == "no such entry\n"


@pytest.mark.parametrize(
    "words",
    [("--kind", "novel"), ("--from", "soon"), ("--class", "x"), ("--to-country", "XX"), ("--limit", "0")],
)
def test_words_that_mean_nothing_are_wrong_usage(log: Path, meshctl: Shell, words: tuple[str, str]):
    meshctl.refused(2, "list", "--log", log, *words)


def test_several_logs_and_folders(log: Path, tmp_path: Path, meshctl: Shell):
    (tmp_path / "actions.jsonl").write_bytes(lines_of([action("a9", "revoke", "done")]))
    by_folder = meshctl.json("list", "--log", tmp_path)
    by_name = meshctl.json("list", "--log", log, "--log", tmp_path / "actions.jsonl")
    assert len(by_folder["entries"]) == len(by_name["entries"]) == 6
    assert "actions.jsonl" in meshctl.text("list", "--log", tmp_path)


def test_logs_that_cannot_be_read(tmp_path: Path, meshctl: Shell):
    assert "NOT_FOUND" in meshctl.refused(1, "list", "--log", tmp_path / "none.jsonl")
    assert "NOT_FOUND" in meshctl.refused(1, "list", "--log", tmp_path)
    assert "regular file" in meshctl.refused(1, "list", "--log", "/dev/null")
    meshctl.refused(2, "list")


def test_standard_input(meshctl: Shell, monkeypatch: pytest.MonkeyPatch):
    class Given:
        buffer = io.BytesIO(lines_of(ENTRIES))

    monkeypatch.setattr(sys, "stdin", Given())
    found = meshctl.json("list", "--log", "-", "--kind", "release")
    assert [(entry["log"], entry["index"]) for entry in found["entries"]] == [("standard input", 3)]


@pytest.mark.slow
def test_show_by_index_and_by_id(log: Path, meshctl: Shell):
    [entry] = meshctl.json("show", 2, "--log", log)["entries"]
    assert entry["entry"] == ENTRIES[2]
    linked = meshctl.json("show", "d1", "--log", log)["entries"]
    assert [each["kind"] for each in linked] == ["place", "serve"]
    out = meshctl.text("show", "d1", "--log", log)
    assert '"policies": [' in out
    assert "NOT_FOUND" in meshctl.refused(1, "show", "nobody", "--log", log)
    assert "NOT_FOUND" in meshctl.refused(1, "show", 99, "--log", log)


@pytest.mark.slow
def test_what_entries_say_drives_no_terminal(tmp_path: Path, meshctl: Shell):
    path = tmp_path / "hostile.jsonl"
    evil = "\x1b]0;owned\x07\x9b31m\u202e\r[bold]"
    path.write_bytes(
        lines_of(
            [{**serve(evil, "fr", "de"), "caller": evil, "model": evil}, {"kind": evil, "at": AT, "x": evil}]
        )
        + b'{"kind":"serve\x1b","at":'
    )
    for arguments in (("list",), ("show", "0"), ("show", "1"), ("report",), ("list", "--output", "json"),
                      ("show", "1", "--output", "json"), ("report", "--output", "json")):  # fmt: skip
        _, out, err = meshctl(*arguments, "--log", path)
        for char in out + err:
            assert char.isprintable() or char == "\n", (arguments, char)


def test_what_cannot_be_read_is_said(log: Path, meshctl: Shell):
    with log.open("ab") as file:
        file.write(b"nonsense\n" + b"x" * (MAX_ENTRY_BYTES * 3) + b"\n" + encoded(ENTRIES[4]))
    found = meshctl.json("list", "--log", log)
    assert [each["index"] for each in found["unreadable"]] == [5, 6]
    assert len(found["entries"]) == 6  # the last line counts, though no line break ends it
    assert "2 entries could not be read:" in meshctl.text("list", "--log", log)
    assert "ENTRY_MALFORMED" in meshctl.refused(1, "show", 5, "--log", log)


# --- files that it writes --------------------------------------------------------------------------


def test_an_export_reads_back_as_it_was(log: Path, tmp_path: Path, meshctl: Shell):
    with log.open("ab") as file:
        file.write(b"torn\n")
    out = tmp_path / "export.jsonl"
    assert meshctl.json("export", "--log", log, "--out", out)["entries"] == 5
    assert stat.S_IMODE(out.stat().st_mode) == 0o600

    async def leaves(path: Path) -> list[Leaf]:
        return [leaf async for leaf in leaves_of(open_sources([path]))]

    before, after = asyncio.run(leaves(log)), asyncio.run(leaves(out))
    assert after[:5] == before[:5]  # the same bytes, under the same log and index
    assert (after[5].index, after[5].data) == (5, b"")
    some = tmp_path / "some.jsonl"
    meshctl.json("export", "--log", log, "--out", some, "--kind", "serve")
    assert [leaf.index for leaf in asyncio.run(leaves(some))] == [1, 2]
    # A log and its export, read together, count once.
    logs = meshctl.json("report", "--log", log, "--log", some)
    assert (logs["totals"]["flows"], logs["logs"][0]["copies"]) == (1, 2)


@pytest.mark.slow
def test_nothing_is_overwritten_unless_told(log: Path, tmp_path: Path, meshctl: Shell):
    out = tmp_path / "out.html"
    out.write_text("mine")
    for command in ("export", "report"):
        assert "--force" in meshctl.refused(1, command, "--log", log, "--out", out)
        assert out.read_text() == "mine"
        meshctl.text(command, "--log", log, "--out", out, "--force")
        assert out.read_text() != "mine"
        out.write_text("mine")
    assert "NOT_FOUND" in meshctl.refused(1, "export", "--log", log, "--out", tmp_path / "no" / "such")


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, meshctl: Shell):
    meshctl.refused(1, "export", "--log", tmp_path / "none", "--out", tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_csv_is_for_spreadsheets_and_holds_no_formula(tmp_path: Path, meshctl: Shell):
    path, out = tmp_path / "log.jsonl", tmp_path / "log.csv"
    formula = '=HYPERLINK("x","y")'
    path.write_bytes(lines_of([{**serve("s1", "fr", "de"), "model": formula, "reason": " @SUM(1)"}]))
    meshctl.text("export", "--log", path, "--format", "csv", "--out", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    [row] = csv.DictReader(out.read_text().splitlines())
    assert row["subject"] == "'" + formula
    assert row["reason"] == "' @SUM(1)"
    assert (row["from"], row["to"], row["caller"], row["data_classes"]) == (
        "DE",
        "FR",
        client("de"),
        "personal",
    )


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", " =1", "\uff1d1", "|x", "%0A", "\t=1"])
def test_formulas_are_marked_as_text(cell: str):
    assert guarded(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["", "a=1", "12", "spiffe://de.mesh.example/node/one", " "])
def test_what_is_no_formula_stays(cell: str):
    assert guarded(cell) == cell


def test_a_report_as_text_page_and_document(log: Path, tmp_path: Path, meshctl: Shell):
    out = tmp_path / "report.html"
    text = meshctl.text("report", "--log", log, "--out", out)
    assert "1 flows, 1 of them across a border" in text
    assert "evidence for a person to judge" in text
    assert out.read_text().startswith("<!doctype html>")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    document = meshctl.json("report", "--log", log, "--from", "2026-03-01", "--to", "2026-03-01T12:00:01Z")
    assert document["schema"] == "sovereign-mesh/audit-report/v1"
    assert document["totals"]["entries"] == 1
    meshctl.refused(2, "report", "--log", log, "--from", "2026-03-02", "--to", "2026-03-01")


# --- following -------------------------------------------------------------------------------------


async def test_a_followed_log_gives_what_comes_and_waits_for_whole_lines(log: Path):
    async with asyncio.timeout(20):
        leaves = followed([LinesSource(log, poll_s=0.001)], 2)
        assert [(await anext(leaves)).index for _ in range(2)] == [3, 4]
        line = lines_of([ENTRIES[0]])
        with log.open("ab", buffering=0) as file:
            file.write(line[:20])
            waiting = asyncio.ensure_future(anext(leaves))
            await asyncio.sleep(0)
            file.write(line[20:])
        leaf = await waiting
        assert (leaf.index, leaf.data + b"\n") == (5, line)
        await leaves.aclose()


async def test_a_log_that_is_cut_while_it_is_followed_is_an_error(log: Path):
    async with asyncio.timeout(20):
        leaves = followed([LinesSource(log, poll_s=0.001)], 1)
        await anext(leaves)
        os.truncate(log, 0)
        with pytest.raises(MeshError) as caught:
            await anext(leaves)
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("form", ["text", "json"])
def test_follow_prints_one_line_an_entry(
    meshctl: Shell, monkeypatch: pytest.MonkeyPatch, form: str, capsys: pytest.CaptureFixture[str]
):
    class Given:
        buffer = io.BytesIO(lines_of(ENTRIES) + b"torn\n")

    monkeypatch.setattr(sys, "stdin", Given())
    code, out, err = meshctl("follow", "--log", "-", "--kind", "serve", "--output", form)
    assert (code, err, out.count("\n")) == (0, "", 3)
    if form == "json":
        lines = [json.loads(line) for line in out.splitlines()]
        assert [line.get("id") for line in lines] == ["s1", "s2", None]
        assert lines[0]["entry"] == ENTRIES[1]
        assert lines[2]["unreadable"] == "ENTRY_MALFORMED"
    else:
        assert "POLICY_RECEIVER_DENIES" in out.splitlines()[1]
        assert "cannot be read" in out.splitlines()[2]


def test_too_many_logs_are_refused(tmp_path: Path, meshctl: Shell):
    many = tmp_path / "many"
    many.write_bytes(b"".join(b'{"origin":"%d","index":0,"entry":{}}\n' % n for n in range(99)))
    assert "at most 64 logs in one file" in meshctl.refused(1, "list", "--log", many)
    for number in range(audit_sources.MAX_SOURCES + 1):
        (tmp_path / f"{number}.jsonl").touch()
    with pytest.raises(MeshError, match="at most"):
        open_sources([tmp_path])
