"""The settings of `mesh-node`, one YAML file. examples/config/mesh-node.yaml comments every one of them.

Unknown and contradictory settings are CONFIG_INVALID and named (mesh/settings.py). Relative paths are
taken from the file's folder. Nothing here opens a file or a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mesh.settings import (
    Address,
    LogSettings,
    PlacementSettings,
    Settings,
    TelemetrySettings,
    load_settings,
)
from mesh.store.configured import BoardSettings
from node.engine.replica_network import REPLICA_NAME
from node.index.stores import StoreSettings

# Environment variables that override settings, for secrets.
SECRETS: Mapping[str, str] = {"SOVEREIGN_MESH_BOARD_PASSWORD": "board.password"}


Seconds = Annotated[float, Field(gt=0, le=86_400)]
_WILDCARDS = ("0.0.0.0:", "[::]:")


class IdentitySettings(Settings):
    """Who this node is."""

    directory: Path
    renew_at: Address | None = None
    renew_name: str = ""

    @model_validator(mode="after")
    def _complete(self) -> IdentitySettings:
        if (self.renew_at is None) != (not self.renew_name):
            raise ValueError("renew_at and renew_name belong together")
        return self


class RaySettings(Settings):
    """A Ray cluster of somebody else's, whose replicas serve this node (node/engine/shared_cluster.py)."""

    replicas: list[Address] = Field(min_length=1, max_length=16)
    # All three are needed: what passes here are prompts and answers.
    ca: Path
    certificate: Path
    key: Path
    replica_name: str = Field(default=REPLICA_NAME, min_length=1, max_length=253)

    def beside(self, folder: Path) -> RaySettings:
        """The same with relative paths taken from `folder`."""
        files = {name: folder / getattr(self, name) for name in ("ca", "certificate", "key")}
        return self.model_copy(update=files)


class EngineSettings(Settings):
    """What generates and embeds."""

    kind: Literal["scripted", "ray_vllm"] = "ray_vllm"
    model: str = ""
    model_name: str = Field(default="", max_length=128)
    revision: str = ""
    model_digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    context_tokens: int = Field(default=2048, ge=16, le=1_048_576)
    capacity: int = Field(default=16, ge=1, le=4096)
    replicas: int = Field(default=1, ge=1, le=64)
    embeddings: bool = True
    embedding_model: str = ""
    cache_directory: Path | None = None
    gpus: int = Field(default=0, ge=0, le=64)
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    pipeline_parallel: int = Field(default=1, ge=1, le=64)
    gpu_memory_fraction: float = Field(default=0.9, gt=0, lt=1)
    threads: int = Field(default=1, ge=1, le=256)
    kv_cache_mib: int = Field(default=64, ge=4, le=1_048_576)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    ray: RaySettings | None = None

    @model_validator(mode="after")
    def _complete(self) -> EngineSettings:
        if self.ray is not None:
            return self._of_a_cluster()
        if self.kind == "ray_vllm" and not self.model:
            raise ValueError("model is needed by ray_vllm: a path or a hub id")
        if self.kind == "scripted" and self.model_digest:
            raise ValueError("model_digest is of no use to the scripted engine")
        if self.kind == "scripted" and self.model:
            raise ValueError("model is of no use to the scripted engine: leave it out or choose ray_vllm")
        if self.gpus not in (0, self.tensor_parallel * self.pipeline_parallel):
            raise ValueError("gpus must be 0 or tensor_parallel x pipeline_parallel")
        if self.embedding_model and (self.kind != "ray_vllm" or not self.embeddings):
            raise ValueError("embedding_model is for ray_vllm with embeddings")
        return self

    def _of_a_cluster(self) -> EngineSettings:
        if self.kind != "ray_vllm":
            raise ValueError("ray is for ray_vllm")
        if not self.model_name:
            raise ValueError("model_name is needed with ray: the name that its replicas serve")
        others = self.model_fields_set - {"kind", "ray", "model_name", "model_digest", "capacity"}
        if others:
            named = ", ".join(sorted(others))
            raise ValueError(f"with ray, the cluster's application says {named}: leave it out here")
        return self

    def beside(self, folder: Path) -> EngineSettings:
        """The same with relative paths taken from `folder`."""
        update: dict[str, object] = {}
        if self.cache_directory is not None:
            update["cache_directory"] = folder / self.cache_directory
        if self.ray is not None:
            update["ray"] = self.ray.beside(folder)
        return self.model_copy(update=update)

    @property
    def served_as(self) -> str:
        """The name that callers use."""
        return self.model_name or self.model.rstrip("/").rpartition("/")[2] or "scripted"


