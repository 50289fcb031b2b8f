"""What a node's engine shall be, as one value that travels between processes as JSON.

The gateway writes it, the host and the replicas read it. Two equal specs are served by the same
warm engine: `digest` is what a restarted gateway compares before it adopts a host. Knows nothing of
Ray or vLLM beyond the names of what can be set.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from mesh.core.errors import MeshError, Reason
from node.engine.model_files import is_digest

EMBEDDING_MODEL = "all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """See the fields. Sizes are in tokens, bytes and seconds."""

    model: str
    """A folder, or a hub id."""
    model_name: str
    """What callers call it."""
    revision: str = ""
    """Of a hub id; empty is the hub's default."""
    model_digest: str = ""
    """Serve only the model of this digest ("sha256:<64 hex>"); empty serves whatever is there."""
    context_tokens: int = 2048
    """Prompt and output together."""
    capacity: int = 16
    """Generations at once, per replica."""
    replicas: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    gpus: int = 0
    """Per replica; 0 runs on the CPU. Otherwise tensor_parallel × pipeline_parallel."""
    threads: int = 1
    """CPU threads of a replica's engine. One is right for a tiny model, the cores for a real one."""
    dtype: str = "auto"
    kv_cache_bytes: int = 64 << 20
    """On the CPU. On a GPU vLLM takes what `gpu_memory_fraction` leaves."""
    gpu_memory_fraction: float = 0.9
    enforce_eager: bool | None = None
    """No compilation. None: none on a CPU, where it costs more than it gains for small models."""
    embeddings: bool = True
    """Whether texts can be embedded."""
    embedding_model: str = ""
    """A folder or hub id for vLLM's pooling runner, instead of all-MiniLM-L6-v2 on onnxruntime."""
    prefix_caching: bool = True
    coalesce_s: float = 0.04
    """A stream gets no more than one message in this time, first tokens and endings apart; up to 2.5
    times as long when there are many: 300 tokens/s need not cost 300 messages/s through every hop."""
    stall_s: float = 120.0
    """An engine that owes tokens and brings none for so long is taken for dead."""
    orphan_grace_s: float = 30.0
    """How long an engine outlives its gateway, waiting to be adopted by the next."""
    isolate_network: bool = True
    """Gives Ray and vLLM a network of their own with nothing on it, where the system permits that.
    Not for a hub id, whose files have to be fetched."""
    cache_directory: str = ""
    """For what may be made again; nodes of one user may share one. Empty is the run directory's."""
    bench: bool = False
    """Adds the call that bench/bench_engine.py compares with."""

    def __post_init__(self) -> None:
        if not self.model or not self.model_name:
            raise MeshError(Reason.CONFIG_INVALID, "an engine needs a model and a name for it")
        if self.model_digest and not is_digest(self.model_digest):
            raise MeshError(Reason.CONFIG_INVALID, "model_digest: expected sha256:<64 hex>")
        if self.gpus not in (0, self.tensor_parallel * self.pipeline_parallel):
            raise MeshError(Reason.CONFIG_INVALID, "gpus must be 0 or tensor_parallel × pipeline_parallel")
        if self.embedding_model and not self.embeddings:
            raise MeshError(Reason.CONFIG_INVALID, "embedding_model is of no use without embeddings")
        for name in (
            "context_tokens",
            "capacity",
            "replicas",
            "tensor_parallel",
            "pipeline_parallel",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise MeshError(Reason.CONFIG_INVALID, f"{name} must be at least 1")

    def to_json(self) -> str:
        """One line, sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EngineSpec:
        """Raises MeshError(CONFIG_INVALID) for anything else than what `to_json` writes."""
        try:
            values = json.loads(text)
            return cls(**{field.name: values.pop(field.name) for field in fields(cls)}, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MeshError(Reason.CONFIG_INVALID, "expected an engine spec") from error

    @property
    def embedding_name(self) -> str:
        """What callers call the model that embeds."""
        return self.embedding_model.rstrip("/").rpartition("/")[2] or EMBEDDING_MODEL

    @property
    def digest(self) -> str:
        """Equal specs have equal digests."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
