"""The Serve application that a Ray cluster is asked to run: its arguments, without a cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.core.errors import MeshError, Reason
from node.config import EngineSettings

pytestmark = pytest.mark.slow  # imports Ray

SPEC: dict[str, Any] = {"model": "/models/m", "model_name": "m", "threads": 2, "replicas": 3}
NETWORK: dict[str, Any] = {"ca": "ca.crt", "certificate": "tls.crt", "key": "tls.key", "ports": 2}
ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)


def deployment_of(arguments: dict[str, Any]) -> Any:
    from node.engine.ray_app import build

    return build(arguments)._bound_deployment


def test_serve_places_whole_replicas() -> None:
    made = deployment_of({"spec": SPEC | {"gpus": 4, "tensor_parallel": 4}, "network": NETWORK})
    assert made.num_replicas == 3
    assert made.ray_actor_options["num_cpus"] == 2.0
    assert made.ray_actor_options["num_gpus"] == 4.0
    assert made._replica_config.max_replicas_per_node == 2, "one for each port"


def test_numbers_as_templates_write_them() -> None:
    made = deployment_of({"spec": SPEC | {"replicas": 2.0, "capacity": 16.0}, "network": NETWORK})
    assert made.num_replicas == 2
    assert '"capacity": 16,' in made.init_args[0]


def test_what_the_documents_show_holds() -> None:
    text = (ROOT / "docs" / "engines.md").read_text()
    pinned, node, application = (yaml.safe_load(block) for block in _BLOCK.findall(text))
    for engine in (pinned["engine"], node["engine"]):
        EngineSettings.model_validate(engine)
    from ray.serve.schema import ServeDeploySchema

    parsed = ServeDeploySchema.model_validate(application)
    made = deployment_of(parsed.applications[0].args)
    assert made.num_replicas == 2
    assert application["applications"][0]["import_path"] == "node.engine.ray_app:build"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "spec"),
        ({"spec": SPEC}, "network: expected a mapping"),
        ({"spec": SPEC, "network": {"ca": "ca.crt"}}, "certificate"),
        ({"spec": SPEC | {"colour": "red"}, "network": NETWORK}, "spec: no such setting: colour"),
        ({"spec": {"model": "/models/m"}, "network": NETWORK}, "model_name"),
        ({"spec": SPEC | {"gpus": 2}, "network": NETWORK}, "gpus must be 0 or"),
        ({"spec": SPEC | {"threads": "many"}, "network": NETWORK}, "of the wrong type: threads"),
        ({"spec": SPEC | {"capacity": 1.5}, "network": NETWORK}, "of the wrong type: capacity"),
        ({"spec": SPEC | {"model_digest": "md5:0"}, "network": NETWORK}, "model_digest"),
        ({"spec": SPEC, "network": NETWORK, "more": 1}, "no such argument: more"),
    ],
)
def test_arguments_that_do_not_hold(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(MeshError) as refusal:
        deployment_of(arguments)
    assert refusal.value.reason is Reason.CONFIG_INVALID
    assert said in refusal.value.message
