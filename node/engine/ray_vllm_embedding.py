"""What embeds texts in a replica: all-MiniLM-L6-v2 on onnxruntime, or vLLM's pooling runner.

The first costs 184 MB and needs no GPU; the second is for larger models, on the GPU beside the model that
generates. Both give vectors of unit length, in the order of the texts.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import Sequence
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.pooling_params import PoolingParams
from vllm.v1.engine.async_llm import AsyncLLM

from node.engine.embedder import Embedder
from node.engine.spec import EngineSpec

# Of a GPU's memory, beside EngineSpec.gpu_memory_fraction.
POOLING_MEMORY_FRACTION = 0.08


class InThread:
    """The onnxruntime embedder, called in a thread: the event loop goes on serving tokens."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector per text."""
        return await asyncio.to_thread(self._embedder.embed, texts)


class Pooling:
    """An embedding model on vLLM's pooling runner."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine
        self._numbers = itertools.count()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector per text; texts longer than the model's context are cut. Cancelling it aborts."""
        return list(await asyncio.gather(*(self._one(text) for text in texts)))

    async def _one(self, text: str) -> list[float]:
        outputs = self._engine.encode(
            text,
            PoolingParams(task="embed"),
            f"embed-{next(self._numbers)}",
            tokenization_kwargs={"truncation": True, "max_length": self._engine.model_config.max_model_len},
        )
        vector: list[float] = []
        async for output in outputs:
            vector = output.outputs.data.float().tolist()
        norm = math.sqrt(sum(x * x for x in vector)) or 1.0
        return [x / norm for x in vector]


async def start_pooling(spec: EngineSpec) -> Pooling:
    """Starts vLLM with `spec.embedding_model`. Raises whatever vLLM raises."""
    # The engine that generates has threads by now: a fork would inherit their locks.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    arguments: dict[str, Any] = {
        "model": spec.embedding_model,
        "runner": "pooling",
        "dtype": spec.dtype,
        "max_num_seqs": 64,
        "enforce_eager": spec.gpus == 0 if spec.enforce_eager is None else spec.enforce_eager,
        "disable_log_stats": True,
        "distributed_executor_backend": "uni",
    }
    if spec.gpus == 0:
        arguments["kv_cache_memory_bytes"] = spec.kv_cache_bytes
    else:
        arguments["gpu_memory_utilization"] = POOLING_MEMORY_FRACTION
    config = AsyncEngineArgs(**arguments).create_engine_config()
    return Pooling(AsyncLLM.from_vllm_config(config, disable_log_stats=True))
