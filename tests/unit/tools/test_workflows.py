"""The workflows: linted, pinned, no more rights than each job needs, and about targets that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart_tools import run_tool

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


def test_actionlint_has_nothing_to_say() -> None:
    result = run_tool("actionlint", "-no-color", *WORKFLOWS)
    assert result.returncode == 0, result.stdout


def test_zizmor_has_nothing_to_say() -> None:
    result = run_tool("zizmor", "--offline", "--quiet", "--color=never", *WORKFLOWS)
    assert result.returncode == 0, result.stdout


def test_every_action_is_pinned_by_commit_and_to_one_only() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in re.findall(r"uses: (.*)", path.read_text()):
            match = re.fullmatch(r"([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
            assert match, f"{path.name}: {line}"
            pins.setdefault(match[1], set()).add(match[2])
    assert pins
    assert all(len(commits) == 1 for commits in pins.values()), pins


def test_every_image_that_a_workflow_uses_is_pinned_by_digest() -> None:
    for path in WORKFLOWS:
        for image in re.findall(r"(?:image|generator)=([\w./-]+:[\w.-]+\S*)", path.read_text()):
            assert re.search(r"@sha256:[0-9a-f]{64}$", image), image


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_rights_are_named_job_by_job(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for job in jobs(path).values():
        assert job["permissions"]["contents"] == "read"
        assert "timeout-minutes" in job


def test_the_release_builds_every_target_after_the_tests() -> None:
    release = jobs(ROOT / ".github" / "workflows" / "release.yaml")
    targets = {
        entry["target"]: entry["suffix"] for entry in release["images"]["strategy"]["matrix"]["include"]
    }
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.M))
    assert targets == {"cpu": "", "gpu": "-gpu", "control": "-control"}
    assert set(targets) <= stages
    assert release["images"]["needs"] == "test"
    assert release["chart"]["needs"] == "images"


def test_ci_runs_what_is_run_here() -> None:
    steps = jobs(ROOT / ".github" / "workflows" / "ci.yaml")["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make check", "make test"]


def test_the_chart_asks_for_the_images_that_the_release_pushes() -> None:
    chart = ROOT / "helm" / "sovereign-mesh"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    # As the release looks for them before it builds anything.
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f'\nappVersion: "{version}"\n' in (chart / "Chart.yaml").read_text()
    text = (ROOT / ".github" / "workflows" / "release.yaml").read_text()
    repository = yaml.safe_load((chart / "values.yaml").read_text())["image"]["repository"]
    assert re.search(r"^  IMAGE: ghcr\.io/\$\{\{ github\.repository_owner \}\}/(\w+)$", text, re.M)
    assert repository == "ghcr.io/sovereign-mesh/node"
    names = (chart / "templates" / "_names.tpl").read_text()
    assert '"%s-gpu"' in names
    assert ".AppVersion }}-control\n" in names
