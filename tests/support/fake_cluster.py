"""A Ray cluster's replicas without Ray and vLLM: scripted engines behind the real ports and real mutual TLS.

What a gateway looks up is what a test says is listed; what it dials, and whom it believes, is real.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.identity.keys import generate_key, key_to_pem
from mesh.ports import free_ports
from node.engine.replica_network import GATEWAY_NAME, REPLICA_NAME, ReplicaNetwork, TlsFiles, serve
from node.engine.scripted import ScriptedEngine
from node.engine.shared_cluster import ReplicaAccess, SharedClusterEngine
from tests.support.fake_host import FakeReplica

ADDRESS = "replicas.svc:7450"


class ReplicaAuthority:
    """An authority for one cluster's replicas and gateways, and the files of either end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = generate_key()
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "replicas")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self._root = self._certificate(self._key, self._name, constraints, critical=True)

    def files(self, dns_name: str, folder: str = "", days: float = 1.0) -> TlsFiles:
        """A new certificate and key in this name, written where those before it were."""
        place = self.folder / (folder or dns_name)
        place.mkdir(exist_ok=True)
        key = generate_key()
        san = x509.SubjectAlternativeName([x509.DNSName(dns_name)])
        leaf = self._certificate(key, x509.Name([]), san, critical=True, days=days)
        pem = serialization.Encoding.PEM
        (place / "ca.crt").write_bytes(self._root.public_bytes(pem))
        (place / "tls.crt").write_bytes(leaf.public_bytes(pem))
        (place / "tls.key").write_bytes(key_to_pem(key))
        return TlsFiles(*(str(place / name) for name in ("ca.crt", "tls.crt", "tls.key")))

    def _certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        extension: x509.ExtensionType,
        *,
        critical: bool,
        days: float = 1.0,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            subject_name=subject,
            issuer_name=self._name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=9),
            not_valid_after=now + timedelta(days=days),
        )
        return builder.add_extension(extension, critical=critical).sign(self._key, hashes.SHA256())

    def network(self, port: int, **changes: Any) -> ReplicaNetwork:
        """How a replica of this authority is reached."""
        files = changes.pop("files", None) or self.files(REPLICA_NAME)
        ends = {"ca": files.ca, "certificate": files.certificate, "key": files.key}
        return ReplicaNetwork.of({**ends, "host": "127.0.0.1", "port": port, **changes})


class FakeCluster:
    """Replicas that come and go. Use `make` and, at the end, `aclose`."""

    def __init__(self, folder: Path) -> None:
        self.authority = ReplicaAuthority(folder)
        self.listed: set[str] = set()
        self.resolves = True
        self.looked: list[str] = []
        self.replicas: dict[str, FakeReplica] = {}
        self._servers: dict[str, Any] = {}

    async def look_up(self, address: str) -> set[str]:
        """In the place of DNS."""
        assert address == ADDRESS
        self.looked.append(address)
        if not self.resolves:
            raise OSError("no answer")
        return set(self.listed)

    async def add(self, engine: ScriptedEngine, port: int = 0, **network: Any) -> str:
        """A replica comes up; returns its target."""
        port = port or free_port()
        replica = FakeReplica(f"replica-{port}", engine, Path("unused"))
        await engine.start()
        self._servers[target := f"ipv4:127.0.0.1:{port}"], _ = await serve(
            replica, described(replica), self.authority.network(port, **network)
        )
        self.replicas[target] = replica
        self.listed.add(target)
        return target

    async def lose(self, target: str) -> None:
        """Its process ends; who looks names up may not know yet."""
        await self._servers.pop(target).stop(None)

    def engine(self, files: TlsFiles | None = None, **options: Any) -> SharedClusterEngine:
        """A gateway's engine, not started."""
        access = ReplicaAccess((ADDRESS,), files or self.authority.files(GATEWAY_NAME))
        values: dict[str, Any] = {"model_name": "m", "look_up": self.look_up, "look_every_s": 0.05}
        return SharedClusterEngine(access, **values | options)

    async def aclose(self) -> None:
        """All go."""
        for target in list(self._servers):
            await self.lose(target)


def described(replica: FakeReplica) -> dict[str, Any]:
    """What a replica across a network says of itself: no process id, no socket."""
    return {name: value for name, value in replica.described.items() if name not in ("pid", "socket")}


def free_port() -> int:
    """One that nobody listens on."""
    return free_ports(1)[0]
