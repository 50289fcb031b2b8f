"""Stands in for Ray below a real engine host: `python -m tests.support.family_of_sleepers RUN_DIR`.

As a host: starts node/engine/ray_host.py with this module as its cluster process. As the cluster
process: a tree as wild as Ray's (another process group, orphans, a deaf one), and a "replica" that
registers with the host and serves nothing.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from node.engine import ray_host
from node.engine.host_paths import HostPaths

CLUSTER = "tests.support.family_of_sleepers"
AS_HOST = "--host"


def sleep_deaf() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(3600)


def cluster(paths: HostPaths) -> None:
    if os.fork() == 0:
        os.setpgid(0, 0)
        if os.fork() == 0:
            replica(paths)
        sleep_deaf()
    if os.fork() == 0:
        if os.fork() == 0:
            sleep_deaf()
        os._exit(0)  # its child is an orphan now
    sleep_deaf()


def replica(paths: HostPaths) -> None:
    model = {"name": "m", "digest": "sha256:0", "context_tokens": 8, "tasks": ["generate"]}
    name = f"replica-{os.getpid()}"
    described = {
        "name": name,
        "pid": os.getpid(),
        "socket": str(paths.replica_socket(name)),
        "capacity": 1,
        "models": [model],
    }
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(paths.socket))
    line.sendall(json.dumps({"replica": described}).encode() + b"\n")
    sleep_deaf()


if __name__ == "__main__":
    if sys.argv[1] == AS_HOST:
        sys.argv.pop(1)
        sys.exit(ray_host.main(CLUSTER))
    cluster(HostPaths.of(Path(sys.argv[1])))
