"""The configuration that the chart renders is one that the daemons take, in every case."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from control.config import load_config as load_control
from mesh.core.errors import MeshError
from node.config import NodeSettings
from node.config import load_config as load_node
from tests.support.chart.cases import CASES, effective
from tests.support.chart.rendering import Case, Rendered, Renderer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("case", CASES, ids=lambda case: case.name),
]


def files(rendered: Rendered, suffix: str) -> dict[str, str]:
    return {
        key: text
        for config_map in rendered.of_kind("ConfigMap")
        if config_map["metadata"]["name"].endswith(suffix)
        for key, text in config_map["data"].items()
        if key.endswith(".yaml")
    }


def nodes(rendered: Rendered, folder: Path) -> dict[str, NodeSettings]:
    found = {}
    for name, text in files(rendered, "-node-config").items():
        path = folder / name
        path.write_text(text)
        try:
            found[name.removesuffix(".yaml")] = load_node(path, {})
        except MeshError as error:
            pytest.fail(f"{name}: {error}\n{text}")
    return found


def test_nodes_take_it(case: Case, render: Renderer, tmp_path: Path) -> None:
    rendered, values = render(case), effective(case)
    settings = nodes(rendered, tmp_path)
    if not values["node"]["enabled"]:
        assert not settings
        return
    (stateful_set,) = [s for s in rendered.of_kind("StatefulSet") if s["metadata"]["name"].endswith("-node")]
    first = stateful_set["spec"].get("ordinals", {}).get("start", 0)
    name = stateful_set["metadata"]["name"]
    pods = [f"{name}-{first + i}" for i in range(stateful_set["spec"]["replicas"])]
    assert sorted(settings) == sorted(pods)
    for node in settings.values():
        assert node.telemetry.listen == "0.0.0.0:9464"
        assert node.engine.kind == values["node"]["engine"]["kind"]
        grace = stateful_set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert node.serving.drain_grace_s < grace
    advertised = [address for node in settings.values() for address in node.advertise]
    if not values["gateway"]["enabled"]:
        assert len(set(advertised)) == len(advertised), "two nodes say that they are at one address"


def test_nodes_and_board_agree_on_files(case: Case, render: Renderer, tmp_path: Path) -> None:
    """Whatever file the configuration names is in a folder that is mounted."""
    rendered = render(case)
    for pod in rendered.pods:
        if pod.component != "node" or not pod.owner.startswith("StatefulSet"):
            continue
        (container,) = pod.spec["containers"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for node in nodes(rendered, tmp_path).values():
            named = [node.board.ca, node.board.certificate, node.board.key, node.telemetry.traces.ca]
            named += [node.identity.directory, node.state_directory]
            for path in [path for path in named if path is not None]:
                assert any(str(path).startswith(f"{mount}/") for mount in mounts), f"{path} is not mounted"


def test_control_planes_take_it(case: Case, render: Renderer, tmp_path: Path) -> None:
    rendered, values = render(case), effective(case)
    found = files(rendered, "-control-config") or files(rendered, "-control")
    assert len(found) == int(values["control"]["enabled"])
    for name, text in found.items():
        path = tmp_path / name
        path.write_text(text)
        settings = load_control(path, {})
        assert settings.telemetry.listen == "0.0.0.0:9464"
        assert len(yaml.safe_load(text)["board"]["endpoints"]) >= 1
