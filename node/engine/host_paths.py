"""Where an engine's processes keep what they share on one machine, and the environment they get.

Two folders: the run directory, in the node's state and of any length, holds what people read (log,
spec, who leads the processes); the short one, in the system's temporary directory, holds sockets,
whose paths the kernel limits to 107 bytes, and Ray's session, which puts sockets 70 bytes deep.
Its name follows from the run directory's, so a restarted gateway finds the sockets of the last.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from node.engine.process_family import Family
from node.engine.spec import EngineSpec


@dataclass(frozen=True, slots=True)
class HostPaths:
    """The files and sockets of the engine that belongs to `run_directory`."""

    run_directory: Path
    short: Path

    @classmethod
    def of(cls, run_directory: Path) -> HostPaths:
        """Computes them; touches nothing."""
        run_directory = run_directory.absolute()
        name = hashlib.sha256(os.fsencode(run_directory)).hexdigest()[:12]
        return cls(run_directory, Path(tempfile.gettempdir()) / f"mesh-{os.getuid()}-{name}")

    @property
    def spec(self) -> Path:
        """The spec that the host was started with."""
        return self.run_directory / "spec.json"

    @property
    def network(self) -> Path:
        """How a replica is reached where that is not this machine's sockets; there only then."""
        return self.run_directory / "network.json"

    @property
    def log(self) -> Path:
        """What the host, Ray's driver and the replicas print."""
        return self.run_directory / "engine.log"

    @property
    def record(self) -> Path:
        """Who leads the host's processes."""
        return self.run_directory / "host.json"

    @property
    def lock(self) -> Path:
        """Held by the living host."""
        return self.run_directory / "host.lock"

    @property
    def socket(self) -> Path:
        """The host's own, for the gateway and the replicas."""
        return self.short / "host.sock"

    @property
    def ray(self) -> Path:
        """Ray's session directory."""
        return self.short / "ray"

    @property
    def token(self) -> Path:
        """What Ray's processes show each other."""
        return self.short / "token"

    def replica_socket(self, name: str) -> Path:
        """Of one replica."""
        return self.short / f"{name}.sock"

    def make(self) -> None:
        """Makes both folders, for this user alone.

        Raises MeshError(CONFIG_INVALID) if the short one exists and is not ours: somebody may be
        waiting there to be talked to.
        """
        self.run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run_directory.chmod(0o700)
        try:
            self.short.mkdir(mode=0o700)
        except FileExistsError:
            found = self.short.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise MeshError(
                    Reason.CONFIG_INVALID, "the engine's socket directory belongs to somebody else"
                ) from None

    def write_record(self, family: Family) -> None:
        """Leaves word of who leads."""
        aside = self.record.with_suffix(".new")
        aside.write_text(json.dumps({"leader": family.leader, "born": family.born}))
        aside.replace(self.record)

    def read_record(self) -> Family | None:
        """Who led last, or None if there is no word."""
        try:
            values = json.loads(self.record.read_text())
            return Family(int(values["leader"]), int(values["born"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_token(self) -> None:
        """A new token for Ray, readable by this user alone."""
        self.token.unlink(missing_ok=True)
        handle = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))


def cache_directory(spec: EngineSpec, paths: HostPaths) -> Path:
    """Keeps what may be made again: vLLM's caches, the exported embedder, digests."""
    return Path(spec.cache_directory) if spec.cache_directory else paths.run_directory / "cache"


def digest_cache(spec: EngineSpec, paths: HostPaths) -> Path:
    """The file that remembers models' digests; its folder is made."""
    folder = cache_directory(spec, paths)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "digests.json"


def engine_environment(spec: EngineSpec, paths: HostPaths) -> dict[str, str]:
    """The environment of Ray's processes and the replicas: lean, quiet, and talking to nobody."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    code = str(Path(__file__).resolve().parents[2])
    inherited = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    environment |= {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys((code, *inherited))),
        "PYTHONUNBUFFERED": "1",
        # Ray: its own token, nothing started ahead of need, nothing reported to anybody.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(paths.token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_worker_niceness": "0",  # the default of 15 starves the engine on a busy machine
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # vLLM: quiet, local, and a single process for the engine.
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": environment.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if _single_process(spec) else "1",
        "VLLM_CACHE_ROOT": str(cache_directory(spec, paths) / "vllm"),
        # Its sockets carry prompts: in a directory of this user's alone, not in the common /tmp.
        "VLLM_RPC_BASE_PATH": str(paths.short),
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if spec.gpus == 0:
        # vLLM's default pins every replica on a machine to the same cores.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        environment["OMP_NUM_THREADS"] = str(spec.threads)
    if Path(spec.model).exists():
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _single_process(spec: EngineSpec) -> bool:
    """Whether vLLM's executor can run inside its engine process: one device, nothing to spread."""
    return spec.tensor_parallel * spec.pipeline_parallel == 1


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours with this very Python."""
    return [sys.executable, "-m", name, *arguments]
