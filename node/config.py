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
from mesh.store.configured import BOARD_SECRETS, BoardSettings
from node.engine.replica_network import REPLICA_NAME
from node.index.stores import StoreSettings

Seconds = Annotated[float, Field(gt=0, le=86_400)]
_WILDCARDS = ("0.0.0.0:", "[::]:")


class IdentitySettings(Settings):
    """Who this node is."""

    directory: Path
    """Made by `meshctl node enroll`: key, certificate, trust bundles."""
    renew_at: Address | None = None
    """Where the control plane renews the certificate, at half of its life. Left out: the node serves
    until its certificate ends."""
    renew_name: str = ""
    """The DNS name in the control plane's certificate."""

    @model_validator(mode="after")
    def _complete(self) -> IdentitySettings:
        if (self.renew_at is None) != (not self.renew_name):
            raise ValueError("renew_at and renew_name belong together")
        return self


class RaySettings(Settings):
    """A Ray cluster of somebody else's, whose replicas serve this node (node/engine/shared_cluster.py)."""

    replicas: list[Address] = Field(min_length=1, max_length=16)
    """Where they are; a name may lead to several, such as that of a headless Service."""
    ca: Path
    """Of the replicas' certificates. Mutual TLS always: what passes here are prompts and answers."""
    certificate: Path
    """What this node shows to them."""
    key: Path
    """Of `certificate`."""
    replica_name: str = Field(default=REPLICA_NAME, min_length=1, max_length=253)
    """The DNS name in the replicas' certificates."""

    def beside(self, folder: Path) -> RaySettings:
        """The same with relative paths taken from `folder`."""
        files = {name: folder / getattr(self, name) for name in ("ca", "certificate", "key")}
        return self.model_copy(update=files)


class EngineSettings(Settings):
    """What generates and embeds."""

    kind: Literal["scripted", "ray_vllm"] = "ray_vllm"
    """ray_vllm: vLLM under Ray Serve. scripted: says made-up words, for tests."""
    model: str = ""
    """A folder with the model's files, or a hub id where a hub can be reached. For ray_vllm."""
    model_name: str = Field(default="", max_length=128)
    """What callers call it. Left empty: the last part of `model`."""
    revision: str = ""
    """Of a hub id. Left empty: the hub's default."""
    model_digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Of the model's files, as `mesh-model digest` says it: nothing else is served. Left empty: whatever is
    there."""
    context_tokens: int = Field(default=2048, ge=16, le=1_048_576)
    """Longest prompt plus output, in tokens."""
    capacity: int = Field(default=16, ge=1, le=4096)
    """How many generations each copy runs at once; further requests queue."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Copies of the model, placed and healed by Ray Serve."""
    embeddings: bool = True
    """Whether to serve embeddings, too."""
    embedding_model: str = ""
    """A folder or hub id for vLLM. Left empty: all-MiniLM-L6-v2 on the CPU."""
    cache_directory: Path | None = None
    """Where the engine keeps what it can make again; nodes of one machine may share it. Left out: in the
    state directory."""
    gpus: int = Field(default=0, ge=0, le=64)
    """Of each copy: `tensor_parallel` x `pipeline_parallel`, or 0 to run on CPUs."""
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    """GPUs that share each layer."""
    pipeline_parallel: int = Field(default=1, ge=1, le=64)
    """Groups of GPUs that share the layers out."""
    gpu_memory_fraction: float = Field(default=0.9, gt=0, lt=1)
    """How much of a GPU's memory the engine may take."""
    threads: int = Field(default=1, ge=1, le=256)
    """Of each copy, on CPUs."""
    kv_cache_mib: int = Field(default=64, ge=4, le=1_048_576)
    """Of each copy, on CPUs: memory for its key-value cache, in MiB."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of weights and activations."""
    ray: RaySettings | None = None
    """Replicas of a Ray cluster that is there already, such as KubeRay's. Left out: the node starts its
    own."""

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
    """How many requests may wait for a place. One more is refused with a hint when to come back."""
    queue_timeout_s: Seconds = 10.0
    """How long one may wait, in seconds."""
    write_timeout_s: Seconds = 30.0
    """How long a caller may leave what it was sent unread before its call is ended, in seconds."""
    drain_grace_s: float = Field(default=30.0, ge=0, le=3600)
    """After SIGTERM: how long running requests may go on, in seconds."""
    max_connections: int = Field(default=4096, ge=1, le=1_000_000)
    """How many callers may be connected at once."""
    max_streams_per_connection: int = Field(default=1024, ge=1, le=10_000)
    """How many calls each of them may have at once."""


