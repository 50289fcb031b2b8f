"""The spec as text, and what it refuses."""

from __future__ import annotations

import json

import pytest

from mesh.core.errors import MeshError, Reason
from node.engine.spec import EngineSpec

SPEC = EngineSpec("/models/m", "m")


def test_survives_its_text() -> None:
    spec = EngineSpec("/models/m", "m", capacity=3, gpus=4, tensor_parallel=2, pipeline_parallel=2)
    assert EngineSpec.from_json(spec.to_json()) == spec
    assert EngineSpec.from_json(spec.to_json()).digest == spec.digest
    assert spec.digest != SPEC.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ""},
        {"model_name": ""},
        {"capacity": 0},
        {"replicas": 0},
        {"context_tokens": 0},
        {"threads": -1},
        {"gpus": 2},
        {"gpus": 2, "tensor_parallel": 4},
    ],
)
def test_refuses_what_cannot_be(changes: dict[str, object]) -> None:
    text = json.dumps(json.loads(SPEC.to_json()) | changes)
    with pytest.raises(MeshError) as refusal:
        EngineSpec.from_json(text)
    assert refusal.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", SPEC.to_json()[:-1] + ', "more": 1}'])
def test_refuses_what_is_no_spec(text: str) -> None:
    with pytest.raises(MeshError) as refusal:
        EngineSpec.from_json(text)
    assert refusal.value.reason is Reason.CONFIG_INVALID
