"""What a replica says of itself is believed only where it can be."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.errors import MeshError
from mesh.core.types import Task
from node.engine.replica_state import from_json, from_message, to_message

MODEL = {"name": "m", "digest": "sha256:0", "context_tokens": 8, "tasks": ["generate"]}
SAID: dict[str, Any] = {"name": "one", "pid": 7, "socket": "/s", "capacity": 2, "models": [MODEL]}


def test_both_ways_say_the_same() -> None:
    local, far = from_json(SAID), from_message(to_message(SAID), "ipv4:10.0.0.1:7450")
    assert (local.target, local.pid) == ("unix:/s", 7)
    assert (far.target, far.pid) == ("ipv4:10.0.0.1:7450", 0)
    assert (local.name, local.capacity, local.models) == (far.name, far.capacity, far.models)
    assert far.models[0].tasks == {Task.GENERATE}


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": []},
        {"models": [MODEL] * 17},
        {"capacity": 0},
        {"capacity": 65_537},
        {"name": ""},
        {"name": "\x1b[2J"},
        {"models": [MODEL | {"context_tokens": 0}]},
        {"models": [MODEL | {"tasks": ["dream"]}]},
        {"models": [MODEL | {"name": "\x1b[2J"}]},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((MeshError, ValueError)):
        from_message(to_message(SAID | wrong), "ipv4:10.0.0.1:7450")
    with pytest.raises((MeshError, ValueError)):
        from_json(SAID | wrong)
