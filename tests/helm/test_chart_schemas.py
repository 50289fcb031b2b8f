"""Every manifest of every case against Kubernetes 1.30 to 1.37 and the definitions of custom resources."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.support.chart.cases import CASES
from tests.support.chart.rendering import Manifest, Renderer
from tests.support.chart_tools import ROOT, run_tool

pytestmark = pytest.mark.slow

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
SCHEMAS = ROOT / "tests" / "helm" / "schemas"
OURS = {"ray.io", "gateway.networking.k8s.io"}


def problems(manifests: list[Manifest], versions: list[str] = VERSIONS) -> list[dict[str, Any]]:
    asked = json.dumps({"manifests": manifests, "versions": versions, "schemas": str(SCHEMAS)})
    script = ROOT / "tests" / "support" / "chart" / "validate_manifests.py"
    result = run_tool("python", script, input_text=asked)
    assert result.returncode == 0, result.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_every_manifest_is_what_an_api_server_takes(render: Renderer) -> None:
    distinct: dict[str, tuple[str, Manifest]] = {}
    for case in CASES:
        for manifest in render(case).manifests:
            text = json.dumps(manifest, sort_keys=True)
            distinct.setdefault(text, (case.name, manifest))
    held = list(distinct.values())
    assert len(held) > 200
    found = problems([manifest for _, manifest in held])
    said = [
        f"{held[problem['manifest']][0]}: {held[problem['manifest']][1]['kind']}"
        f" {held[problem['manifest']][1]['metadata']['name']}, {problem['against']}: {problem['problem']}"
        for problem in found
    ]
    assert not said, "\n".join(said[:20])


def test_every_kind_that_the_matrix_is_for_is_there(render: Renderer) -> None:
    kinds = {
        (manifest["apiVersion"].rpartition("/")[0], manifest["kind"])
        for case in CASES
        for manifest in render(case).manifests
    }
    assert {
        ("ray.io", "RayService"),
        ("gateway.networking.k8s.io", "TLSRoute"),
        ("monitoring.coreos.com", "ServiceMonitor"),
        ("monitoring.coreos.com", "PodMonitor"),
        ("monitoring.coreos.com", "PrometheusRule"),
        ("cert-manager.io", "Certificate"),
        ("cert-manager.io", "Issuer"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
        ("batch", "CronJob"),
    } <= kinds


def first(render: Renderer, kind: str) -> Manifest:
    return next(manifest for case in CASES for manifest in render(case).of_kind(kind))


PLACES: list[tuple[str, list[str | int]]] = [
    ("StatefulSet", ["spec", "template", "spec", "containers", 0]),
    ("NetworkPolicy", ["spec"]),
    ("RayService", ["spec", "rayClusterConfig", "headGroupSpec"]),
    ("RayService", ["spec", "rayClusterConfig", "workerGroupSpecs", 0, "template", "spec"]),
    ("TLSRoute", ["spec", "rules", 0, "backendRefs", 0]),
    ("ServiceMonitor", ["spec", "endpoints", 0]),
    ("PodMonitor", ["spec"]),
    ("PrometheusRule", ["spec", "groups", 0]),
    ("Certificate", ["spec", "privateKey"]),
    ("Issuer", ["spec"]),
]


def test_an_unknown_field_is_found_wherever_it_is(render: Renderer) -> None:
    """The check itself: it must not pass what it does not look at."""
    broken = []
    for kind, path in PLACES:
        manifest = json.loads(json.dumps(first(render, kind)))
        where = manifest
        for step in path:
            where = where[step]
        where["mispelled"] = 1
        broken.append(manifest)
    found = {problem["manifest"]: problem["problem"] for problem in problems(broken, ["1.37"])}
    for number, (kind, path) in enumerate(PLACES):
        assert "mispelled" in found.get(number, ""), f"{kind} {path}"


def test_our_own_schemas_are_closed_everywhere() -> None:
    def open_objects(schema: Any, path: str) -> list[str]:
        if isinstance(schema, list):
            return [found for item in schema for found in open_objects(item, path)]
        if not isinstance(schema, dict):
            return []
        here = [path] if "properties" in schema and schema.get("additionalProperties") is not False else []
        return here + [
            found for key, value in schema.items() for found in open_objects(value, f"{path}.{key}")
        ]

    for group in OURS:
        schema = yaml.safe_load((SCHEMAS / f"{group}.yaml").read_text())
        # A pod template is Kubernetes' own, and held against its schema.
        found = [path for path in open_objects(schema, "") if not path.startswith(".definitions.template")]
        assert found == []