class StatusSettings(Settings):
    """How often the node tells the board how it is."""

    heartbeat_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """It tells at least this often, in seconds."""
    coalesce_s: Annotated[float, Field(ge=0.01, le=10)] = 0.1
    """After a change it waits this long for others before it tells, in seconds."""
    lease_s: Annotated[float, Field(ge=1, le=600)] = 5.0
    """Unless it tells again within this time, the others take it for gone, in seconds; at least two
    heartbeats."""

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
    """For each tenant."""
    depth: int = Field(default=100, ge=1, le=100)
    """Of each ranking, at most so many hits."""
    passages_per_day: int = Field(default=10_000, ge=0, le=1_000_000_000)
    """For each tenant; excerpts and cited passages count."""
    per_authority_factor: int = Field(default=10, ge=1, le=10_000)
    """All tenants of another authority together get this many times as much: it can make any number of
    tenants."""


class RetrievalSettings(Settings):
    """This node's documents, and how questions are answered from them."""

    enabled: bool = True
    """Whether this node keeps documents and asks others' on behalf of its clients."""
    embedder: Literal["local", "engine"] = "local"
    """local: all-MiniLM-L6-v2 in this process. engine: an embedding model that the engine serves."""
    embedder_directory: Path | None = None
    """Where the local embedder keeps its graph; nodes of one machine may share it. Left out: in the state
    directory."""
    embedder_model: str = Field(default="", max_length=128)
    """Which of the engine's. Left empty: its first one."""
    dimensions: int = Field(default=384, ge=1, le=8192)
    """Of its vectors."""
    threads: int = Field(default=2, ge=1, le=256)
    """That embed and search."""
    store: StoreSettings = StoreSettings()
    """Where vectors are searched."""
    statistics_threshold: int = Field(default=0, ge=0, le=1_000_000)
    """Frequencies of words below this are rounded up to it before they leave the node. 0: all are exact."""
    answers: Literal["read", "extract"] = "read"
    """read: the engine's model reads the passages and answers. extract: the best sentence is quoted."""
    budgets: BudgetSettings = BudgetSettings()
    """How much may be asked of this node's indexes."""

    @model_validator(mode="after")
    def _consistent(self) -> RetrievalSettings:
        if self.embedder == "local" and (self.embedder_model or self.dimensions != 384):
            raise ValueError("embedder_model and dimensions are for embedder: engine")
        return self


class EvidenceSettings(Settings):
    """Of how many other authorities witnesses have to cosign this node's checkpoints; 0: nobody is asked."""

    witnesses: int = Field(default=2, ge=0, le=16)
    """Of how many other authorities nodes have to cosign this node's log before a receipt counts as
    witnessed. 0: nobody is asked."""


class NodeSettings(Settings):
    """The whole file."""

    listen: list[Address] = Field(min_length=1, max_length=8)
    """Where callers are answered, over mutual TLS. `0.0.0.0` and `[::]` listen everywhere."""
    advertise: list[Address] = Field(default_factory=list, max_length=8)
    """Under which addresses callers reach this node; published in its record. May be left out if `listen`
    has no wildcard: then it is the same."""
    state_directory: Path
    """What the node needs to start without the board, the decision log, indexes. Private, mode 0700."""
    identity: IdentitySettings
    """Who this node is."""
    board: BoardSettings
    """etcd, where signed records are exchanged."""
    engine: EngineSettings
    """What generates and embeds."""
    serving: ServingSettings = ServingSettings()
    """How many requests, and how patiently."""
    status: StatusSettings = StatusSettings()
    """How often it tells the board how it is."""
    placement: PlacementSettings = PlacementSettings()
    """How it places requests."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """Documents, and how questions are answered from them."""
    evidence: EvidenceSettings = EvidenceSettings()
    """The log of decisions, and who witnesses it."""
    log: LogSettings = LogSettings()
    """What it writes to standard error."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """What it shows of itself."""

    @model_validator(mode="after")
    def _reachable(self) -> NodeSettings:
        if not self.advertise and any(address.startswith(_WILDCARDS) for address in self.listen):
            raise ValueError("advertise is needed when listen is a wildcard: nobody can dial that")
        return self


def load_config(path: Path, environment: Mapping[str, str]) -> NodeSettings:
    """Reads the file; CONFIG_INVALID names every setting that is wrong."""
    settings = load_settings(NodeSettings, path, environment, BOARD_SECRETS)
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
