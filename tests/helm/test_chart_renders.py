"""helm lints and renders the chart in every case, and what comes out hangs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart.cases import CASES, EXAMPLE_CASES
from tests.support.chart.rendering import (
    CHART,
    KUBERNETES,
    NAMESPACE,
    Case,
    Manifest,
    Rendered,
    Renderer,
    helm,
    helms,
    manifests,
    template,
)

pytestmark = pytest.mark.slow

NAMESPACED = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.parametrize("binary", helms(), ids=str)
@pytest.mark.parametrize("case", EXAMPLE_CASES, ids=lambda case: case.name)
def test_helm_lints(case: Case, binary: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(dict(case.values)))
    files = [argument for path in (*case.files, values) for argument in ("--values", str(path))]
    # helm before 3.13 lints for the Kubernetes that it was built for.
    known = "--kube-version" in helm("lint", "--help", binary=binary, home=tmp_path).stdout
    version = ["--kube-version", KUBERNETES] if known else []
    result = helm("lint", "--strict", CHART, *version, *files, binary=binary, home=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("binary", helms()[1:], ids=str)
def test_every_helm_of_this_machine_says_the_same(binary: Path, render: Renderer, tmp_path: Path) -> None:
    for case in EXAMPLE_CASES:
        result = template(case, tmp_path, binary=binary)
        assert result.returncode == 0, result.stderr
        said = sorted(manifests(result.stdout), key=identity)
        assert said == sorted(render(case).manifests, key=identity), case.name


def identity(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


@NAMESPACED
def test_objects_are_distinct_labelled_and_in_the_releases_namespace(case: Case, render: Renderer) -> None:
    rendered = render(case)
    names = [identity(manifest) for manifest in rendered.manifests]
    assert len(set(names)) == len(names)
    for manifest in rendered.manifests:
        metadata = manifest["metadata"]
        assert metadata["namespace"] == NAMESPACE, identity(manifest)
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "sovereign-mesh", identity(manifest)
        assert len(metadata["name"]) <= 63, identity(manifest)
    for pod in rendered.pods:
        assert all(len(value) <= 63 for value in pod.labels.values()), pod.owner


def selected(rendered: Rendered, selector: dict[str, str]) -> list[Any]:
    return [pod for pod in rendered.pods if selector.items() <= pod.labels.items()]


@NAMESPACED
def test_services_lead_to_ports_that_there_are(case: Case, render: Renderer) -> None:
    rendered = render(case)
    for service in rendered.of_kind("Service"):
        name = service["metadata"]["name"]
        selector = dict(service["spec"]["selector"])
        # The StatefulSet's controller labels each pod with its name.
        selector.pop("statefulset.kubernetes.io/pod-name", None)
        selector.pop("apps.kubernetes.io/pod-index", None)
        pods = selected(rendered, selector)
        assert pods, f"{name} selects nothing"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in pods:
                numbers = {
                    p["containerPort"] for container in pod.containers() for p in container.get("ports", [])
                }
                assert target in pod.ports() or target in numbers, f"{name}: {target} of {pod.owner}"


@NAMESPACED
def test_what_selects_pods_selects_some(case: Case, render: Renderer) -> None:
    rendered = render(case)
    for manifest in rendered.manifests:
        spec = manifest.get("spec", {})
        selector = spec.get("selector", {}) if isinstance(spec, dict) else {}
        if manifest["kind"] in {"StatefulSet", "Deployment", "PodDisruptionBudget", "PodMonitor"}:
            assert selected(rendered, selector["matchLabels"]), identity(manifest)
        if manifest["kind"] == "NetworkPolicy" and not identity(manifest)[2].endswith("-calls-kubernetes"):
            assert selected(rendered, spec["podSelector"]["matchLabels"]), identity(manifest)
        if manifest["kind"] == "StatefulSet":
            assert spec["serviceName"] in {s["metadata"]["name"] for s in rendered.of_kind("Service")}
        if manifest["kind"] == "ServiceMonitor":
            services = [
                service
                for service in rendered.of_kind("Service")
                if selector["matchLabels"].items() <= service["metadata"]["labels"].items()
            ]
            ports = {port["name"] for service in services for port in service["spec"]["ports"]}
            assert {endpoint["port"] for endpoint in spec["endpoints"]} <= ports, identity(manifest)


def references(rendered: Rendered) -> set[tuple[str, str]]:
    """(kind, name) of the ConfigMaps and claims that pods need to start."""
    found = set()
    for pod in rendered.pods:
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume and not volume["configMap"].get("optional"):
                found.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                found.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        found.add(("ServiceAccount", pod.spec["serviceAccountName"]))
    return found


@NAMESPACED
def test_what_pods_mount_is_made_or_named_in_the_values(case: Case, render: Renderer) -> None:
    rendered = render(case)
    made = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered.manifests}
    given = yaml.safe_dump(dict(case.values)) + "".join(path.read_text() for path in case.files)
    for kind, name in references(rendered) - made:
        assert f": {name}\n" in given, f"{kind} {name} is nowhere"


@NAMESPACED
def test_volumes_that_are_mounted_are_there_and_the_others_used(case: Case, render: Renderer) -> None:
    rendered = render(case)
    claims = {
        f"StatefulSet/{item['metadata']['name']}": {
            claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])
        }
        for item in rendered.of_kind("StatefulSet")
    }
    for pod in rendered.pods:
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])} | claims.get(pod.owner, set())
        mounted = {mount["name"] for c in pod.containers() for mount in c.get("volumeMounts", [])}
        assert mounted == volumes, pod.owner


@NAMESPACED
def test_text_in_config_maps_is_text(case: Case, render: Renderer) -> None:
    for config_map in render(case).of_kind("ConfigMap"):
        for key, text in config_map.get("data", {}).items():
            assert isinstance(text, str), key
            assert text.strip(), f"{config_map['metadata']['name']}: {key} is empty"
            assert "{{" not in text or key.endswith(".json") or "rules" in key, f"{key} was not rendered"
