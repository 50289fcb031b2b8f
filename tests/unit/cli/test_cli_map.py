"""`meshctl map` offline: the table, the document, the picture, and wrong usage."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import audit_log as log
from tests.unit.cli.test_cli_offline import POLICIES, Shell

OFFLINE = [part for c in ("de", "fr", "us") for part in ("--policies", f"{c}={POLICIES / f'{c}.cedar'}")]
DAY = ("--day", "2026-03-01")
PERIOD = ("--from", "2026-03-01", "--to", "2026-03-02")


@pytest.fixture
def meshctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MESHCTL_PROFILE", raising=False)
    return Shell(capsys)


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    file = tmp_path / "nodes.yaml"
    rows = (
        f"  {name}: {{authority: {c.lower()}.mesh.example, location: {c}, operator_domicile: {c},"
        f" controller: {c}, admin_access: [{c}]}}"
        for name, c in (("berlin", "DE"), ("paris", "FR"), ("ashburn", "US"))
    )
    file.write_text("\n".join(("nodes:", *rows)))
    return file


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    internal, special = log.context(("internal",)), log.context(("special-category",))
    entries = [
        *(log.serve(f"a{i}", "fr", "de", context=internal) for i in range(7)),
        log.serve("b", "us", "de", context=special),
        log.serve("c", "de", "de", context=log.context(())),
    ]
    file = tmp_path / "log.jsonl"
    file.write_bytes(log.lines_of(entries))
    return file


def row(text: str, source: str, target: str) -> list[str]:
    (found,) = re.findall(rf"^{source} +(?:\w\w, )*{target}(?:, \w\w)*  +(.*)$", text, re.M)
    return re.split(r"  +", found.strip())


def test_the_table_says_what_may_and_what_did(meshctl: Shell, nodes: Path, logged: Path) -> None:
    code, out, err = meshctl("map", *OFFLINE, *DAY, *PERIOD, "--nodes", nodes, "--log", logged)
    assert (code, err) == (0, "")
    assert row(out, "DE", "FR")[:2] == ["yes", "some 7"]
    assert row(out, "DE", "US")[2:] == ["-", "-", "- 1!"]
    assert "! 1 flows could not go that way now" in out
    assert "1 flows are not on the map" in out
    assert "by 1 log" in out


def test_without_logs_it_says_what_may(meshctl: Shell, nodes: Path) -> None:
    code, out, _ = meshctl(
        "map", *OFFLINE, *DAY, "--nodes", nodes, "--action", "infer", "--class", "personal"
    )
    assert code == 0
    assert out.splitlines()[0].split() == ["FROM", "TO", "PERSONAL"]
    assert row(out, "DE", "DE") == ["yes"]
    assert not re.search(r"\d", out)
    found = meshctl.json("map", *OFFLINE, *DAY, "--nodes", nodes)
    assert found["flows_read"] is None
    assert found["actions"] == ["infer", "embed", "search", "release"]


def test_the_same_flows_give_the_same_picture(
    meshctl: Shell, nodes: Path, logged: Path, tmp_path: Path
) -> None:
    made = []
    for name in ("one.svg", "two.svg"):
        file = tmp_path / name
        code, _, _ = meshctl("map", *OFFLINE, *DAY, *PERIOD, "--nodes", nodes, "--log", logged, "--svg", file)
        assert code == 0
        made.append(file.read_bytes())
    assert made[0] == made[1]
    assert "flows from 2026-03-01T00:00:00Z" in "".join(ElementTree.fromstring(made[0]).itertext())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--policies", "de=x"),
        ("--action", "fly"),
        ("--class", "secret"),
        ("--from", "yesterday"),
        ("--from", "2026-03-02", "--to", "2026-03-01"),
        ("--no-logs", "--log", "x"),
        ("--by", "continent"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(meshctl: Shell, arguments: tuple[str, ...]) -> None:
    code, out, err = meshctl("map", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_log_that_is_named_must_be_there(meshctl: Shell, nodes: Path, tmp_path: Path) -> None:
    code, _, err = meshctl("map", *OFFLINE, "--nodes", nodes, "--log", tmp_path / "none.jsonl")
    assert (code, err.startswith("meshctl: NOT_FOUND")) == (1, True)
