"""A release, installed: hooks in Helm's order, pods with their init containers, probes and restarts.

    with cluster_of(tmp_path, manifests) as cluster:
        cluster.install()
        cluster.test()

One host of a lab (tests/support/hosts) is one pod, so pods have addresses of their own and ports do not
collide. Needs what a lab needs, and root: other users have no second user to become.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.identity.keys import key_to_pem
from tests.support.cluster.manifests import (
    Manifest,
    Pod,
    environment_of,
    expand,
    hooks_at,
    hooks_of,
    job_pod,
    key_of,
    names_of,
    pods_of,
    port_number,
)
from tests.support.cluster.volumes import Volumes
from tests.support.hosts.lab import Lab, lab_of, why_not
from tests.support.identities import server_certificate

NAMESPACE = "mesh"
API = "kubernetes-api"
API_PORT = 6443
KUBELET = "kubelet"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DEADLINE_S = 60.0
GRACE_S = 20.0
POLL_S = 0.1
# Folders that an image has empty, and this machine does not.
EMPTY = ("/tmp", "/home", "/mnt", "/media", "/srv", "/run", "/opt")
PATH = "/opt/sovereign-mesh/bin:/usr/local/bin:/usr/bin:/bin"


class PodFailed(AssertionError):
    """A pod did not do what it should; the message has the end of its log."""


@dataclass
class Running:
    """A pod that was started."""

    pod: Pod
    address: str
    volumes: Mapping[str, Path]
    log: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0


class Cluster:
    """Use `cluster_of`."""

    def __init__(
        self, folder: Path, manifests: Sequence[Manifest], lab: Lab, image: Mapping[str, Path]
    ) -> None:
        self.folder, self._lab, self._image = folder, lab, image
        self.manifests = [each for each in manifests if each]
        self._objects: dict[str, Manifest] = {}
        self._volumes = Volumes(folder, self._data)
        self.running: dict[str, Running] = {}
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._prober = lab.talk(
            KUBELET, [sys.executable, "-m", "tests.support.cluster.prober"], folder / "prober.log"
        )
        self._start_api()

    # --- Helm ---------------------------------------------------------------------------------------

    def install(self) -> None:
        """`helm install --wait`: hooks before, the release, ready pods, hooks after."""
        for kind in ("ServiceAccount", "ConfigMap", "Secret"):  # Helm makes these before what needs them
            self._objects |= {
                key_of(each): each for each in self.manifests if each["kind"] == kind and not hooks_of(each)
            }
        self._hooks("pre-install")
        for manifest in self.manifests:
            if not hooks_of(manifest):
                self._objects[key_of(manifest)] = manifest
        jobs = []
        for manifest in self.manifests:
            if hooks_of(manifest):
                continue
            for pod in pods_of(manifest, NAMESPACE):
                jobs += [pod] if pod.runs_to_its_end else []
                self._init_and_start(pod)
        for pod in jobs:
            self.finish(pod.name)
        self.wait_ready()
        self._hooks("post-install")

    def upgrade(self, manifests: Sequence[Manifest] | None = None) -> None:
        """`helm upgrade`: hooks before and after; pods whose template changed are replaced one by one."""
        before = {key_of(each): each for each in self.manifests}
        self.manifests = [each for each in (manifests or self.manifests) if each]
        self._hooks("pre-upgrade")
        for manifest in self.manifests:
            if hooks_of(manifest):
                continue
            self._objects[key_of(manifest)] = manifest
            if before.get(key_of(manifest), {}).get("spec") == manifest.get("spec"):
                continue
            for pod in reversed(list(pods_of(manifest, NAMESPACE))):
                if pod.name in self.running:
                    self.stop(pod.name)
                self._init_and_start(pod)
                self.finish(pod.name) if pod.runs_to_its_end else self.wait_ready()
        self._hooks("post-upgrade")

    def test(self) -> dict[str, str]:
        """`helm test`: the log of each test's pod; PodFailed if one fails."""
        return self._hooks("test")

    def run_cron_job(self, name: str) -> str:
        """What would run at its time, now; the log."""
        pod = job_pod(self._objects[f"CronJob/{name}"], NAMESPACE)
        self._init_and_start(pod)
        return self.finish(pod.name)

    def _hooks(self, moment: str) -> dict[str, str]:
        logs = {}
        for group in hooks_at(self.manifests, moment):
            for manifest in group:
                self._objects[key_of(manifest)] = manifest
            for manifest in group:
                for pod in pods_of(manifest, NAMESPACE):
                    self._init_and_start(pod)
                    logs[pod.name] = self.finish(pod.name)
        return logs

    # --- pods ---------------------------------------------------------------------------------------

    def stop(self, name: str) -> None:
        """As the kubelet does: SIGTERM, the pod's grace, SIGKILL; PodFailed where it came to that."""
        running = self.running.pop(name)
        self._publish()
        grace = min(GRACE_S, float(running.pod.spec.get("terminationGracePeriodSeconds", 30)))
        for process in running.processes.values():
            process.send_signal(signal.SIGTERM)
        for container, process in running.processes.items():
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise PodFailed(f"{name}/{container} had to be killed\n{self._tail(running)}") from None

    def start(self, name: str) -> None:
        """A pod of the release that was stopped, again."""
        (pod,) = [
            pod for each in self._objects.values() for pod in pods_of(each, NAMESPACE) if pod.name == name
        ]
        self._init_and_start(pod)

    def finish(self, name: str) -> str:
        """Waits until a Job's or a test's pod is done; its log. It is tried again as its Job says."""
        running = self.running[name]
        manifest = self._objects.get(running.pod.owner, {"spec": {}})
        tries = 1 + int(manifest["spec"].get("backoffLimit", 6 if manifest.get("kind") == "Job" else 0))
        for left in reversed(range(min(tries, 3))):
            codes = {n: process.wait(DEADLINE_S) for n, process in running.processes.items()}
            if not any(codes.values()):
                del self.running[name]
                return running.log.read_text(errors="replace")
            if not left:
                raise PodFailed(f"{name} ended with {codes}\n{self._tail(running)}")
            self._init_and_start(running.pod)
            running = self.running[name]
        raise AssertionError

    def wait_ready(self) -> None:
        """Until every pod that stays is ready; a container that ended is started again, a few times."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            late = [each for each in self.running.values() if not each.pod.runs_to_its_end]
            late = [each for each in late if not self._is_ready(each)]
            self._publish()
            if not late:
                return
            for each in late:
                self._heal(each)
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {each.pod.name}\n{self._tail(each)}" for each in late)
                raise PodFailed(f"not ready: {', '.join(each.pod.name for each in late)}\n{tails}")
            time.sleep(POLL_S)

    def exec(self, name: str, container: str, command: Sequence[str]) -> str:
        """`kubectl exec`: standard output; PodFailed with standard error."""
        running = self.running[name]
        (found,) = [each for each in running.pod.spec["containers"] if each["name"] == container]
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            log = Path(scratch) / "error"
            process = self._run(running, found, log, command=command, stdout=subprocess.PIPE)
            out, _ = process.communicate(timeout=DEADLINE_S)
            if process.returncode:
                raise PodFailed(f"{name}: exit code {process.returncode}\n{log.read_text()[-2000:]}")
            return str(out.decode())

    def secret(self, name: str) -> dict[str, bytes] | None:
        """A Secret's files, whoever made it."""
        found = self._data("Secret", name)
        return None if found is None else dict(found)

    def put_secret(self, name: str, files: Mapping[str, bytes]) -> None:
        """`kubectl create secret generic`."""
        data = {key: base64.b64encode(value).decode() for key, value in files.items()}
        self._objects[f"Secret/{name}"] = {"kind": "Secret", "metadata": {"name": name}, "data": data}

    # --- within -------------------------------------------------------------------------------------

    def _init_and_start(self, pod: Pod) -> None:
        address = self._lab.addresses[pod.name]
        log = self.folder / f"{pod.name}.log"
        running = Running(pod, address, self._volumes.of(pod), log)
        self.running[pod.name] = running
        self._publish()
        for container in pod.spec.get("initContainers", ()):
            for left in reversed(range(3)):
                code = self._run(running, container, log).wait(DEADLINE_S)
                if code == 0:
                    break
                if not left or pod.spec.get("restartPolicy") == "Never":
                    raise PodFailed(
                        f"{pod.name}/{container['name']} ended with {code}\n{self._tail(running)}"
                    )
        for container in pod.spec["containers"]:
            running.processes[container["name"]] = self._run(running, container, log)

    def _run(
        self,
        running: Running,
        container: Mapping[str, Any],
        log: Path,
        *,
        command: Sequence[str] = (),
        stdout: Any = None,
    ) -> subprocess.Popen[bytes]:
        pod = running.pod
        environment = {"PATH": PATH, "HOME": "/", "HOSTNAME": pod.spec.get("hostname", pod.name)}
        environment |= {
            "KUBERNETES_SERVICE_HOST": self._lab.addresses[API],
            "KUBERNETES_SERVICE_PORT": str(API_PORT),
        }
        environment |= environment_of(container, pod, running.address, self._objects, self._data)
        words = [*container.get("command", ()), *container.get("args", ())]
        if not container.get("command"):
            raise LookupError(f"{pod.owner}: {container['name']} relies on its image's entry point")
        security = {**pod.spec.get("securityContext", {}), **container.get("securityContext", {})}
        scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix="root-"))
        spec = {
            "scratch": str(scratch),
            "mounts": self._mounts(running, container),
            "empty": list(EMPTY),
            "read_only_root": bool(security.get("readOnlyRootFilesystem")),
            "user": security["runAsUser"],
            "group": security.get("runAsGroup", 0),
            "groups": sorted(
                {pod.group, security.get("runAsGroup", 0), *security.get("supplementalGroups", ())}
            ),
            "directory": container.get("workingDir", "/"),
            "environment": environment,
            "command": list(command) or [expand(str(word), environment) for word in words],
        }
        file = self.folder / f"{scratch.name}.json"
        file.write_text(json.dumps(spec))
        with log.open("ab") as output:
            output.write(f"--- {container['name']}\n".encode())
        pipes = {} if stdout is None else {"stdout": stdout}
        return self._lab.start(
            pod.name, [sys.executable, "-m", "tests.support.cluster.container", str(file)], log, **pipes
        )

    def _mounts(self, running: Running, container: Mapping[str, Any]) -> list[dict[str, Any]]:
        pod = running.pod
        mounts = [
            {"source": str(source), "target": target, "read_only": True}
            for target, source in self._image.items()
        ]
        mounts.append({"source": str(self._hosts), "target": "/etc/hosts", "read_only": True})
        for each in container.get("volumeMounts", ()):
            source = running.volumes[each["name"]]
            path = each.get("subPath")
            if path is not None:
                source = (source / path).resolve()
                if not source.exists():
                    source.mkdir(parents=True)
                    os.chown(source, 0, pod.group)
                    source.chmod(0o2775)
            mounts.append(
                {"source": str(source), "target": each["mountPath"], "read_only": bool(each.get("readOnly"))}
            )
        if self._gets_token(pod):
            account = pod.spec.get("serviceAccountName", "default")
            mounts.append(
                {
                    "source": str(self.folder / "accounts" / account),
                    "target": SERVICE_ACCOUNT,
                    "read_only": True,
                }
            )
        return mounts

    def _gets_token(self, pod: Pod) -> bool:
        account = self._objects.get(f"ServiceAccount/{pod.spec.get('serviceAccountName', 'default')}", {})
        wish = pod.spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        return bool(wish)

    def _data(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        made = self.folder / "api" / "secrets" / name
        if kind == "Secret" and made.is_dir():
            return {path.name: path.read_bytes() for path in made.iterdir()}
        found = self._objects.get(f"{kind}/{name}")
        if found is None:
            return None
        plain = {key: value.encode() for key, value in (found.get("stringData") or {}).items()}
        if kind == "ConfigMap":
            return plain | {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}

    def _is_ready(self, running: Running) -> bool:
        for container in running.pod.spec["containers"]:
            if running.processes[container["name"]].poll() is not None:
                running.ready = False
                return False
            probe = container.get("readinessProbe")
            if probe is not None and not self._passes(running, container, probe):
                running.ready = False
                return False
        running.ready = True
        return True

    def _passes(self, running: Running, container: Mapping[str, Any], probe: Mapping[str, Any]) -> bool:
        if "exec" in probe:
            process = self._run(
                running, container, self.folder / "probes.log", command=probe["exec"]["command"]
            )
            return process.wait(DEADLINE_S) == 0
        if "httpGet" in probe:
            get = probe["httpGet"]
            port = port_number(get["port"], running.pod)
            asked = {"url": f"{get.get('scheme', 'HTTP').lower()}://{running.address}:{port}{get['path']}"}
        elif "tcpSocket" in probe:
            asked = {"connect": [running.address, port_number(probe["tcpSocket"]["port"], running.pod)]}
        else:
            raise LookupError(f"{running.pod.owner}: a probe that these tests do not understand")
        self._prober.write(asked)
        return bool(self._prober.read(DEADLINE_S)["passes"])

    def _heal(self, running: Running) -> None:
        """The kubelet's restart policy, without its back-off: five times."""
        for container in running.pod.spec["containers"]:
            if running.processes[container["name"]].poll() is None:
                continue
            running.restarts += 1
            if running.restarts > 5:
                raise PodFailed(f"{running.pod.name} ends again and again\n{self._tail(running)}")
            running.processes[container["name"]] = self._run(running, container, running.log)

    def _publish(self) -> None:
        """Names that lead somewhere, into the file that every pod has as /etc/hosts."""
        lines = ["127.0.0.1 localhost", f"{self._lab.addresses[API]} kubernetes.default.svc"]
        for running in self.running.values():
            lines.append(f"{running.address} {running.pod.name}")
        for service in self._objects.values():
            if service["kind"] != "Service":
                continue
            ready = [
                each.pod
                for each in self.running.values()
                if each.ready or service["spec"].get("publishNotReadyAddresses")
            ]
            for name, pod in names_of(service, ready, NAMESPACE):
                lines.append(f"{self.running[pod.name].address} {name}")
        with self._hosts.open("r+") as file:  # in place: it is mounted
            file.truncate()
            file.write("\n".join(lines) + "\n")

    def _start_api(self) -> None:
        folder = self.folder / "api"
        (folder / "secrets").mkdir(parents=True)
        address = self._lab.addresses[API]
        certificate, key = server_certificate(address)
        (folder / "server.pem").write_bytes(certificate + key_to_pem(key))
        accounts = [each["metadata"]["name"] for each in self.manifests if each["kind"] == "ServiceAccount"]
        tokens = {}
        for account in ("default", *accounts):
            home = self.folder / "accounts" / account
            home.mkdir(parents=True)
            token = secrets.token_urlsafe(16)
            tokens[token] = account
            (home / "token").write_text(token)
            (home / "ca.crt").write_bytes(certificate)
            (home / "namespace").write_text(NAMESPACE)
        (folder / "tokens.json").write_text(json.dumps(tokens))
        (folder / "roles.json").write_text(json.dumps(rules_of(self.manifests)))
        command = [sys.executable, "-m", "tests.support.cluster.api", str(folder), f"{address}:{API_PORT}"]
        api = self._lab.start(API, command, self.folder / "api.log", stdout=subprocess.PIPE)
        if not api.stdout.readline():  # type: ignore[union-attr]
            raise PodFailed((self.folder / "api.log").read_text())

    @staticmethod
    def _tail(running: Running) -> str:
        return running.log.read_text(errors="replace")[-4000:] if running.log.exists() else ""


def rules_of(manifests: Iterable[Manifest]) -> dict[str, list[Mapping[str, Any]]]:
    """What each service account may, by the RoleBindings among the manifests."""
    roles = {each["metadata"]["name"]: each.get("rules", []) for each in manifests if each["kind"] == "Role"}
    rules: dict[str, list[Mapping[str, Any]]] = {}
    for binding in manifests:
        if binding["kind"] == "RoleBinding":
            for subject in binding["subjects"]:
                rules.setdefault(subject["name"], []).extend(roles[binding["roleRef"]["name"]])
    return rules


@contextlib.contextmanager
def cluster_of(folder: Path, manifests: Sequence[Manifest], image: Mapping[str, Path]) -> Iterator[Cluster]:
    """A cluster for these manifests. `image` are folders and files of this machine to show at other paths."""
    names = [
        (pod.name if manifest["kind"] != "CronJob" else "")
        for manifest in manifests
        if manifest
        for pod in (
            [job_pod(manifest, NAMESPACE)] if manifest["kind"] == "CronJob" else pods_of(manifest, NAMESPACE)
        )
    ]
    names += [each["metadata"]["name"] for each in manifests if each and each["kind"] == "CronJob"]
    hosts = dict.fromkeys((API, KUBELET, *(name for name in names if name)))
    with lab_of(folder, *hosts) as lab:
        yield Cluster(folder, manifests, lab, image)


@functools.cache
def why_no_cluster() -> str:
    """What this machine lacks, found out by trying; "" if it lacks nothing."""
    if lacking := why_not():
        return lacking
    if os.geteuid() != 0:
        return "pods run as users of their own, and only root can become another user"
    with tempfile.TemporaryDirectory() as folder, lab_of(Path(folder), "one") as lab:
        (Path(folder) / "scratch").mkdir()
        spec = {
            "scratch": f"{folder}/scratch", "mounts": [], "empty": list(EMPTY), "read_only_root": True,
            "user": 10001, "group": 10001, "groups": [10001], "directory": "/",
            "environment": {"PATH": PATH}, "command": ["true"],
        }  # fmt: skip
        (Path(folder) / "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-m", "tests.support.cluster.container", f"{folder}/spec.json"]
        if lab.start("one", command, Path(folder) / "log").wait(DEADLINE_S):
            return f"no overlay mounts here: {(Path(folder) / 'log').read_text().strip().splitlines()[-1]}"
    return ""


__all__ = ["Callable", "Cluster", "PodFailed", "cluster_of", "why_no_cluster"]
