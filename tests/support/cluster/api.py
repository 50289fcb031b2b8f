"""The part of the Kubernetes API that the chart's Jobs use: Secrets, by service accounts that may.

    python -m tests.support.cluster.api FOLDER ADDRESS:PORT

Keeps each Secret as a folder of files below FOLDER/secrets. `server.pem` is there when it starts; who may
what is in `tokens.json` (token to account) and `roles.json` (account to rules). A request is answered as the
release's Roles and RoleBindings say: who asks for more than its Role gives it gets 403, as in a cluster.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def permits(rules: Iterable[Mapping[str, Any]], verb: str, resource: str, name: str) -> bool:
    """Whether RBAC rules permit this on the core API group; `name` is "" where a request names none."""
    for rule in rules:
        names = rule.get("resourceNames")
        if (
            "" in rule.get("apiGroups", ())
            and {resource, "*"} & set(rule.get("resources", ()))
            and {verb, "*"} & set(rule.get("verbs", ()))
            and (not names or name in names)
        ):
            return True
    return False


class Api:
    """Answers requests; a thread each, files alone are shared."""

    def __init__(self, folder: Path) -> None:
        self._secrets = folder / "secrets"
        self._folder = folder
        self.created: list[dict[str, Any]] = []
        self.accepted: set[str] = set()
        self.odd_answer: tuple[int, bytes] | None = None

    def handle(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        accounts: dict[str, str] = json.loads((self._folder / "tokens.json").read_text())
        account = accounts.get(authorization.removeprefix("Bearer "))
        if account is None:
            return _status(401, "Unauthorized")
        parts = path.strip("/").split("/")
        if parts[:3] != ["api", "v1", "namespaces"] or len(parts) not in (5, 6) or parts[4] != "secrets":
            return _status(404, "NotFound")
        name = parts[5] if len(parts) == 6 else ""
        verbs = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
        rules: dict[str, list[dict[str, Any]]] = json.loads((self._folder / "roles.json").read_text())
        if not permits(rules.get(account, ()), verbs[method], "secrets", name):
            return _status(403, "Forbidden")
        if method == "POST":
            return self._create(json.loads(body))
        if method == "GET" and name:
            kept = (self._secrets / name).is_dir()
            return (200, {"kind": "PartialObjectMetadata"}) if kept else _status(404, "NotFound")
        return _status(405, "MethodNotAllowed")

    def _create(self, secret: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        folder = self._secrets / secret["metadata"]["name"]
        self.created.append(secret)
        try:
            folder.mkdir()
        except FileExistsError:
            return _status(409, "AlreadyExists")
        for key, value in secret.get("data", {}).items():
            (folder / key).write_bytes(base64.b64decode(value))
        return 201, {"kind": "Secret"}


def _status(code: int, reason: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason}


def serve(folder: Path, host: str, port: int) -> tuple[ThreadingHTTPServer, Api]:
    """A server that is bound, not yet serving, and what it answers with."""
    api = Api(folder)

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            api.accepted.add(self.headers.get("Accept", ""))
            code, answer = api.handle(self.command, self.path, self.headers.get("Authorization", ""), body)
            text = json.dumps(answer).encode()
            if api.odd_answer is not None:
                code, text = api.odd_answer
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = _any

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((host, port), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server, api


def main() -> None:
    folder, (host, _, port) = Path(sys.argv[1]), sys.argv[2].rpartition(":")
    server, _ = serve(folder, host, int(port))
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
