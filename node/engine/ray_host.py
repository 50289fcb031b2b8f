"""The process that all others of an engine descend from: `python -m node.engine.ray_host RUN_DIR`.

It outlives the gateway for a while, so that a gateway that was killed finds its engine warm; and it
sees to it that nothing outlives it. It imports neither Ray nor vLLM: it starts the process that does
(ray_vllm_cluster), starts it again when it ends, and otherwise only listens on a Unix socket:

- a replica connects when it serves and says what and where. It is there as long as its connection.
- a gateway connects, is told the state at once and on every change, one JSON line each, and may say
  {"stop": true}. Without a gateway for `orphan_grace_s`, the host ends everything and itself.

Every process is of the session that the host leads (process_family). Orphans come to the host,
which is their reaper: whoever lost its parent here has lost its purpose, and is killed. Should the
host itself be killed, a guard that it forked ends all the others, and a gateway that sees it happen,
or starts later, makes sure.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mesh.core.errors import MeshError
from node.engine.host_paths import HostPaths, digest_cache, engine_environment, python_module
from node.engine.model_files import require_digest
from node.engine.no_network import isolate
from node.engine.process_family import Family, adopt_orphans, children_of, start_guard
from node.engine.spec import EngineSpec

_LOG = logging.getLogger("node.engine.ray_host")
LOCKED = 3  # exit code: another host serves this run directory
_RESTART_FIRST_S, _RESTART_MOST_S = 1.0, 30.0
_LINE_LIMIT = 1 << 20
_REAP_S = 1.0


class Host:
    """See the module."""

    def __init__(
        self,
        spec: EngineSpec,
        paths: HostPaths,
        family: Family,
        guard: int,
        *,
        isolated: bool,
        cluster: str,
    ) -> None:
        self._spec, self._paths, self._family = spec, paths, family
        self._isolated, self._module = isolated, cluster
        self._lasting = (os.getpid(), guard)
        self._replicas: dict[str, dict[str, Any]] = {}
        self._was_ready = False
        self._error = ""
        self._gateways: set[asyncio.StreamWriter] = set()
        self._orphaned: asyncio.TimerHandle | None = None
        self._cluster: subprocess.Popen[bytes] | None = None
        self._cluster_ended = asyncio.Event()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until told to stop, or orphaned for too long."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._over.set)
        self._paths.socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connected, str(self._paths.socket), limit=_LINE_LIMIT)
        self._watch_for_orphanhood()
        tasks = [asyncio.ensure_future(self._keep_cluster()), asyncio.ensure_future(self._end_strays())]
        try:
            await self._over.wait()
        finally:
            for task in tasks:
                task.cancel()
            server.close()
            # All this before the gateways' lines close: that is how they know that it is done.
            self._family.end(spare=(os.getpid(),))
            deadline = time.monotonic() + _REAP_S
            while self._reap() and time.monotonic() < deadline:
                time.sleep(0.005)  # noqa: ASYNC251 (nothing else is left to do)
            shutil.rmtree(self._paths.short, ignore_errors=True)

    async def _keep_cluster(self) -> None:
        wait_s = _RESTART_FIRST_S
        while True:
            if not await self._model_permitted():
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RESTART_MOST_S)
                continue
            self._cluster_ended.clear()
            shutil.rmtree(self._paths.ray, ignore_errors=True)
            self._paths.ray.mkdir(mode=0o700)
            self._paths.write_token()
            # The command line is constant, and stdin is the line it hangs on.
            self._cluster = subprocess.Popen(  # noqa: S603, ASYNC220
                python_module(self._module, str(self._paths.run_directory)),
                stdin=subprocess.PIPE,
                env=engine_environment(self._spec, self._paths),
            )
            started = asyncio.get_running_loop().time()
            await self._cluster_ended.wait()
            _LOG.warning("the cluster process ended; starting it again in %.0f s", wait_s)
            self._family.end(spare=self._lasting)
            self._replicas.clear()
            self._tell()
            await asyncio.sleep(wait_s)
            lived = asyncio.get_running_loop().time() - started
            wait_s = _RESTART_FIRST_S if lived > 120 else min(2 * wait_s, _RESTART_MOST_S)

    async def _model_permitted(self) -> bool:
        """Whether the model's folder is the one that the spec is pinned to. If not, nothing is started.

        A hub id is judged by the replica that fetches it, before it loads it, and so is a folder again.
        """
        try:
            await asyncio.to_thread(_judge_model, self._spec, self._paths)
        except (MeshError, OSError) as error:
            _LOG.error("nothing is loaded: %s", error)
            self._error = str(error)
            self._tell()
            return False
        return True

    def _reap(self) -> bool:
        """Takes leave of children that ended, adopted ones too; True if others are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self._cluster is not None and pid == self._cluster.pid:
                self._cluster.returncode = os.waitstatus_to_exitcode(status)
                self._cluster_ended.set()

    async def _end_strays(self) -> None:
        """Whoever is a child of this process without having been started by it lost its parent."""
        while True:
            await asyncio.sleep(0.5)
            for pid in children_of(os.getpid()):
                if self._cluster is not None and pid not in (self._cluster.pid, *self._lasting):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if message.get("stop"):
                    self._over.set()
                elif "gateway" in message:
                    self._gateways.add(writer)
                    self._watch_for_orphanhood()
                    writer.write(self._state_line())
                elif "replica" in message:
                    name = message["replica"]["name"]
                    self._replicas[name] = message["replica"]
                    self._was_ready, self._error = True, ""
                    self._tell()
                elif "failure" in message:
                    self._error = str(message["failure"])[:500]
                    self._tell()
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            _LOG.warning("a connection broke: %s", type(error).__name__)
        finally:
            self._gateways.discard(writer)
            self._watch_for_orphanhood()
            if name and self._replicas.pop(name, None) is not None:
                self._tell()
            writer.close()

    def _watch_for_orphanhood(self) -> None:
        if self._gateways and self._orphaned is not None:
            self._orphaned.cancel()
            self._orphaned = None
        elif not self._gateways and self._orphaned is None:
            loop = asyncio.get_running_loop()
            self._orphaned = loop.call_later(self._spec.orphan_grace_s, self._over.set)

    def _state_line(self) -> bytes:
        state = "ready" if self._replicas else "failed" if self._was_ready or self._error else "starting"
        message = {
            "spec": self._spec.digest,
            "state": state,
            "replicas": list(self._replicas.values()),
            "error": self._error,
            "isolated": self._isolated,
        }
        return json.dumps(message).encode() + b"\n"

    def _tell(self) -> None:
        line = self._state_line()
        for writer in self._gateways:
            writer.write(line)