class ServingSettings(Settings):
    """How many requests, and how patiently."""

    queue: int = Field(default=64, ge=0, le=100_000)
    queue_timeout_s: Seconds = 10.0
    write_timeout_s: Seconds = 30.0
    drain_grace_s: float = Field(default=30.0, ge=0, le=3600)
    max_connections: int = Field(default=4096, ge=1, le=1_000_000)
    max_streams_per_connection: int = Field(default=1024, ge=1, le=10_000)


class StatusSettings(Settings):
    """How often the node tells the board how it is."""

    heartbeat_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    coalesce_s: Annotated[float, Field(ge=0.01, le=10)] = 0.1
    lease_s: Annotated[float, Field(ge=1, le=600)] = 5.0

    @model_validator(mode="after")
    def _ordered(self) -> StatusSettings:
        if self.coalesce_s > self.heartbeat_s:
            raise ValueError("coalesce_s cannot be longer than heartbeat_s")
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError(
                "lease_s must be at least twice heartbeat_s, or one late report looks like a death"
            )
        return self


class BudgetSettings(Settings):
    """How much one tenant may ask of this node's indexes, so that none can be drained by asking."""

    searches_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    depth: int = Field(default=100, ge=1, le=100)
    passages_per_day: int = Field(default=10_000, ge=0, le=1_000_000_000)
    # A foreign authority can make any number of tenants: all of them together get so many shares.
    per_authority_factor: int = Field(default=10, ge=1, le=10_000)


class RetrievalSettings(Settings):
    """This node's documents, and how questions are answered from them."""

    enabled: bool = True
    embedder: Literal["local", "engine"] = "local"
    embedder_directory: Path | None = None
    embedder_model: str = Field(default="", max_length=128)
    dimensions: int = Field(default=384, ge=1, le=8192)
    threads: int = Field(default=2, ge=1, le=256)
    store: StoreSettings = StoreSettings()
    statistics_threshold: int = Field(default=0, ge=0, le=1_000_000)
    answers: Literal["read", "extract"] = "read"
    budgets: BudgetSettings = BudgetSettings()

    @model_validator(mode="after")
    def _consistent(self) -> RetrievalSettings:
        if self.embedder == "local" and (self.embedder_model or self.dimensions != 384):
            raise ValueError("embedder_model and dimensions are for embedder: engine")
        return self


class EvidenceSettings(Settings):
    """Of how many other authorities witnesses have to cosign this node's checkpoints; 0: nobody is asked."""

    witnesses: int = Field(default=2, ge=0, le=16)


class NodeSettings(Settings):
    """The whole file."""

    listen: list[Address] = Field(min_length=1, max_length=8)
    advertise: list[Address] = Field(default_factory=list, max_length=8)
    state_directory: Path
    identity: IdentitySettings
    board: BoardSettings
    engine: EngineSettings
    serving: ServingSettings = ServingSettings()
    status: StatusSettings = StatusSettings()
    placement: PlacementSettings = PlacementSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _reachable(self) -> NodeSettings:
        if not self.advertise and any(address.startswith(_WILDCARDS) for address in self.listen):
            raise ValueError("advertise is needed when listen is a wildcard: nobody can dial that")
        return self


def load_config(path: Path, environment: Mapping[str, str]) -> NodeSettings:
    """Reads the file; CONFIG_INVALID names every setting that is wrong."""
    settings = load_settings(NodeSettings, path, environment, SECRETS)
    folder = path.resolve().parent

    identity = settings.identity.model_copy(update={"directory": folder / settings.identity.directory})
    retrieval = settings.retrieval
    update: dict[str, object] = {"store": retrieval.store.beside(folder)}
    if retrieval.embedder_directory is not None:
        update["embedder_directory"] = folder / retrieval.embedder_directory
    return settings.model_copy(
        update={
            "state_directory": folder / settings.state_directory,
            "identity": identity,
            "board": settings.board.beside(folder),
            "telemetry": settings.telemetry.beside(folder),
            "engine": settings.engine.beside(folder),
            "retrieval": retrieval.model_copy(update=update),
        }
    )
