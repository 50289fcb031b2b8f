"""A Ray cluster that is no node's own, on loopback: `ray start`, then `serve deploy`.

That is how KubeRay's RayService does it, with the same configuration as its serveConfigV2.

    with ray_cluster(application(...)) as cluster:
        kill(cluster.find("ray_vllm_server"))
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from mesh.ports import free_ports
from node.engine.process_family import Family

ROOT = Path(__file__).parents[2]
_COMMAND_S = 180
_LEAN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONPATH": str(ROOT),
}


@dataclass(frozen=True)
class RayCluster:
    """A running one: all of it is one session, and below one folder."""

    family: Family
    folder: Path

    def find(self, name: str) -> list[int]:
        """Process ids of its processes whose command line has `name`."""
        found = []
        for pid in self.family.members():
            with contextlib.suppress(psutil.Error):
                if name in " ".join(psutil.Process(pid).cmdline()):
                    found.append(pid)
        return found

    @property
    def logs(self) -> list[Path]:
        """All that Ray and the replicas wrote."""
        return [path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()]


def application(spec: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """Serve's configuration, as docs/engines.md has it."""
    arguments = {"spec": spec, "network": network}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": free_ports(1)[0]},
        "applications": [
            {
                "name": "engine",
                "route_prefix": None,
                "import_path": "node.engine.ray_app:build",
                "args": arguments,
            }
        ],
    }


@contextlib.contextmanager
def ray_cluster(config: dict[str, Any]) -> Iterator[RayCluster]:
    """Starts it and asks for the application, which may take a while; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mesh-ray-"))  # short: Ray's sockets lie deep in it
    token, settings = folder / "token", folder / "serve.yaml"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    settings.write_text(yaml.safe_dump(config))
    gcs, client, dashboard, *agents = free_ports(7)
    environment = os.environ | _LEAN
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "TMPDIR": str(folder)}
    environment["RAY_DASHBOARD_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    bin_folder = Path(sys.executable).parent
    start = [
        str(bin_folder / "ray"), "start", "--head", "--node-ip-address=127.0.0.1", f"--port={gcs}",
        f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}", "--include-dashboard=true",
        f"--dashboard-agent-listen-port={agents[0]}", f"--dashboard-agent-grpc-port={agents[1]}",
        f"--runtime-env-agent-port={agents[2]}", f"--metrics-export-port={agents[3]}",
        f"--worker-port-list={','.join(map(str, free_ports(16)))}", "--num-cpus=4",
        f"--object-store-memory={80 << 20}", f"--temp-dir={folder / 'ray'}", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "ray.log").open("ab") as log:
        first = subprocess.Popen(start, env=environment, stdout=log, stderr=log, start_new_session=True)
    family = Family.of(first.pid)
    assert family is not None
    try:
        assert first.wait(_COMMAND_S) == 0, (folder / "ray.log").read_text()[-2000:]
        deploy = [str(bin_folder / "serve"), "deploy", str(settings)]
        done = subprocess.run(
            deploy, env=environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        yield RayCluster(family, folder)
    finally:
        first.kill()
        first.wait()
        left = family.end()
        shutil.rmtree(folder, ignore_errors=True)
        assert not left
