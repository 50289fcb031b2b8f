"""The Serve application for a Ray cluster that somebody else runs: import path `node.engine.ray_app:build`.

KubeRay's serveConfigV2, or `serve deploy`, names it and gives the arguments:

- `spec`: what to serve, an EngineSpec; what is left out has its default;
- `network`: how gateways reach a replica, a ReplicaNetwork.

Serve places and heals the replicas; prompts and answers go past Ray, straight between the gateway
(shared_cluster.py) and the replica's own port. All devices of a replica are on one machine. The cluster's
own settings (who may reach Ray, with which token) are the business of whoever runs it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ray import serve

from mesh.core.errors import MeshError, Reason
from node.engine.host_paths import HostPaths, engine_environment
from node.engine.ray_vllm import Replica
from node.engine.replica_network import ReplicaNetwork
from node.engine.spec import EngineSpec

_LOG = logging.getLogger("node.engine.ray_app")


class NetworkReplica(Replica):
    """One replica, in directories of its own, which end with it."""

    def __init__(self, spec: str, network: str) -> None:
        paths = HostPaths.of(Path(tempfile.mkdtemp(prefix="mesh-replica-")))
        paths.make()
        self._places = (paths.run_directory, paths.short)
        paths.spec.write_text(spec)
        paths.network.write_text(network)
        environment = engine_environment(EngineSpec.from_json(spec), paths)
        try:
            super().__init__(str(paths.run_directory), environment)
        except BaseException:
            self._sweep()
            raise

    def _sweep(self) -> None:
        for place in self._places:
            shutil.rmtree(place, ignore_errors=True)

    def _end_with_server(self) -> None:
        self._server.wait()
        self._sweep()
        os._exit(1)


def build(arguments: Mapping[str, Any]) -> Any:
    """The application. Raises CONFIG_INVALID for arguments that do not hold, before anything is started."""
    unknown = set(arguments) - {"spec", "network"}
    if unknown:
        raise MeshError(Reason.CONFIG_INVALID, f"no such argument: {', '.join(sorted(unknown))}")
    spec = _spec(arguments.get("spec"))
    network = ReplicaNetwork.of(arguments.get("network"))
    deployment = serve.deployment(
        NetworkReplica,
        name="Replica",
        num_replicas=spec.replicas,
        max_replicas_per_node=network.ports,
        ray_actor_options={"num_cpus": float(spec.threads), "num_gpus": float(spec.gpus)},
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=1.0,
    )
    return deployment.bind(spec.to_json(), network.to_json())


def _spec(values: Any) -> EngineSpec:
    if not isinstance(values, Mapping):
        raise MeshError(Reason.CONFIG_INVALID, "spec: expected a mapping")
    known = {field.name for field in dataclasses.fields(EngineSpec)}
    unknown = set(values) - known
    if unknown:
        raise MeshError(Reason.CONFIG_INVALID, f"spec: no such setting: {', '.join(sorted(unknown))}")
    try:
        return TypeAdapter(EngineSpec).validate_python(dict(values))
    except ValidationError as error:
        wrong = ", ".join(str(problem["loc"][0]) for problem in error.errors(include_input=False))
        raise MeshError(Reason.CONFIG_INVALID, f"spec: missing, or of the wrong type: {wrong}") from None