def _judge_model(spec: EngineSpec, paths: HostPaths) -> None:
    folder = Path(spec.model)
    if spec.model_digest and folder.is_dir():
        require_digest(folder, spec.model_digest, digest_cache(spec, paths))


def main(cluster: str = "node.engine.ray_vllm_cluster") -> int:
    """Command line. Exit codes: 0 done, LOCKED another host is at work.

    `cluster` is the module that the cluster process runs.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    paths = HostPaths.of(Path(sys.argv[1]))
    spec = EngineSpec.from_json(paths.spec.read_text())
    paths.make()
    with open(paths.lock, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return LOCKED
            raise
        os.set_inheritable(lock.fileno(), False)
        before = paths.read_record()
        if before is not None:
            before.end(spare=(os.getpid(),))
        family = Family.of(os.getpid())
        if family is None:
            raise SystemExit("start this process in a session of its own")
        paths.write_record(family)
        isolated = spec.isolate_network and Path(spec.model).exists() and isolate()
        adopt_orphans()
        guard = start_guard(family, paths.short)
        asyncio.run(_run(Host(spec, paths, family, guard, isolated=isolated, cluster=cluster)))
    return 0


async def _run(host: Host) -> None:
    await host.run()
    os._exit(0)  # everything is down; unwinding open connections would only make noise


if __name__ == "__main__":
    sys.exit(main())
