"""What a replica says of itself, checked: to its host as JSON, to a gateway that asks as a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Model, Task
from sovereign.engine.v1 import engine_pb2

_MOST_MODELS = 16
_MOST_AT_ONCE = 65_536
_MOST_TOKENS = 1 << 31


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A replica that serves: where, what, and how much at once."""

    name: str
    pid: int
    """0 where it is on another machine."""
    target: str
    """As gRPC dials it: unix:/path, ipv4:address:port or ipv6:[address]:port."""
    capacity: int
    models: tuple[Model, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.models) <= _MOST_MODELS or not 1 <= self.capacity <= _MOST_AT_ONCE:
            raise MeshError(Reason.CONFIG_INVALID, "a replica serves 1 to 16 models, to one request at least")
        if not 1 <= len(self.name) <= 128 or not self.name.isprintable():
            raise MeshError(Reason.CONFIG_INVALID, "a replica's name has 1 to 128 printable characters")
        if any(not 1 <= model.context_tokens <= _MOST_TOKENS for model in self.models):
            raise MeshError(Reason.CONFIG_INVALID, "a replica's model has room for a token at least")


def from_json(said: dict[str, Any]) -> ReplicaState:
    """What the host passes on. Raises KeyError, TypeError, ValueError or MeshError for anything else."""
    models = tuple(
        Model(
            name=model["name"],
            digest=model["digest"],
            context_tokens=int(model["context_tokens"]),
            tasks=frozenset(Task(task) for task in model["tasks"]),
        )
        for model in said["models"]
    )
    return ReplicaState(
        str(said["name"]), int(said["pid"]), f"unix:{said['socket']}", int(said["capacity"]), models
    )


def to_message(described: dict[str, Any]) -> engine_pb2.DescribeResponse:
    """The same words for a gateway that asks over the network."""
    return engine_pb2.DescribeResponse(
        name=described["name"],
        capacity=described["capacity"],
        models=[engine_pb2.ServedModel(**model) for model in described["models"]],
    )


def from_message(said: engine_pb2.DescribeResponse, target: str) -> ReplicaState:
    """What a replica at `target` answered. Raises ValueError or MeshError for what cannot be."""
    models = tuple(
        Model(model.name, model.digest, model.context_tokens, frozenset(Task(task) for task in model.tasks))
        for model in said.models
    )
    return ReplicaState(said.name, 0, target, said.capacity, models)
