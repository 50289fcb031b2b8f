"""`mesh-node --config FILE`: reads the configuration, builds the node, serves until told to stop.

SIGTERM and SIGINT drain: nothing new is taken, what runs may finish within `serving.drain_grace_s`; a
second signal ends it at once. SIGHUP renews the certificate now rather than at half life. Exit code 0
after draining, 2 for a configuration that does not hold, 1 for any other trouble, also when a part of the
node ended by itself: whoever runs it should start it again. Wiring only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.evidence import open_log
from mesh.identity.log_keys import LogKey
from mesh.identity.names import dns_name_of
from mesh.identity.source import Renew, SvidSource
from mesh.rpc.channels import ChannelPool
from mesh.sdk.placers import Server
from mesh.sdk.renewal import renewer
from mesh.store.configured import open_store
from mesh.telemetry import logs
from mesh.telemetry.parts import NodeTelemetry
from mesh.telemetry.tracing import open_tracing
from mesh.version import software_version
from node.config import EngineSettings, NodeSettings, load_config
from node.engine.base import Engine
from node.engine.remote import RemoteEngine
from node.engine.replica_network import TlsFiles
from node.engine.scripted import ScriptedEngine
from node.engine.shared_cluster import ReplicaAccess, SharedClusterEngine
from node.engine.spec import EngineSpec
from node.evidence.parts import EvidenceParts
from node.index.embedding import EngineEmbedder, LocalEmbedder, TextEmbedder
from node.retrieval.parts import RetrievalParts
from node.runtime import FLUSH_S, NodeParts, NodeRuntime

_LOG = logging.getLogger("node.daemon")


def make_engine(settings: EngineSettings, state_directory: Path) -> Engine:
    """The configured engine, not started yet."""
    if settings.kind == "scripted":
        return ScriptedEngine(
            settings.served_as, capacity=settings.capacity, context_tokens=settings.context_tokens
        )
    if settings.ray is not None:
        ray = settings.ray
        access = ReplicaAccess(
            tuple(ray.replicas), TlsFiles(str(ray.ca), str(ray.certificate), str(ray.key)), ray.replica_name
        )
        return SharedClusterEngine(
            access, settings.served_as, capacity=settings.capacity, model_digest=settings.model_digest
        )
    spec = EngineSpec(
        model=settings.model,
        model_name=settings.served_as,
        revision=settings.revision,
        model_digest=settings.model_digest,
        context_tokens=settings.context_tokens,
        capacity=settings.capacity,
        replicas=settings.replicas,
        tensor_parallel=settings.tensor_parallel,
        pipeline_parallel=settings.pipeline_parallel,
        gpus=settings.gpus,
        threads=settings.threads,
        dtype=settings.dtype,
        kv_cache_bytes=settings.kv_cache_mib << 20,
        gpu_memory_fraction=settings.gpu_memory_fraction,
        embeddings=settings.embeddings,
        embedding_model=settings.embedding_model,
        cache_directory=str(settings.cache_directory or ""),
    )
    return RemoteEngine(spec, state_directory / "engine")


def _renew(settings: NodeSettings, pool: ChannelPool, node: SpiffeId) -> Renew | None:
    identity = settings.identity
    if identity.renew_at is None:
        _LOG.warning("identity.renew_at is not set: the node serves until its certificate ends")
        return None
    name = identity.renew_name.removesuffix(f".control.{node.trust_domain}")
    control = SpiffeId(node.trust_domain, f"/control/{name}")
    if dns_name_of(control) != identity.renew_name:
        raise MeshError(
            Reason.CONFIG_INVALID, f"identity.renew_name: expected <name>.control.{node.trust_domain}"
        )
    return renewer(pool, Server(control, identity.renew_at))


def _retrieval(settings: NodeSettings, engine: Engine) -> RetrievalParts | None:
    retrieval, folder = settings.retrieval, settings.state_directory / "retrieval"
    if not retrieval.enabled:
        return None
    embedder: TextEmbedder
    if retrieval.embedder == "engine":
        embedder = EngineEmbedder(engine, retrieval.embedder_model, retrieval.dimensions)
    else:
        embedder = LocalEmbedder(retrieval.embedder_directory or folder / "embedder", retrieval.threads)
    return RetrievalParts(folder, embedder, retrieval)


async def serve(settings: NodeSettings, engine: Engine | None = None) -> bool:
    """Serves until SIGTERM or SIGINT, then drains; False if it had to end by itself.

    `engine` replaces the configured one.
    """
    loop = asyncio.get_running_loop()
    logs.guard_loop(loop)
    stopping = asyncio.Event()
    at_once = asyncio.Event()

    def told_to_stop() -> None:
        (at_once if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    source = SvidSource.load(settings.identity.directory, clock=time.time, random=random.random)
    loop.add_signal_handler(signal.SIGHUP, source.request_renewal)
    listen = settings.telemetry.listen
    telemetry = NodeTelemetry(source.id, listen) if listen is not None else None
    tracing = open_tracing(settings.telemetry.traces, source.id, "mesh-node", software_version())
    pool = ChannelPool(source, observer=telemetry.calls if telemetry is not None else None)
    store = open_store(settings.board)
    made = engine or make_engine(settings.engine, settings.state_directory)
    log = open_log(settings.state_directory, source.id)
    runtime = NodeRuntime(
        NodeParts(
            source=source,
            store=store,
            engine=made,
            log=log,
            listen=tuple(settings.listen),
            advertise=tuple(settings.advertise),
            board_cache=settings.state_directory / "board",
            renew=_renew(settings, pool, source.id),
            serving=settings.serving,
            status=settings.status,
            placement=settings.placement,
            retrieval=_retrieval(settings, made),
            evidence=EvidenceParts(
                settings.state_directory / "evidence" / "witness",
                LogKey.load_or_make(settings.state_directory / "evidence" / "witness.key"),
                settings.evidence,
            ),
            telemetry=telemetry,
            tracing=tracing,
        )
    )
    try:
        await runtime.start()
        settle()
        await _first(stopping.wait(), runtime.failed.wait())
        await _first(runtime.drain(settings.serving.drain_grace_s), at_once.wait())
    finally:
        await runtime.stop(0.0 if at_once.is_set() else FLUSH_S)
        await pool.aclose()
        await store.aclose()
        await tracing.aclose()
    _LOG.info("%s has stopped", source.id)
    return not runtime.failed.is_set()


def settle() -> None:
    """Takes what a start has made out of later garbage collections: it stays, and looking it through again
    and again holds up every stream. A node with metrics and traces has half as many objects again."""
    gc.collect()
    gc.freeze()


async def _first(*work: Coroutine[Any, Any, object]) -> None:
    """Does all of it until one is done; the rest is cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="mesh-node", description="One node of the mesh.")
    parser.add_argument(
        "--config", type=Path, required=True, help="a YAML file; see examples/config/mesh-node.yaml"
    )
    parser.add_argument("--check", action="store_true", help="check the file and exit")
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        settings = load_config(arguments.config, os.environ)
        if arguments.check:
            return 0
        logs.configure(settings.log.level, settings.log.format)
        logs.guard_process()
        return 0 if asyncio.run(serve(settings)) else 1
    except MeshError as error:
        print(f"mesh-node: {error}", file=sys.stderr)
        return 2 if error.reason is Reason.CONFIG_INVALID else 1


if __name__ == "__main__":
    sys.exit(main())
