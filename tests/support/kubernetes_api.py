"""A Kubernetes API server that keeps Secrets, as a pod of the namespace `mesh` sees it."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from mesh.identity.keys import generate_key, key_to_pem

TOKEN = "token-of-the-service-account"


@dataclass
class ApiServer:
    """One namespace's Secrets. `answer` replaces the next answers by (status, body)."""

    mount: Path
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer: tuple[int, bytes] | None = None
    accepted: list[str] = field(default_factory=list)
    port: int = 0

    def handle(self, method: str, path: str, token: str, body: bytes) -> tuple[int, bytes]:
        if token != f"Bearer {TOKEN}":
            return 401, b'{"kind": "Status", "reason": "Unauthorized"}'
        if self.answer is not None:
            return self.answer
        root = "/api/v1/namespaces/mesh/secrets"
        if method == "POST" and path == root:
            secret = json.loads(body)
            if secret["metadata"]["name"] in self.secrets:
                return 409, b'{"kind": "Status", "reason": "AlreadyExists"}'
            self.secrets[secret["metadata"]["name"]] = secret
            return 201, b"{}"
        if method == "GET" and path.removeprefix(f"{root}/") in self.secrets:
            return 200, b"{}"
        return 404, b'{"kind": "Status", "reason": "NotFound"}'

    def files(self, name: str) -> dict[str, bytes]:
        """What a Secret holds."""
        return {key: base64.b64decode(text) for key, text in self.secrets[name]["data"].items()}

    @property
    def environment(self) -> dict[str, str]:
        """What a pod finds in its environment."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}


@contextlib.contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Runs one; `folder` gets its files and the mount of a service account, `mount`."""
    server = ApiServer(folder / "mount")
    server.mount.mkdir(parents=True)
    certificate, key = server_certificate()
    (server.mount / "ca.crt").write_bytes(certificate)
    (server.mount / "token").write_text(TOKEN + "\n")
    (server.mount / "namespace").write_text("mesh")
    (folder / "server.pem").write_bytes(certificate + key)

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            server.accepted.append(self.headers.get("Accept", ""))
            status, answer = server.handle(
                self.command, self.path, self.headers.get("Authorization", ""), body
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _any

        def log_message(self, *_: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    http.socket = tls.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.port = http.server_port
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def server_certificate() -> tuple[bytes, bytes]:
    """(certificate, key) in PEM, for 127.0.0.1."""
    key = generate_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api server")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key_to_pem(key)
