"""The objects of one namespace, and the API server that lets pods make Secrets of their own."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mesh.identity.keys import key_to_pem
from tests.support.cluster.manifests import Manifest
from tests.support.hosts.lab import Lab, LabFailed
from tests.support.identities import server_certificate

NAMESPACE = "mesh"
API_PORT = 6443


class Objects:
    """`held` is by kind and name, such as "Secret/de-authority"; what pods made is in files beside it."""

    def __init__(self, folder: Path, lab: Lab, host: str) -> None:
        self.held: dict[str, Manifest] = {}
        self._folder = folder
        self.address = lab.addresses[host]
        self._api = folder / "api"
        (self._api / "secrets").mkdir(parents=True)
        self._certificate, key = server_certificate(self.address)
        (self._api / "server.pem").write_bytes(self._certificate + key_to_pem(key))
        (self._api / "tokens.json").write_text("{}")
        (self._api / "roles.json").write_text("{}")
        address = f"{self.address}:{API_PORT}"
        command = [sys.executable, "-m", "tests.support.cluster.api", str(self._api), address]
        api = lab.start(host, command, folder / "api.log", stdout=subprocess.PIPE)
        if not api.stdout.readline():
            raise LabFailed((folder / "api.log").read_text())

    def admit(self, manifests: Iterable[Manifest]) -> None:
        """Gives the service accounts of a release tokens, and the rights that its Roles say."""
        tokens = self._api / "tokens.json"
        known = json.loads(tokens.read_text())
        accounts = [each["metadata"]["name"] for each in manifests if each["kind"] == "ServiceAccount"]
        for account in {"default", *accounts} - set(known.values()):
            home = self.mount_of(account)
            home.mkdir(parents=True)
            token = secrets.token_urlsafe(16)
            known[token] = account
            (home / "token").write_text(token)
            (home / "ca.crt").write_bytes(self._certificate)
            (home / "namespace").write_text(NAMESPACE)
        tokens.write_text(json.dumps(known))
        (self._api / "roles.json").write_text(json.dumps(rules_of(manifests)))

    def mount_of(self, account: str) -> Path:
        """What a pod with this service account finds of it."""
        return self._folder / "accounts" / account

    def data(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        """The files of a ConfigMap or Secret, or None."""
        made = self._api / "secrets" / name
        if kind == "Secret" and made.is_dir():
            return {path.name: path.read_bytes() for path in made.iterdir()}
        found = self.held.get(f"{kind}/{name}")
        if found is None:
            return None
        plain = {key: value.encode() for key, value in (found.get("stringData") or {}).items()}
        if kind == "ConfigMap":
            return plain | {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}


def rules_of(manifests: Iterable[Manifest]) -> dict[str, list[Mapping[str, Any]]]:
    """What each service account may, by the RoleBindings among the manifests."""
    roles = {each["metadata"]["name"]: each.get("rules", []) for each in manifests if each["kind"] == "Role"}
    rules: dict[str, list[Mapping[str, Any]]] = {}
    for binding in manifests:
        if binding["kind"] == "RoleBinding":
            for subject in binding["subjects"]:
                rules.setdefault(subject["name"], []).extend(roles[binding["roleRef"]["name"]])
    return rules
