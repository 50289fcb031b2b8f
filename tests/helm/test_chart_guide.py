"""The values that the operator's guide shows make a site, each by itself and on top of each other."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart.cases import merged
from tests.support.chart.rendering import CHART, KUBERNETES, Case, Renderer, helm
from tests.support.chart_tools import ROOT, tool

pytestmark = pytest.mark.slow

GUIDE = ROOT / "docs" / "operators-guide.md"
# What the guide lists as there "if you want them"; helm cannot ask a cluster here.
CLUSTER = {"assumeApiVersions": ["monitoring.coreos.com/v1"]}


def shown() -> list[dict[str, Any]]:
    """Its blocks of values, in order: a site's, then what joining a federation changes."""
    fenced = re.findall(r"^( *)```yaml\n(.*?)^ *```", GUIDE.read_text(), re.M | re.S)
    return [yaml.safe_load(textwrap.dedent(body)) for _, body in fenced]


SITE, JOINED = shown()
STAGES = [("guide-site", merged(CLUSTER, SITE)), ("guide-joined", merged(CLUSTER, SITE, JOINED))]


@pytest.mark.parametrize(("name", "values"), STAGES, ids=[name for name, _ in STAGES])
def test_the_guides_values_lint(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    tool("helm")
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    said = helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", path, home=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_guides_values_make_what_it_names(render: Renderer) -> None:
    site, joined = (render(Case(name, values)) for name, values in STAGES)
    (nodes,) = [s for s in site.of_kind("StatefulSet") if s["metadata"]["name"].endswith("-node")]
    assert nodes["spec"]["ordinals"]["start"] == 1
    assert nodes["spec"]["replicas"] == 3
    assert len(site.of_kind("ServiceMonitor")) == len(site.of_kind("PrometheusRule")) == 1
    assert [s["metadata"]["name"] for s in joined.of_kind("StatefulSet")] == ["site-sovereign-mesh-node"]
    assert any("board-client" in str(pod.spec["volumes"]) for pod in joined.pods)


def test_what_it_deletes_at_the_end_is_all_that_stays(render: Renderer) -> None:
    """By the release's label, which claims of StatefulSets, kept claims and Secrets of Jobs have alike."""
    site = render(Case(*STAGES[0]))
    claims = [claim["metadata"] for claim in site.of_kind("PersistentVolumeClaim")]
    for each in site.of_kind("StatefulSet"):
        claims += [claim["metadata"] for claim in each["spec"]["volumeClaimTemplates"]]
    assert len(claims) == 4
    assert "--selector app.kubernetes.io/instance=mesh\n" in GUIDE.read_text()
    assert {claim["labels"]["app.kubernetes.io/instance"] for claim in claims} == {"site"}
    makers = [pod for pod in site.pods if pod.labels.get("sovereign-mesh.io/calls-kubernetes")]
    assert {pod.component for pod in makers} == {"authority", "board-tls", "tokens"}
    for pod in makers:
        (container,) = pod.spec["containers"]
        assert {"name": "INSTANCE", "value": "site"} in container["env"], pod.owner
