"""`meshctl policy prove` and `policy diff` offline: answers, exit codes, one line on stderr."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.unit.cli.test_cli_offline import POLICIES, Shell

OFFLINE = [part for c in ("de", "fr", "us") for part in ("--policies", f"{c}={POLICIES / f'{c}.cedar'}")]
ROOT = POLICIES.parents[1]
DAY = ("--day", "2026-03-01")
UNDER_US_CONTROL = 'resource.controller == Jurisdiction::"US"'
NODES = POLICIES / "de.expect.yaml"
WITHDRAWN = """
@id("de-withdraws-france")
forbid (principal in Jurisdiction::"DE", action, resource in Jurisdiction::"FR");
"""


@pytest.fixture
def meshctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MESHCTL_PROFILE", raising=False)
    return Shell(capsys)


@pytest.fixture
def withdrawn(tmp_path: Path) -> Path:
    file = tmp_path / "new.cedar"
    file.write_text((POLICIES / "de.cedar").read_text() + WITHDRAWN)
    return file


@pytest.mark.slow
def test_the_example_holds_over_any_node(meshctl: Shell) -> None:
    asked = ("--class", "special-category", "--from", "DE", "--never-to", UNDER_US_CONTROL, *DAY)
    code, out, err = meshctl("policy", "prove", *asked, *OFFLINE)
    assert (code, err) == (0, "")
    assert out.startswith("holds: ")
    assert "nodes that could exist" in out
    assert "every authority but de.mesh.example, fr.mesh.example, us.mesh.example" in out
    found = meshctl.json("policy", "prove", *asked, *OFFLINE)
    assert (found["holds"], found["witness"], found["over"]) == (True, None, "any-node")
    assert found["from"] == ["de.mesh.example"]


def test_a_witness_and_exit_code_1(meshctl: Shell) -> None:
    asked = ("--class", "confidential", "--from", "de.mesh.example", "--never-to", UNDER_US_CONTROL, *DAY)
    code, out, err = meshctl("policy", "prove", *asked, *OFFLINE, "--nodes", NODES)
    assert code == 1
    assert "de-everything-at-home" in out
    assert "berlin-us" in out
    assert err.startswith("meshctl: POLICY_NOT_PROVED: ")
    code, out, err = meshctl("policy", "prove", *asked, *OFFLINE, "--nodes", NODES, "-o", "json")
    found = json.loads(out)
    assert (code, found["holds"], found["over"]) == (1, False, "nodes")
    assert found["witness"]["node"]["controller"] == "US"
    assert found["witness"]["permitted_by"][0]["authority"] == "de.mesh.example"
    assert json.loads(err)["error"]["reason"] == "POLICY_NOT_PROVED"


def test_undecided_is_no_yes(meshctl: Shell, tmp_path: Path) -> None:
    odd = tmp_path / "odd.cedar"
    odd.write_text(
        '@id("odd") permit (principal, action, resource) when { {a: context.purpose} == {a: "x"} };'
    )
    error = meshctl.refused(1, "policy", "prove", "--policies", f"de={odd}")
    assert error["reason"] == "POLICY_UNDECIDED"
    assert "odd" in error["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--never-to", "resource.controler == 1"),
        ("--never-to", "true }; @id(\"x\") permit (principal, action, resource) when { true"),
        ("--never-to", 'resource in Group::"Atlantis"'),
        ("--class", "secret"),
        ("--action", "fly"),
        ("--level", "chapter"),
        ("--level", "count", "--action", "infer"),
        ("--purpose", "Not a purpose"),
        ("--from", "ZZ"),
        ("--from", "de.mesh.example/x"),
        ("--day", "tomorrow"),
        ("--any-node", "--nodes", str(NODES)),
        ("--policies", "de"),
        ("--policies", f"de.mesh.example={POLICIES / 'de.cedar'}"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_a_usage_error(meshctl: Shell, wrong: tuple[str, ...]) -> None:
    if wrong[0] == "--from" and "/" in wrong[1]:
        meshctl.refused(1, "policy", "prove", *OFFLINE, *wrong)  # IDENTITY_MALFORMED
        return
    meshctl.refused(2, "policy", "prove", *OFFLINE, *wrong)


def test_without_files_or_profile_there_is_nobody_to_ask(meshctl: Shell) -> None:
    meshctl.refused(2, "policy", "prove")
    meshctl.refused(2, "policy", "diff", POLICIES / "de.cedar")


def test_files_that_cannot_be_read(meshctl: Shell, tmp_path: Path) -> None:
    assert meshctl.refused(1, "policy", "prove", "--policies", "de=/nowhere")["reason"] == "NOT_FOUND"
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe")
    assert meshctl.refused(1, "policy", "prove", "--policies", f"de={bad}")["reason"] == "POLICY_MALFORMED"
    bad.write_text("nodes: [1, 2]")
    error = meshctl.refused(1, "policy", "prove", *OFFLINE, "--nodes", bad)
    assert error["reason"] == "CONFIG_INVALID"


def test_a_difference_names_who_and_why(meshctl: Shell, withdrawn: Path) -> None:
    compared = ("policy", "diff", POLICIES / "de.cedar", withdrawn, "--authority", "de", *DAY)
    asked = ("--policies", f"fr={POLICIES / 'fr.cedar'}", "--nodes", NODES, "--action", "infer")
    code, out, err = meshctl(*compared, *asked)
    assert (code, err) == (0, "")
    assert "closes" in out
    assert "de-withdraws-france" in out
    assert "0 kinds of flows open, 1 close" in out
    found = meshctl.json(*compared, *asked)
    (change,) = found["changes"]
    assert (change["from"], change["to"]) == ("de.mesh.example", "fr.mesh.example")
    assert change["classes"] == ["confidential", "internal", "public"]
    assert change["nodes"] == ["spiffe://fr.mesh.example/node/paris"]
    assert change["witness"]["permitted_by"][0]["policies"]


def test_exit_code_tells_whether_anything_changes(meshctl: Shell, withdrawn: Path) -> None:
    old = POLICIES / "de.cedar"
    asked = (
        "--authority",
        "de.mesh.example",
        "--action",
        "infer",
        "--class",
        "public",
        "--nodes",
        NODES,
        *DAY,
    )
    assert meshctl("policy", "diff", old, withdrawn, *asked, "--exit-code")[0] == 1
    code, out, _ = meshctl("policy", "diff", old, old, *asked, "--exit-code")
    assert code == 0
    assert out.startswith("no flow opens or closes: ")


@pytest.mark.parametrize(
    "wrong",
    [
        ("--authority", "de", "--any-node", "--nodes", str(NODES)),
        ("--policies", f"fr={POLICIES / 'fr.cedar'}"),
        ("--authority", "ZZ"),
    ],
)
def test_a_difference_asked_for_wrongly(meshctl: Shell, wrong: tuple[str, ...]) -> None:
    both = (POLICIES / "de.cedar", POLICIES / "de.cedar")
    meshctl.refused(2, "policy", "diff", *both, *wrong)
    meshctl.refused(2, "policy", "diff", both[0], "--authority", "de")


@pytest.mark.slow
def test_the_offline_commands_of_the_documents_do_what_is_said(
    meshctl: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "policies.md").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith("meshctl policy ")]
    proving = [line for line in lines if " prove " in line]
    comparing = [line for line in lines if " diff " in line and "--authority" in line]
    assert (len(proving), len(comparing)) == (1, 1)
    assert meshctl(*shlex.split(proving[0])[1:])[1].startswith("holds: ")
    assert " open, " in meshctl(*shlex.split(comparing[0])[1:])[1]
