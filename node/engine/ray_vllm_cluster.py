"""Starts this node's own Ray and deploys the replicas: `python -m node.engine.ray_vllm_cluster RUN_DIR`.

A child of ray_host, which starts it again when it ends. Serve places, counts and heals the replicas
from here on; tokens never pass through this process or through Ray's object path. Ends when its
standard input ends, when its parent dies, or when Ray or the deployment is past healing.

Ray is started lean: of the eight helper processes that `ray.init` brings, the autoscaler's monitor,
the log monitor, the dashboard and the job server of its agent serve nobody here, cost 300 MB and
seconds of start on a small machine, and the last would run any program it is handed.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from node.engine.host_paths import HostPaths
from node.engine.process_family import children_of, die_with_parent
from node.engine.spec import EngineSpec

APPLICATION = "engine"
_OBJECT_STORE_BYTES = 80 << 20  # nothing of size ever passes through it
_LOOK_EVERY_S = 2.0


def _start_ray(spec: EngineSpec, paths: HostPaths) -> None:
    import ray
    import ray._private.node
    import ray._private.utils

    class LeanNode(ray._private.node.Node):
        """Ray's head without what serves nobody here."""

        def __init__(self, ray_params: Any, **options: Any) -> None:
            ray_params.include_log_monitor = False
            ray_params.no_monitor = True
            ray_params.dashboard_agent_listen_port = 0
            super().__init__(ray_params, **options)

        def start_api_server(self, **options: Any) -> None:
            """No dashboard."""

    ray._private.node.Node = LeanNode
    # What Ray's agent asks before it opens the job server: without its dependencies it does not.
    ray._private.utils.get_dashboard_dependency_error = lambda: ImportError("not wanted")
    # Every replica reserves as many CPUs as it has threads. Ray counts CPUs but does not confine to
    # them: offering more than the machine has lets its own small actors find a place.
    ray.init(
        num_cpus=spec.replicas * spec.threads + 2,
        num_gpus=spec.replicas * spec.gpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level="warning",
        _node_ip_address="127.0.0.1",
        _temp_dir=str(paths.ray),
    )


def _end_with_ray() -> None:
    """Ray's own processes are children of this one. Without either there is nothing to heal."""
    select.select([os.pidfd_open(child) for child in children_of(os.getpid())], [], [])
    os._exit(1)


def _watch() -> None:
    """Returns when Serve has given up on the deployment; raises when Ray is gone."""
    from ray import serve

    while True:
        time.sleep(_LOOK_EVERY_S)
        application = serve.status().applications.get(APPLICATION)
        if application is None or application.status == "DEPLOY_FAILED":
            return


def _end_with_stdin() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


def main() -> None:
    """Command line."""
    die_with_parent()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    paths = HostPaths.of(Path(sys.argv[1]))
    spec = EngineSpec.from_json(paths.spec.read_text())
    _start_ray(spec, paths)
    threading.Thread(target=_end_with_ray, daemon=True).start()

    from ray import serve

    from node.engine.ray_vllm import application

    serve.start(proxy_location="Disabled")
    serve.run(application(spec, paths), name=APPLICATION, route_prefix=None)
    _watch()
    os._exit(1)  # the host sweeps up: no orderly good-bye that could hang


if __name__ == "__main__":
    main()
