"""The Serve deployment: an actor that keeps one engine process beside it alive.

The actor holds the resources that Ray granted (CPUs or GPUs, as one placement group bundle) and
starts `ray_vllm_server`, which inherits them, runs vLLM and serves the gateway over a Unix socket.
The actor imports neither vLLM nor torch: an engine is imported once per replica, and crashes where
Ray's own threads are not. When the server process ends for good, the actor ends at once, and Serve
puts another in its place.
"""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Any

from ray import serve

from node.engine.host_paths import HostPaths, python_module
from node.engine.spec import EngineSpec

SERVING = b"serving\n"


class Replica:
    """See the module. Serve constructs it; nobody calls it but Serve's health check."""

    def __init__(self, run_directory: str, environment: dict[str, str] | None = None) -> None:
        report, report_end = os.pipe()
        with os.fdopen(report, "rb") as reports:
            # Its standard input is the line it hangs on: it ends when this actor does.
            self._server = subprocess.Popen(  # noqa: S603 (a constant command)
                python_module("node.engine.ray_vllm_server", run_directory, str(report_end)),
                stdin=subprocess.PIPE,
                env=environment,
                pass_fds=(report_end,),
            )
            os.close(report_end)
            if reports.readline() != SERVING:
                raise RuntimeError("the engine did not start: see engine.log")
        threading.Thread(target=self._end_with_server, daemon=True).start()

    def check_health(self) -> None:
        """Serve asks. The server process heals its engine by itself as long as it lives."""
        if self._server.poll() is not None:
            raise RuntimeError("the engine's process ended")

    def _end_with_server(self) -> None:
        self._server.wait()
        os._exit(1)


def application(spec: EngineSpec, paths: HostPaths) -> Any:
    """What Serve is asked to run. All devices of a replica are one bundle, so on one machine."""
    bundle = {"CPU": float(spec.threads)}
    if spec.gpus:
        bundle["GPU"] = float(spec.gpus)
    deployment = serve.deployment(
        Replica,
        name="Replica",
        num_replicas=spec.replicas,
        ray_actor_options={"num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0.0)},
        placement_group_bundles=[bundle],
        placement_group_strategy="STRICT_PACK",
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=1.0,
    )
    return deployment.bind(str(paths.run_directory))
