"""One replica's processes: `python -m node.engine.ray_vllm_server RUN_DIR REPORT_FD`.

Three, of which only the first pays for importing vLLM (seconds, and most of the memory):

- the first imports it and forks the second, and again whenever that ended. So an engine that died
  is back in about two seconds. It uses no thread, since it forks.
- the second runs AsyncLLM and serves the gateway (ray_vllm_serving), where replica_fronts says.
- the third, forked by vLLM from the second, is the engine core.

Each ends with its parent: the first with its standard input, the others through the kernel. The
second watches the third: when the core dies, every stream is failed and the second follows.
`REPORT_FD` tells the Serve actor that it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from mesh.core.errors import MeshError
from node.engine.host_paths import HostPaths
from node.engine.process_family import children_of, die_with_parent
from node.engine.replica_fronts import LocalFront, NetworkFront
from node.engine.replica_network import ReplicaNetwork
from node.engine.spec import EngineSpec

_LOG = logging.getLogger("node.engine.ray_vllm_server")
_FAILURES = 3  # in a row without ever serving: then Serve shall try elsewhere, or give up
_BACKOFF_S = 0.5


def main() -> int:
    """The first process. Exit code 1: the engine cannot be started."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    paths, report = HostPaths.of(Path(sys.argv[1])), int(sys.argv[2])
    spec = EngineSpec.from_json(paths.spec.read_text())
    import node.engine.ray_vllm_engine  # noqa: F401 (what the forks are to share)

    gc.collect()
    gc.freeze()  # what is imported stays: no collection shall touch, and so copy, its pages
    served_r, served_w = os.pipe()
    failures = 0
    number = 0
    while failures < _FAILURES:
        number += 1
        child = os.fork()
        if child == 0:
            os.close(served_r)
            die_with_parent()
            _second(spec, paths, f"replica-{os.getpid()}-{number}", served_w)
        if not _wait(child, served_r, report):
            if paths.network.exists():  # directories of this replica's own, and its actor sweeps no more
                shutil.rmtree(paths.run_directory, ignore_errors=True)
                shutil.rmtree(paths.short, ignore_errors=True)
            return 0
        failures = 0 if _drain(served_r) else failures + 1
        time.sleep(_BACKOFF_S * failures)
    return 1


def _wait(child: int, served: int, report: int) -> bool:
    """Until the child ended (True) or the actor is gone (False). Passes on that it serves."""
    ended = os.pidfd_open(child)
    watched = [ended, served, sys.stdin.fileno()]
    try:
        while True:
            ready, _, _ = select.select(watched, [], [])
            if served in ready:
                watched.remove(served)
                with contextlib.suppress(OSError):
                    os.write(report, b"serving\n")
            if sys.stdin.fileno() in ready:
                os.kill(child, signal.SIGKILL)
                return False
            if ended in ready:
                os.waitpid(child, 0)
                return True
    finally:
        os.close(ended)


def _drain(served: int) -> bool:
    """Whether the last child ever served."""
    if not select.select([served], [], [], 0)[0]:
        return False
    return bool(os.read(served, 64))


def _second(spec: EngineSpec, paths: HostPaths, name: str, served: int) -> None:
    """The second process: never returns."""
    code = 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(spec, paths, name, served))
    except BaseException as error:
        # Types only: a message may hold a prompt. What concerns the start is logged where it happens.
        _LOG.error("the engine ended: %s", type(error).__name__)
    finally:
        os._exit(code)


async def _serve(spec: EngineSpec, paths: HostPaths, name: str, served: int) -> None:
    from node.engine.ray_vllm_engine import describe, make_service, start_embedder, start_engine

    # vLLM leaves files behind, and so do the processes that it spawns; these are swept with the rest.
    tempfile.tempdir = os.environ["TMPDIR"] = str(paths.short)
    front = await _front(paths, name)
    ended = asyncio.Event()
    try:
        engine = await start_engine(spec, paths)
        embedder = await start_embedder(spec, paths)
    except Exception as error:
        _LOG.exception("the engine did not start")
        # Of ours says what is wrong; any other's text is in the log.
        what = str(error) if isinstance(error, MeshError) else type(error).__name__
        await front.failed(f"the engine did not start: {what}")
        raise
    for core in children_of(os.getpid()):
        asyncio.get_running_loop().add_reader(os.pidfd_open(core), ended.set)
    gc.collect()
    gc.freeze()  # a full collection over vLLM's objects stops every stream for half a second
    service = make_service(engine, embedder, spec)
    try:
        server = await front.open(service, engine, spec, {"name": name, **describe(spec, paths)})
        os.write(served, b"1")
        unwanted = asyncio.ensure_future(front.unwanted())
        stalled = asyncio.ensure_future(_stalled(service, spec.stall_s))
        dead = asyncio.ensure_future(ended.wait())
        await asyncio.wait({unwanted, stalled, dead}, return_when=asyncio.FIRST_COMPLETED)
        _LOG.error("the engine is over: %s", "host gone" if unwanted.done() else "core dead or stalled")
        front.close()  # the gateway is told first
        # vLLM tells every generation by itself; a moment to hand that on, then there is no more to wait for.
        await server.stop(0.2)
    finally:
        front.close()


async def _front(paths: HostPaths, name: str) -> LocalFront | NetworkFront:
    """Where this replica serves: said by whether its run directory says how it is reached."""
    if paths.network.exists():
        return NetworkFront(ReplicaNetwork.of(json.loads(paths.network.read_text())))
    return await LocalFront.connect(paths, name)


async def _stalled(service: Any, stall_s: float) -> None:
    """Returns when generations were owed tokens for `stall_s` and none came."""
    seen, since = -1, time.monotonic()
    while True:
        await asyncio.sleep(min(1.0, stall_s / 4))
        if service.active == 0 or service.progress != seen:
            seen, since = service.progress, time.monotonic()
        elif time.monotonic() - since > stall_s:
            return


if __name__ == "__main__":
    sys.exit(main())
