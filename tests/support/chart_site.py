"""A site of the chart on this machine: its containers' scripts, run as they stand, and its daemons.

`python -m control.kubernetes_secret` is pointed at an API server of the test's own
(tests/support/kubernetes_api.py); everything else is what the image holds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from mesh.ports import free_ports
from tests.support.kubernetes_api import ApiServer

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "helm/sovereign-mesh/files/scripts"
TRUST_DOMAIN = "de.mesh.example"


class Pods:
    """Runs a script as a container would: with its own environment alone, and the image's commands."""

    def __init__(self, folder: Path, api: ApiServer) -> None:
        self.folder, self.api = folder, api
        self.commands = folder / "bin"
        self.commands.mkdir()
        real = Path(sys.executable)
        # The mount of the service account is a fixed path in a pod.
        secret = (
            "import sys; from pathlib import Path; from control.kubernetes_secret import main; "
            f'sys.exit(main(sys.argv[1:], Path("{api.mount}")))'
        )
        (self.commands / "python").write_text(
            f'#!/bin/sh\nif [ "$1 $2" = "-m control.kubernetes_secret" ]; then shift 2; '
            f'exec {real} -c \'{secret}\' "$@"; fi\nexec {real} "$@"\n'
        )
        (self.commands / "python").chmod(0o755)
        (self.commands / "meshctl").symlink_to(real.parent / "meshctl")

    def run(self, script: str, *arguments: str, code: int = 0, **environment: object) -> str:
        """Both of its outputs; the exit code has to be `code`."""
        temporary = self.folder / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        variables = {
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "INSTANCE": "site",
            **self.api.environment,
            **{name: str(value) for name, value in environment.items()},
        }
        done = subprocess.run(
            ["sh", str(SCRIPTS / script), *arguments],
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, f"{script}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def mount(self, secret: str, **paths: str) -> Path:
        """A Secret as kubelet mounts it: links to files that the group may read."""
        folder = self.folder / "mounts" / secret
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "..data").mkdir(parents=True)
        for key, data in self.api.files(secret).items():
            if paths and key not in paths:
                continue
            (folder / "..data" / key).write_bytes(data)
            (folder / "..data" / key).chmod(0o440)
            (folder / paths.get(key, key)).symlink_to(f"..data/{key}")
        return folder


def directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


class Site:
    """The release as far as it is up: etcd, control plane and node, from what the scripts made."""

    def __init__(self, pods: Pods) -> None:
        self.pods, self.folder = pods, pods.folder
        self.control, self.enrolment, self.node, self.health = (f"127.0.0.1:{port}" for port in free_ports(4))
        self.data = directory(self.folder / "node")
        self.authority = self.folder / "run" / "ca"
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def admin(self) -> dict[str, object]:
        """Environment of Jobs that administer."""
        return {
            "AUTHORITY_DIR": self.authority,
            "ADMIN_DIR": self.folder / "run" / "admin",
            "ADMIN_NAME": "tokens",
            "CONTROL": self.control,
            "ENROLMENT": self.enrolment,
            "WAIT_SECONDS": 60,
            "WORK_DIR": directory(self.folder / "work"),
        }

    def tokens(self) -> str:
        return self.pods.run(
            "node-tokens.sh",
            NODES="fra-1 fra-2",
            SECRET_PREFIX="mesh-join",
            FACTS="--location DE --operator DE --controller DE --admin-access DE --assurance C5",
            TOKEN_SECONDS=3600,
            **self.admin,
        )

    def enrol(self, **changed: object) -> str:
        tokens = directory(self.folder / "join")
        for node in ("fra-1", "fra-2"):
            secret = f"mesh-join-{node}"
            if secret in self.pods.api.secrets:
                (tokens / node).write_bytes(self.pods.api.files(secret)["token"])
        settings: dict[str, object] = {
            "NODE_PREFIX": "fra",
            "POD_NAME": "mesh-node-1",
            "DATA_DIR": self.data,
            "TRUST_DIR": self.pods.mount("mesh-authority", **{"root.pem": "root.pem"}),
            "TOKEN_DIR": tokens,
            "ENROLMENT": self.enrolment,
            "TRUST_DOMAIN": TRUST_DOMAIN,
            "WAIT_SECONDS": 30,
        }
        return self.pods.run("enrol.sh", **{**settings, **changed})

    def start(self, module: str, settings: dict[str, object]) -> None:
        config = self.folder / f"{module}.yaml"
        config.write_text(yaml.safe_dump(settings))
        log = self.folder / f"{module}.log"
        with log.open("wb") as out:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, "--config", str(config)], cwd=ROOT, stdout=out, stderr=out
                )
            )
        deadline = time.monotonic() + 60
        while "serves on" not in log.read_text():
            waiting = self.running[-1].poll() is None and time.monotonic() < deadline
            assert waiting, log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
