"""`python -m control.kubernetes_secret NAME --from-file KEY=PATH ...`: keeps files as a Kubernetes Secret.

For a Job of the chart that makes keys once, such as an authority's root: it runs in the cluster, with a
service account that may create this one kind of object and, by name, read whether it is there. The
standard library's TLS is enough for two requests; the Kubernetes client would be sixty megabytes more in
an image that guards a root key.

A Secret that exists is never overwritten: with `--if-absent` that is success and the files are not read,
otherwise CONFIG_INVALID. `--exists` only asks, and exits with 0, or with 4 if there is none. Contents never
reach a message: of the API server's answers only the status code and its own `reason` word are repeated.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import read_file

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 30.0
# The API server's own bound on a Secret is 1 MiB.
MAX_FILES, MAX_ANSWER_BYTES = 32, 256 * 1024

# RFC 1123 names, as Kubernetes has them; and the keys of a Secret.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
ABSENT = 4
_WORD = re.compile(r"[A-Za-z]{1,64}")


class Cluster:
    """The API server as a pod sees it: its address from the environment, token and CA from the mount.

    Raises CONFIG_INVALID where the process does not run in a pod with a service account.
    """

    def __init__(self, environment: Mapping[str, str], mount: Path = SERVICE_ACCOUNT) -> None:
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not port.isdigit():
            raise MeshError(
                Reason.CONFIG_INVALID, "expected KUBERNETES_SERVICE_HOST: this is for a pod of a cluster"
            )
        self._host, self._port = host, int(port)
        try:
            self._token = read_file(mount / "token").decode("ascii").strip()
            self._tls = ssl.create_default_context(cafile=str(mount / "ca.crt"))
            self.namespace = read_file(mount / "namespace").decode("ascii").strip()
        except (OSError, UnicodeDecodeError, ssl.SSLError):
            raise MeshError(
                Reason.CONFIG_INVALID, f"expected token, ca.crt and namespace in {mount}"
            ) from None

    def exists(self, namespace: str, name: str) -> bool:
        """Whether there is a Secret of this name."""
        status, reason = self._ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        if status == http.client.OK:
            return True
        if status == http.client.NOT_FOUND:
            return False
        raise _refused("asking for the Secret", status, reason)

    def create(
        self, namespace: str, name: str, files: Mapping[str, bytes], labels: Mapping[str, str]
    ) -> bool:
        """Makes the Secret; False if there is one of this name, which stays as it is."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
            "data": {key: base64.b64encode(data).decode("ascii") for key, data in files.items()},
        }
        status, reason = self._ask("POST", f"/api/v1/namespaces/{namespace}/secrets", json.dumps(secret))
        if status == http.client.CREATED:
            return True
        if status == http.client.CONFLICT and reason == "AlreadyExists":
            return False
        raise _refused("making the Secret", status, reason)

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """The status of the answer, and Kubernetes' word for it."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._tls)
        # Of an existing Secret only the metadata comes back: nobody here needs what it holds.
        headers = {"Authorization": f"Bearer {self._token}", "Accept": _METADATA}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read(MAX_ANSWER_BYTES) if answer.status >= http.client.BAD_REQUEST else b""
        except (OSError, http.client.HTTPException) as error:
            raise MeshError(
                Reason.UNREACHABLE, f"the API server does not answer: {type(error).__name__}"
            ) from None
        finally:
            connection.close()
        return answer.status, _reason_in(text)


def _reason_in(text: bytes) -> str:
    """The `reason` of a metav1.Status, if it is one word."""
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return ""
    word = found.get("reason") if isinstance(found, dict) else None
    return word if isinstance(word, str) and _WORD.fullmatch(word) else ""


def _refused(doing: str, status: int, reason: str) -> MeshError:
    hint = " (does the service account's Role allow it?)" if status == http.client.FORBIDDEN else ""
    said = f"{status} {reason}".strip()
    return MeshError(Reason.CONFIG_INVALID, f"{doing}: the API server said {said}{hint}")


def files_of(pairs: Sequence[str]) -> dict[str, bytes]:
    """What KEY=PATH names, read; CONFIG_INVALID or NOT_FOUND."""
    if not 1 <= len(pairs) <= MAX_FILES:
        raise MeshError(Reason.CONFIG_INVALID, f"--from-file: expected 1 to {MAX_FILES}")
    files: dict[str, bytes] = {}
    for pair in pairs:
        key, mark, path = pair.partition("=")
        if not mark or not _KEY.fullmatch(key) or not path or key in files:
            raise MeshError(Reason.CONFIG_INVALID, "--from-file: expected KEY=PATH, each key once")
        files[key] = read_file(Path(path))
    return files


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """What KEY=VALUE says; the API server checks the rest."""
    labels = dict(pair.partition("=")[::2] for pair in pairs)
    if any("=" not in pair for pair in pairs):
        raise MeshError(Reason.CONFIG_INVALID, "--label: expected KEY=VALUE")
    return labels


def main(arguments: Sequence[str] | None = None, mount: Path = SERVICE_ACCOUNT) -> int:
    """The command; 0 done (or it exists), 1 failed, 2 wrong usage, 4 it does not exist."""
    parser = argparse.ArgumentParser(
        prog="python -m control.kubernetes_secret", description="Keeps files as a Kubernetes Secret."
    )
    parser.add_argument("name", help="of the Secret")
    parser.add_argument("--from-file", action="append", default=[], metavar="KEY=PATH")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--namespace", default="", help="default: the pod's own")
    parser.add_argument("--if-absent", action="store_true", help="one that exists is left alone: done")
    parser.add_argument("--exists", action="store_true", help="only ask whether it exists")
    options = parser.parse_args(arguments)
    if not _NAME.fullmatch(options.name) or (options.namespace and not _NAME.fullmatch(options.namespace)):
        parser.error("expected a name of lower-case letters, digits, '-' and '.'")
    try:
        cluster = Cluster(os.environ, mount)
        namespace = options.namespace or cluster.namespace
        if options.exists:
            return 0 if cluster.exists(namespace, options.name) else ABSENT
        if options.if_absent and cluster.exists(namespace, options.name):
            print(f"Secret {namespace}/{options.name} is there already and was left alone")
            return 0
        made = cluster.create(namespace, options.name, files_of(options.from_file), labels_of(options.label))
        if not made and not options.if_absent:
            raise MeshError(
                Reason.CONFIG_INVALID, f"Secret {namespace}/{options.name} exists and is never overwritten"
            )
        print(f"Secret {namespace}/{options.name} {'was made' if made else 'is there already'}")
        return 0
    except MeshError as error:
        print(f"kubernetes_secret: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
