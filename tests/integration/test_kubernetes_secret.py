"""Keeping files as a Secret, against an API server that speaks HTTPS and asks for the pod's token."""

from __future__ import annotations

import base64
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

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from control.kubernetes_secret import ABSENT, main
from mesh.identity.keys import generate_key, key_to_pem

TOKEN = "token-of-the-service-account"
CONTENTS = b"the root key, which no message may show"


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


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path / "mount")
    server.mount.mkdir()
    certificate, key = _certificate()
    (server.mount / "ca.crt").write_bytes(certificate)
    (server.mount / "token").write_text(TOKEN + "\n")
    (server.mount / "namespace").write_text("mesh")
    (tmp_path / "server.pem").write_bytes(certificate + key)

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
    tls.load_cert_chain(tmp_path / "server.pem")
    http.socket = tls.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.port = http.server_port
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    yield server
    http.shutdown()
    thread.join()
    http.server_close()


def _certificate() -> tuple[bytes, bytes]:
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


@pytest.fixture
def root_key(tmp_path: Path) -> str:
    path = tmp_path / "root.key"
    path.write_bytes(CONTENTS)
    return f"root.key={path}"


def test_files_become_a_secret(api: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["de-authority", "--from-file", root_key, "--label", "app.kubernetes.io/name=sovereign-mesh"]
    assert main(words, api.mount) == 0
    made = api.secrets["de-authority"]
    assert base64.b64decode(made["data"]["root.key"]) == CONTENTS
    assert made["metadata"]["labels"] == {"app.kubernetes.io/name": "sovereign-mesh"}
    assert made["metadata"]["namespace"] == "mesh"
    assert "mesh/de-authority was made" in capsys.readouterr().out


def test_a_secret_is_never_overwritten(
    api: ApiServer, root_key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["de-authority", "--from-file", root_key], api.mount) == 0
    (tmp_path / "root.key").write_bytes(b"another")
    assert main(["de-authority", "--from-file", root_key], api.mount) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert main(["de-authority", "--from-file", "root.key=/not/there", "--if-absent"], api.mount) == 0
    assert base64.b64decode(api.secrets["de-authority"]["data"]["root.key"]) == CONTENTS


def test_asking_says_whether_it_exists_and_fetches_metadata_alone(api: ApiServer, root_key: str) -> None:
    assert main(["de-authority", "--exists"], api.mount) == ABSENT
    assert main(["de-authority", "--from-file", root_key], api.mount) == 0
    assert main(["de-authority", "--exists"], api.mount) == 0
    assert all(accept.startswith("application/json;as=PartialObjectMetadata") for accept in api.accepted)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((403, b'{"kind": "Status", "reason": "Forbidden"}'), "403 Forbidden (does the service account"),
        ((500, b"<html>"), "said 500"),
        ((409, b'{"reason": "' + CONTENTS + b'"}'), "said 409"),
        ((201 + 1, b""), "said 202"),
    ],
)
def test_other_answers_fail_and_are_not_repeated(
    api: ApiServer, root_key: str, answer: tuple[int, bytes], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer = answer
    assert main(["de-authority", "--from-file", root_key], api.mount) == 1
    assert main(["de-authority", "--exists"], api.mount) == 1, "trouble is not absence"
    err = capsys.readouterr().err
    assert says in err
    assert CONTENTS.decode() not in err


def test_the_server_has_to_prove_itself(
    api: ApiServer, root_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (api.mount / "ca.crt").write_bytes(_certificate()[0])
    assert main(["de-authority", "--from-file", root_key], api.mount) == 1
    assert "does not answer: SSLCertVerificationError" in capsys.readouterr().err
    assert api.accepted == []


@pytest.mark.parametrize(
    "words",
    [
        ["de-authority"],
        ["de-authority", "--from-file", "root.key"],
        ["de-authority", "--from-file", "../root.key=x"],
        ["de-authority", "--from-file", "root.key=/not/there"],
    ],
)
def test_what_is_not_a_file_is_refused(api: ApiServer, words: list[str]) -> None:
    assert main(words, api.mount) == 1
    assert api.secrets == {}


@pytest.mark.parametrize("name", ["De", "../x", "", "a/b", "x" * 254])
def test_a_name_that_is_none_is_wrong_usage(api: ApiServer, name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--exists"], api.mount)
    assert caught.value.code == 2
    assert api.accepted == []


def test_outside_a_pod_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["de-authority", "--exists"], tmp_path) == 1
    assert "a pod of a cluster" in capsys.readouterr().err
