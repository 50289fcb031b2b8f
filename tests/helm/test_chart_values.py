"""The chart's values: what is generated from them is current, and wrong or contradictory ones are refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.support.chart.cases import BASE, CASES, FACTORS, allowed, effective, merged
from tests.support.chart.rendering import CHART, Case, template
from tests.support.chart_tools import ROOT, tool

pytestmark = pytest.mark.slow

CONTRADICTIONS = yaml.safe_load((ROOT / "tests" / "helm" / "contradictions.yaml").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
CHECK = Draft7Validator(SCHEMA)


def test_schema_and_readme_are_generated() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tools.chart.generate", "--check"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("contradiction", CONTRADICTIONS, ids=lambda item: item["name"])
def test_a_contradiction_fails_with_its_sentence(contradiction: dict[str, Any], tmp_path: Path) -> None:
    tool("helm")
    result = template(Case("contradiction", contradiction["values"]), tmp_path)
    assert result.returncode != 0, "it was rendered"
    assert f"sovereign-mesh: {contradiction['says']}" in result.stderr
    assert result.stdout == ""


def sentences() -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", (CHART / "templates" / "_validate.tpl").read_text(), flags=re.S)
    return re.findall(r'"sovereign-mesh: ((?:[^"\\]|\\.)*)"', text)


def test_every_sentence_of_the_chart_has_a_contradiction() -> None:
    said = [contradiction["says"] for contradiction in CONTRADICTIONS]
    assert len(sentences()) > 30
    for sentence in sentences():
        pattern = re.sub(r"%[sdv]", ".+", re.escape(sentence))
        assert any(re.match(pattern, other) for other in said), sentence


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_schema_takes_what_is_rendered(case: Case) -> None:
    assert [error.message for error in CHECK.iter_errors(effective(case))] == []


def objects(values: Any, schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all objects whose keys the schema knows."""
    if isinstance(values, dict) and schema.get("properties"):
        yield path
        for key, value in values.items():
            yield from objects(value, schema["properties"].get(key, {}), (*path, key))


def leaves(values: Any, schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, default) of everything that is no object with known keys."""
    if isinstance(values, dict) and schema.get("properties"):
        for key, value in values.items():
            yield from leaves(value, schema["properties"].get(key, {}), (*path, key))
    else:
        yield path, values


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    result: dict[str, Any] = value if not path else {}
    for key in reversed(path):
        value = {key: value}
    return value if path else result


OBJECTS = list(objects(VALUES, SCHEMA))
LEAVES = list(leaves(VALUES, SCHEMA))


def test_the_walk_sees_the_values() -> None:
    assert len(OBJECTS) > 40
    assert len(LEAVES) > 150


def refused(values: dict[str, Any]) -> bool:
    return not CHECK.is_valid(merged(VALUES, BASE, values))


def test_an_unknown_key_is_refused_everywhere() -> None:
    assert not refused({})
    known = [path for path in OBJECTS if not refused(with_value((*path, "mispelled"), True))]
    assert known == []


def wrong_values(default: Any) -> list[Any]:
    """Values of other types than the default's."""
    if isinstance(default, bool):
        return ["true", 1, {"a": 1}, ["a"]]
    if isinstance(default, int | float):
        return ["many", {"a": 1}, [1], True]
    if isinstance(default, str):
        return [{"a": 1}, ["a"], True, 7]
    if isinstance(default, list):
        return ["a", {"a": 1}, 7, True]
    return ["a", ["a"], 7, True]


def test_a_value_of_another_type_is_refused_everywhere() -> None:
    taken = [
        (".".join(path), value)
        for path, default in LEAVES
        for value in wrong_values(default)
        if not refused(with_value(path, value))
    ]
    assert taken == []


def test_null_takes_a_value_out_and_the_chart_says_what_is_missing(tmp_path: Path) -> None:
    """helm drops keys that are null: what a template needs must not come out empty."""
    tool("helm")
    result = template(Case("null", merged(BASE, {"node": {"persistence": None}})), tmp_path)
    assert result.returncode != 0


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"node": {"replica": 3}}, "replica"),
        ({"node": {"replicas": "3"}}, "replicas"),
        ({"etcd": {"replicas": 2}}, "replicas"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"networkPolicy": {"from": {"cidrs": ["everywhere"]}}}, "cidrs"),
    ],
)
def test_helm_itself_refuses_by_the_schema(values: dict[str, Any], word: str, tmp_path: Path) -> None:
    tool("helm")
    scripted = FACTORS["engine"]["scripted"]
    result = template(Case("schema", merged(BASE, scripted, values)), tmp_path)
    assert result.returncode != 0
    assert "values don't meet the specifications of the schema" in result.stderr
    assert word in result.stderr


def test_what_the_matrix_leaves_out_are_contradictions(tmp_path: Path) -> None:
    """No pair of settings is left out of the matrix unless the chart refuses it, or ignores one of them."""
    tool("helm")
    names = list(FACTORS)
    out = [
        ({one: a, other: b})
        for i, one in enumerate(names)
        for other in names[i + 1 :]
        for a in FACTORS[one]
        for b in FACTORS[other]
        if not allowed({one: a, other: b})
    ]
    rendered = []
    for choice in out:
        start: dict[str, str] = {"engine": "scripted", "model": "none"}
        if "engine" in choice or "model" in choice:
            start = {"engine": "cpu", "model": "volume"}
        if choice.get("engine") == "scripted":
            start["engine"] = "scripted"
        layers = [FACTORS[name][value] for name, value in {**start, **choice}.items()]
        if template(Case("left-out", merged(BASE, *layers)), tmp_path).returncode == 0:
            rendered.append(choice)
    # Where control plane or etcd are elsewhere, what is said of theirs here is not looked at.
    ignored = ({"control", "authority"}, {"etcd", "etcdTls"})
    assert all(set(choice) in ignored for choice in rendered), rendered
