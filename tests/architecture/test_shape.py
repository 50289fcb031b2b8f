"""The rules that keep the code readable, as tests: STYLE's habits 8, 10 and 11."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.core.errors import Reason

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mesh", "node", "control", "demo", "bench")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}


def test_the_scan_sees_the_code() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "a module opens with its purpose"
    assert len(docstring) >= 20


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_holds_two_ideas(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 450, f"{lines} lines: past 400 a file usually holds two ideas"
    assert path.stem not in NAMES_THAT_SAY_NOTHING


def test_reason_codes_are_distinct_and_mapped() -> None:
    ordinals = [reason.value.ordinal for reason in Reason]
    assert len(set(ordinals)) == len(ordinals) == len(Reason.__members__)
    statuses = {
        "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED",
        "FAILED_PRECONDITION", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL",
        "ALREADY_EXISTS",
    }  # fmt: skip
    for reason in Reason:
        assert reason.grpc in statuses
        assert 400 <= reason.http < 600


def test_every_reason_is_used() -> None:
    source = "\n".join(p.read_text() for p in MODULES if p.name != "errors.py")
    unused = [reason.name for reason in Reason if f"Reason.{reason.name}" not in source]
    assert not unused, f"codes nobody gives: {unused}"


@pytest.mark.slow
def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    script = ROOT / "tools" / "generate_protos.sh"
    subprocess.run(
        [str(script), str(tmp_path)], check=True, capture_output=True, timeout=120,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    generated = sorted(
        p.relative_to(tmp_path) for p in tmp_path.rglob("*.py*") if "__pycache__" not in p.parts
    )
    assert generated
    for relative in generated:
        assert (tmp_path / relative).read_bytes() == (ROOT / relative).read_bytes(), relative


def test_nothing_of_this_machine_or_of_a_registry_is_in_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org"]
    for name in listed.splitlines():
        path = ROOT / name
        if not path.is_file() or path.suffix in {".png", ".gz"}:
            continue
        text = path.read_text(errors="replace")
        for word in [*hosts, str(ROOT) + "/"]:
            assert word not in text, f"{name} names {word}"
