"""A Kubernetes API server in this process that keeps Secrets, as a pod of the namespace `mesh` sees it."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.identity.keys import key_to_pem
from tests.support.cluster.api import Api, serve
from tests.support.identities import server_certificate

TOKEN = "token-of-the-service-account"
EVERYTHING = ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},)


@dataclass
class ApiServer:
    """`mount` is what a pod finds of its service account, `api` what answers."""

    mount: Path
    folder: Path
    api: Api
    port: int

    @property
    def secrets(self) -> set[str]:
        """The names of those that there are."""
        return {path.name for path in self.folder.iterdir()}

    def files(self, name: str) -> dict[str, bytes]:
        """What a Secret holds."""
        return {path.name: path.read_bytes() for path in (self.folder / name).iterdir()}

    def delete(self, name: str) -> None:
        """As `kubectl delete secret` does."""
        shutil.rmtree(self.folder / name)

    @property
    def environment(self) -> dict[str, str]:
        """What a pod finds in its environment."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}


@contextlib.contextmanager
def api_server(folder: Path, rules: Sequence[dict[str, Any]] = EVERYTHING) -> Iterator[ApiServer]:
    """Runs one for a service account that may do what the rules of its Role say."""
    mount, kept = folder / "mount", folder / "secrets"
    for each in (mount, kept):
        each.mkdir(parents=True)
    certificate, key = server_certificate("127.0.0.1")
    (mount / "ca.crt").write_bytes(certificate)
    (mount / "token").write_text(TOKEN + "\n")
    (mount / "namespace").write_text("mesh")
    (folder / "server.pem").write_bytes(certificate + key_to_pem(key))
    (folder / "tokens.json").write_text(json.dumps({TOKEN: "account"}))
    (folder / "roles.json").write_text(json.dumps({"account": list(rules)}))
    http, api = serve(folder, "127.0.0.1", 0)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield ApiServer(mount, kept, api, http.server_port)
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
