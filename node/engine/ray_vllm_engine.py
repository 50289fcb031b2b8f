"""vLLM's AsyncLLM, started as a spec says, and the gRPC server in front of it.

All knowledge of how vLLM is configured is here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.models import registry
from vllm.v1.engine.async_llm import AsyncLLM

from node.engine.embedder import Embedder, embedder_digest
from node.engine.host_paths import HostPaths, cache_directory, digest_cache
from node.engine.model_files import model_digest, permitted_model
from node.engine.process_family import die_with_parent
from node.engine.ray_vllm_direct import add_direct_call
from node.engine.ray_vllm_embedding import InThread, start_pooling
from node.engine.ray_vllm_serving import Embeds, EngineService
from node.engine.replica_session import MAX_MESSAGE_BYTES
from node.engine.spec import EngineSpec
from sovereign.engine.v1 import engine_pb2_grpc


async def start_engine(spec: EngineSpec, paths: HostPaths) -> AsyncLLM:
    """Starts vLLM. Raises whatever vLLM raises; MODEL_DIGEST_MISMATCH before anything was loaded."""
    model = permitted_model(spec.model, spec.revision, spec.model_digest, digest_cache(spec, paths))
    if _may_fork(spec):
        # vLLM looks at a model's class in a process of its own, lest CUDA be initialised here. On a
        # CPU that only imports everything once more: nine seconds.
        registry._run_in_subprocess = lambda look: look()
    config = AsyncEngineArgs(**_arguments(spec, model)).create_engine_config()
    if _may_fork(spec):
        # On a CPU vLLM insists on spawning its core, which imports everything once more. With one
        # thread there is nothing that a fork could inherit in a bad state.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        os.register_at_fork(after_in_child=die_with_parent)
    return AsyncLLM.from_vllm_config(config, disable_log_stats=True)


def _arguments(spec: EngineSpec, model: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": model,
        "served_model_name": spec.model_name,
        "revision": spec.revision or None,
        "dtype": spec.dtype,
        "max_model_len": spec.context_tokens,
        "max_num_seqs": spec.capacity,
        "tensor_parallel_size": spec.tensor_parallel,
        "pipeline_parallel_size": spec.pipeline_parallel,
        "enforce_eager": spec.gpus == 0 if spec.enforce_eager is None else spec.enforce_eager,
        "enable_prefix_caching": spec.prefix_caching,
        "disable_log_stats": True,
    }
    if spec.gpus == 0:
        arguments["kv_cache_memory_bytes"] = spec.kv_cache_bytes
    else:
        arguments["gpu_memory_utilization"] = spec.gpu_memory_fraction
    if spec.tensor_parallel * spec.pipeline_parallel == 1:
        arguments["distributed_executor_backend"] = "uni"
    else:
        arguments["distributed_executor_backend"] = "mp"
    return arguments


def _may_fork(spec: EngineSpec) -> bool:
    return spec.gpus == 0 and spec.threads == 1 and spec.tensor_parallel * spec.pipeline_parallel == 1


async def start_embedder(spec: EngineSpec, paths: HostPaths) -> Embeds | None:
    """What embeds, as the spec says; None if nothing shall."""
    if not spec.embeddings:
        return None
    if spec.embedding_model:
        return await start_pooling(spec)
    return InThread(Embedder(cache_directory(spec, paths) / "embedder", spec.threads))


def make_service(engine: AsyncLLM, embedder: Embeds | None, spec: EngineSpec) -> EngineService:
    """What serves `engine`, wherever it listens."""
    return EngineService(engine, engine.get_tokenizer(), spec, embedder)


async def serve_locally(
    service: EngineService, engine: AsyncLLM, spec: EngineSpec, socket: Path
) -> grpc.aio.Server:
    """Serves on the Unix socket `socket`, which only this user can open."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        )
    )
    engine_pb2_grpc.add_EngineServicer_to_server(service, server)
    if spec.bench:
        add_direct_call(server, engine)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    return server


def describe(spec: EngineSpec, paths: HostPaths) -> dict[str, Any]:
    """What a replica says of itself."""
    digests = digest_cache(spec, paths)
    models = [
        {
            "name": spec.model_name,
            "digest": model_digest(spec.model, spec.revision, digests),
            "context_tokens": spec.context_tokens,
            "tasks": ["generate"],
        }
    ]
    if spec.embeddings:
        models.append(
            {
                "name": spec.embedding_name,
                "digest": model_digest(spec.embedding_model, "", digests)
                if spec.embedding_model
                else embedder_digest(digests),
                "context_tokens": Embedder.context_tokens,
                "tasks": ["embed"],
            }
        )
    return {"pid": os.getpid(), "capacity": spec.capacity, "models": models}
