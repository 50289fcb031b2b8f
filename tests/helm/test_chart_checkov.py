"""checkov, offline, over every case: what it finds is explained in checkov.yaml, and no more is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart.cases import CASES
from tests.support.chart.rendering import Renderer
from tests.support.chart_tools import ROOT, run_tool

pytestmark = pytest.mark.slow

FRAMEWORKS = ("kubernetes", "dockerfile", "github_actions")
EXPLAINED = yaml.safe_load((ROOT / "tests" / "helm" / "checkov.yaml").read_text())


def checkov(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The checks that failed, by framework."""
    result = run_tool(
        "checkov", "--directory", folder, "--framework", *FRAMEWORKS,
        "--skip-download", "--compact", "--quiet", "--output", "json",
    )  # fmt: skip
    answers = json.loads(result.stdout)
    for answer in answers:
        assert answer["summary"]["parsing_errors"] == 0
        assert answer["summary"]["passed"] > 50
    return {answer["check_type"]: answer["results"]["failed_checks"] for answer in answers}


def explanations(finding: tuple[str, str]) -> Iterator[int]:
    check, resource = finding
    for number, entry in enumerate(EXPLAINED):
        if entry["check"] == check and re.fullmatch(entry["resource"], resource):
            yield number


def test_nothing_is_found_that_is_not_explained(render: Renderer, tmp_path: Path) -> None:
    # What two cases have in common is looked at once.
    distinct = {json.dumps(manifest, sort_keys=True) for case in CASES for manifest in render(case).manifests}
    texts = "\n---\n".join(sorted(distinct))
    (tmp_path / "release.yaml").write_text(texts)
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    answers = checkov(tmp_path)
    assert set(answers) == set(FRAMEWORKS)
    assert answers["dockerfile"] == answers["github_actions"] == []
    findings = set()
    for found in answers["kubernetes"]:
        kind, _, rest = found["resource"].partition(".")
        findings.add((found["check_id"], f"{kind}.{rest.rpartition('.')[2]}", found["check_name"]))
    unexplained = [finding for finding in sorted(findings) if not list(explanations(finding[:2]))]
    assert not unexplained
    used = {number for finding in findings for number in explanations(finding[:2])}
    assert used == set(range(len(EXPLAINED))), "an explanation that nothing needs"


def test_every_explanation_has_a_reason() -> None:
    for entry in EXPLAINED:
        assert set(entry) == {"check", "resource", "reason"}
        assert len(entry["reason"].split()) >= 5
