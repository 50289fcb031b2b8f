"""Alerts, runbooks and dashboard say only what exists: metrics with these labels, reasons, runbooks, tests.

That rules and queries are PromQL, and that alerts fire when they should, is tested with promtool:
tests/integration/test_promtool.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.core.errors import Reason
from mesh.core.types import DataClass
from mesh.telemetry.last_minute import FAILURES
from mesh.telemetry.metrics import CATALOGUE, Kind
from tools import dashboard

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/sovereign-mesh/files/rules/sovereign-mesh.yaml"
RUNBOOKS = ROOT / "docs/runbooks"
PROMTOOL = sorted((ROOT / "tests/promtool").glob("*.test.yaml"))

# What Prometheus adds to every series of a target, or a histogram to its buckets.
OF_TARGETS = {"job", "instance"}
OF_ALL = {"__name__", "le"}

_SELECTOR = re.compile(r"(?<![\w:])(sovereign_mesh_\w+)(?!\w*:)(?:\{([^}]*)\})?")
_RECORDED = re.compile(r"(?<![\w:])((?:job|service):sovereign_mesh_\w+:\w+)")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_BY = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, and where it stands."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in dashboard.dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for file in PROMTOOL:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for series in test["input_series"]:
                yield f"{file.name}: {test['name']}", series["series"]


def series_names() -> dict[str, set[str]]:
    """Every series that a daemon shows, and its labels."""
    found = {"up": OF_TARGETS}
    for metric in CATALOGUE:
        labels = set(metric.labels) | OF_TARGETS
        if metric.kind is Kind.HISTOGRAM:
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found[f"{metric.name}_sum"] = found[f"{metric.name}_count"] = labels
        else:
            found[metric.name] = labels
    return found


def test_the_scan_sees_the_rules() -> None:
    assert len(alerts()) > 20
    assert len(PROMTOOL) > 3
    assert len([where for where, _ in queries() if where.startswith("panel ")]) > 40


def test_every_metric_exists_with_these_labels() -> None:
    known = series_names()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for where, expression in queries():
        for name, matchers in _SELECTOR.findall(expression):
            assert name in known, f"{where}: {name}"
            labels = {label for label, _, _ in _MATCHER.findall(matchers)}
            assert labels <= known[name], f"{where}: {name} has no {labels - known[name]}"
        used = {label for name, _ in _SELECTOR.findall(expression) for label in known[name]}
        used |= {"service", "job", "from", "to", "class"} if _RECORDED.search(expression) else set()
        for names in _BY.findall(expression):
            by = {label.strip() for label in names.split(",") if label.strip()}
            assert by <= used | OF_ALL | OF_TARGETS, f"{where}: by {by - used}"
        for name in _RECORDED.findall(expression):
            assert name in recorded, f"{where}: {name}"


def test_every_value_that_is_asked_for_can_occur() -> None:
    closed = {
        "reason": {reason.code for reason in Reason} | {"none"},
        "class": {str(each) for each in DataClass},
        "service": {
            f"sovereign.mesh.v1.{each}" for each in ("Inference", "Retrieval", "Shard", "Index", "Placement")
        },
        "outcome": {"permitted", "refused", "failed", "granted", "renewed"},
        "state": {"starting", "ready", "failed", "stopped", "opening", "rebuilding", "mismatch"},
    }
    for where, expression in queries():
        for label, operator, pattern in _MATCHER.findall(expression):
            if label not in closed or pattern.startswith("$"):
                continue
            alternatives = [pattern] if operator in ("=", "!=") else _alternatives(pattern)
            for each in alternatives:
                assert any(re.fullmatch(each, value) for value in closed[label]), f"{where}: {label} {each}"


def _alternatives(pattern: str) -> list[str]:
    """The branches of a pattern of the form a|b or prefix(a|b)."""
    found = re.fullmatch(r"(.*)\(([^()]*)\)", pattern)
    if found is None:
        return pattern.split("|")
    return [found[1] + branch for branch in found[2].split("|")]


def test_a_failure_is_the_same_for_alerts_and_for_top() -> None:
    codes = {pattern for _, expression in queries() for pattern in re.findall(r'code=~"([^"]*)"', expression)}
    assert {frozenset(pattern.split("|")) for pattern in codes} == {FAILURES}


def test_every_policy_reason_that_callers_meet_counts_as_a_refusal_by_policy() -> None:
    (rule,) = [each for each in rules() if each.get("record") == "job:sovereign_mesh_policy_refusals:rate10m"]
    (pattern,) = re.findall(r'reason=~"([^"]*)"', rule["expr"])
    for reason in Reason:
        if re.fullmatch(pattern, reason.code):
            # Malformed and untimely permits are included: that is how a forged one shows.
            assert reason.is_policy or reason.code.startswith("PERMIT_"), reason


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_is_to_be_said(alert: dict[str, Any]) -> None:
    name, annotations = alert["alert"], alert["annotations"]
    assert re.fullmatch(r"Mesh[A-Z]\w+", name)
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == f"https://RUNBOOKS/{name}.md"
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert all(part in text for part in ("**What users notice.**", "\n## Look\n", "\n## Fix\n", "```bash\n"))


def test_every_runbook_has_an_alert_and_the_index_has_all() -> None:
    names = {alert["alert"] for alert in alerts()}
    assert len(names) == len(alerts())
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == names | {"README"}
    index = (RUNBOOKS / "README.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", index, re.M))
    assert rows == {alert["alert"]: alert["labels"]["severity"] for alert in alerts()}


def test_every_alert_is_tested_both_ways() -> None:
    """There is a test in which it fires, and the healthy mesh has what it looks at."""
    fires = " ".join(
        str(sample["labels"])
        for file in PROMTOOL
        for test in yaml.safe_load(file.read_text())["tests"]
        for expected in test["promql_expr_test"]
        for sample in expected["exp_samples"]
    )
    healthy = (ROOT / "tests/promtool/healthy.test.yaml").read_text()
    for alert in alerts():
        assert f'alertname="{alert["alert"]}"' in fires, alert["alert"]
        for name, _ in _SELECTOR.findall(alert["expr"]):
            assert f"{name}{{" in healthy, f"{alert['alert']} looks at {name}"


@pytest.mark.parametrize("file", PROMTOOL, ids=lambda file: file.name)
def test_recordings_come_first_in_tests(file: Path) -> None:
    """promtool evaluates groups in any order but this one, and alerts would see what was recorded before."""
    groups = [group["name"] for group in yaml.safe_load(RULES.read_text())["groups"]]
    assert yaml.safe_load(file.read_text())["group_eval_order"] == groups
    assert groups[0].endswith("-recordings")


def test_the_dashboard_is_what_is_generated() -> None:
    assert dashboard.FILE.read_text() == dashboard.render(), "run python -m tools.dashboard"


def test_the_dashboards_form() -> None:
    """What Grafana needs to load it: ids, places that do not overlap, the data source as a variable."""
    found = json.loads(dashboard.FILE.read_text())
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    sources = {json.dumps(target["datasource"]) for panel in panels for target in panel.get("targets", ())}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    variables = {each["name"] for each in found["templating"]["list"]}
    assert variables == {"datasource", "job", "instance", "trust_domain"}
    text = dashboard.FILE.read_text()
    assert set(re.findall(r"\$\{?(\w+)", text)) <= variables | {"__rate_interval", "__range", "__all", "1"}
