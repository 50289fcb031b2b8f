"""A release, installed: hooks in Helm's order, pods with their init containers, probes and restarts.

    with clusters_of(tmp_path, ["de", "fr"], image) as clusters:
        clusters["de"].install(manifests)
        clusters["de"].test()

One host of a lab (tests/support/hosts) is one pod, so pods have addresses of their own and ports do not
collide. Several clusters share a lab: they reach each other by address, and by the names of `elsewhere`.
Needs what a lab needs, and root: other users have no second user to become.
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
    NotThereYet,
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
from tests.support.hosts.lab import Capture, Lab, lab_of, why_not
from tests.support.identities import server_certificate

NAMESPACE = "mesh"
API = "kubernetes-api"
API_PORT = 6443
KUBELET = "kubelet"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DEADLINE_S = 60.0
GRACE_S = 20.0
POLL_S = 0.1
BACK_OFF_S, RESTARTS = 0.5, 30
# Folders that an image has empty, and this machine does not.
EMPTY = ("/tmp", "/home", "/mnt", "/media", "/srv", "/run", "/opt")
PATH = "/opt/sovereign-mesh/bin:/usr/local/bin:/usr/bin:/bin"


class PodFailed(AssertionError):
    """A pod did not do what it should; the message has the end of its log."""


@dataclass
class Running:
    """A pod on its way: waiting for what it mounts, its init containers one by one, its containers."""

    pod: Pod
    host: str
    address: str
    log: Path
    volumes: Mapping[str, Path] | None = None
    initialised: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ready: bool = False
    done: bool = False
    restarts: int = 0
    not_before: float = 0.0
    waits_for: str = ""

    @property
    def tail(self) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.pod.name} {self.waits_for}\n{text[-4000:]}"


class Cluster:
    """Use `clusters_of`. `name` begins the names of its hosts in the lab."""

    def __init__(self, name: str, folder: Path, lab: Lab, image: Mapping[str, Path]) -> None:
        folder.mkdir(parents=True)
        self.folder, self._lab, self._image = folder, lab, image
        self._api, kubelet = f"{name}/{API}", f"{name}/{KUBELET}"
        self._free = [host for host in lab.addresses if host.startswith(f"{name}/pod-")]
        self.elsewhere: Callable[[], Iterable[tuple[str, str]]] = tuple
        """Address and name of what is outside the cluster, as its DNS has it."""
        self.manifests: list[Manifest] = []
        self._objects: dict[str, Manifest] = {}
        self._volumes = Volumes(folder, self._data)
        self.running: dict[str, Running] = {}
        self.seen: dict[str, Pod] = {}
        """Address to the last pod that had it, also after its end."""
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self._prober = lab.talk(
            kubelet, [sys.executable, "-m", "tests.support.cluster.prober"], folder / "prober.log"
        )
        self._start_api()

    # --- Helm ---------------------------------------------------------------------------------------

    def install(self, manifests: Sequence[Manifest]) -> None:
        """`helm install --wait --wait-for-jobs`."""
        self._take(manifests)
        for kind in ("ServiceAccount", "ConfigMap", "Secret"):  # Helm makes these before what needs them
            self._objects |= {
                key_of(each): each for each in self.manifests if each["kind"] == kind and not hooks_of(each)
            }
        self._hooks("pre-install")
        ours = [each for each in self.manifests if not hooks_of(each)]
        self._objects |= {key_of(each): each for each in ours}
        for manifest in ours:
            for pod in pods_of(manifest, NAMESPACE):
                self._create(pod)
        self.wait()
        self._hooks("post-install")

    def upgrade(self, manifests: Sequence[Manifest]) -> None:
        """`helm upgrade --wait`: new Jobs run, pods whose template changed are replaced one by one."""
        before = self._objects
        self._take(manifests)
        self._hooks("pre-upgrade")
        ours = [each for each in self.manifests if not hooks_of(each)]
        self._objects = before | {key_of(each): each for each in ours}
        for manifest in ours:
            if before.get(key_of(manifest), {}).get("spec") == manifest.get("spec"):
                continue
            if manifest["kind"] == "Job" and key_of(manifest) in before:
                raise LookupError(f"{key_of(manifest)}: the template of a Job cannot be changed")
            for pod in reversed(list(pods_of(manifest, NAMESPACE))):
                if pod.name in self.running:
                    self.stop(pod.name)
                self._create(pod)
                self.wait()
        self._hooks("post-upgrade")

    def test(self) -> dict[str, str]:
        """`helm test`: the log of each test's pod; PodFailed if one fails."""
        return self._hooks("test")

    def run_cron_job(self, name: str) -> str:
        """What would run at its time, now; the log."""
        return self._finish(job_pod(self._objects[f"CronJob/{name}"], NAMESPACE))

    def _take(self, manifests: Sequence[Manifest]) -> None:
        self.manifests = [each for each in manifests if each]
        tokens = self.folder / "api" / "tokens.json"
        known = json.loads(tokens.read_text())
        accounts = [each["metadata"]["name"] for each in self.manifests if each["kind"] == "ServiceAccount"]
        for account in {"default", *accounts} - set(known.values()):
            home = self.folder / "accounts" / account
            home.mkdir(parents=True)
            token = secrets.token_urlsafe(16)
            known[token] = account
            (home / "token").write_text(token)
            (home / "ca.crt").write_bytes(self._certificate)
            (home / "namespace").write_text(NAMESPACE)
        tokens.write_text(json.dumps(known))
        (self.folder / "api" / "roles.json").write_text(json.dumps(rules_of(self.manifests)))

    def _hooks(self, moment: str) -> dict[str, str]:
        logs = {}
        for group in hooks_at(self.manifests, moment):
            self._objects |= {key_of(each): each for each in group}
            for manifest in group:
                for pod in pods_of(manifest, NAMESPACE):
                    logs[pod.name] = self._finish(pod)
        return logs

    # --- pods ---------------------------------------------------------------------------------------

    def stop(self, name: str) -> None:
        """As the kubelet does: SIGTERM, the pod's grace, SIGKILL; PodFailed where it came to that."""
        running = self._forget(name)
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
                raise PodFailed(f"{name}/{container} had to be killed\n{running.tail}") from None

    def kill(self, name: str) -> None:
        """A pod is gone at once, as with its machine."""
        running = self._forget(name)
        for process in running.processes.values():
            process.kill()
            process.wait()
        self._publish()

    def start(self, name: str) -> None:
        """A pod of the release that was stopped, again; `wait` waits for it."""
        pods = (pod for each in self._objects.values() for pod in pods_of(each, NAMESPACE))
        self._create(next(pod for pod in pods if pod.name == name))

    def wait(self, deadline_s: float = DEADLINE_S) -> None:
        """Until every pod is ready or, where it is one of a Job, done."""
        deadline = time.monotonic() + deadline_s
        while True:
            for running in list(self.running.values()):
                self._advance(running)
            self._publish()
            late = [each for each in self.running.values() if not (each.ready or each.done)]
            if not late:
                return
            if time.monotonic() > deadline:
                names = ", ".join(each.pod.name for each in late)
                raise PodFailed(f"neither ready nor done: {names}\n" + "\n".join(each.tail for each in late))
            time.sleep(POLL_S)

    def log(self, name: str) -> str:
        """All that a pod has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

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

    def capture(self, name: str) -> contextlib.AbstractContextManager[Capture]:
        """Everything that any pod of the lab sends in the course of a block."""
        return self._lab.capture(name)

    # --- within -------------------------------------------------------------------------------------

    def _create(self, pod: Pod) -> None:
        if pod.name in self.running:
            self._forget(pod.name)
        host = self._free.pop(0)
        log = self.folder / f"{pod.name}.log"
        self.running[pod.name] = Running(pod, host, self._lab.addresses[host], log)
        self.seen[self._lab.addresses[host]] = pod

    def _forget(self, name: str) -> Running:
        """Its address may be given to another pod now, after all those that are free."""
        running = self.running.pop(name)
        self._free.append(running.host)
        return running

    def _finish(self, pod: Pod) -> str:
        self._create(pod)
        self.wait()
        self._forget(pod.name)
        return self.log(pod.name)

    def _advance(self, running: Running) -> None:
        """What the kubelet does next for a pod, if it is time; never waits for anything."""
        if running.done or time.monotonic() < running.not_before:
            return
        pod = running.pod
        try:
            if running.volumes is None:
                running.volumes = self._volumes.of(pod)
            elif not running.ready:
                self._volumes.refresh(pod, running.volumes)
            running.waits_for = ""
            inits = pod.spec.get("initContainers", ())
            if running.initialised < len(inits):
                self._initialise(running, inits[running.initialised])
                return
            for container in pod.spec["containers"]:
                if container["name"] not in running.processes:
                    running.processes[container["name"]] = self._run(running, container, running.log)
        except NotThereYet as error:
            running.waits_for = f"(waits: {error})"
            return
        ended = {name: process.poll() for name, process in running.processes.items()}
        if pod.runs_to_its_end and all(code == 0 for code in ended.values()):
            running.done = True
            return
        for name, code in ended.items():
            if code is not None and not (pod.runs_to_its_end and code == 0):
                del running.processes[name]
                self._restart_later(running, name, code)
        running.ready = not pod.runs_to_its_end and self._is_ready(running)

    def _initialise(self, running: Running, container: Mapping[str, Any]) -> None:
        name = f"init {container['name']}"
        process = running.processes.get(name)
        if process is None:
            running.processes[name] = self._run(running, container, running.log)
            return
        code = process.poll()
        if code is None:
            return
        del running.processes[name]
        if code == 0:
            running.initialised += 1
        else:
            self._restart_later(running, name, code)

    def _restart_later(self, running: Running, container: str, code: int) -> None:
        """The kubelet's back-off, in small."""
        running.restarts += 1
        running.not_before = time.monotonic() + BACK_OFF_S
        never = running.pod.spec.get("restartPolicy") == "Never"
        owner = self._objects.get(running.pod.owner, {})
        limit = owner.get("spec", {}).get("backoffLimit", 6) if owner.get("kind") == "Job" else RESTARTS
        if never and owner.get("kind") == "Job":
            running.initialised, running.volumes = 0, None  # the Job makes a new pod
        if running.restarts > (0 if never and owner.get("kind") != "Job" else limit):
            raise PodFailed(f"{running.pod.name}/{container} ended with {code}\n{running.tail}")

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
            "KUBERNETES_SERVICE_HOST": self._lab.addresses[self._api],
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
            running.host, [sys.executable, "-m", "tests.support.cluster.container", str(file)], log, **pipes
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
            if container["name"] not in running.processes:
                return False
            probe = container.get("readinessProbe")
            if probe is not None and not self._passes(running, container, probe):
                return False
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

    def _publish(self) -> None:
        """Names that lead somewhere, into the file that every pod has as /etc/hosts."""
        lines = ["127.0.0.1 localhost", f"{self._lab.addresses[self._api]} kubernetes.default.svc"]
        lines += [f"{address} {name}" for address, name in self.elsewhere()]
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
        address = self._lab.addresses[self._api]
        self._certificate, key = server_certificate(address)
        (folder / "server.pem").write_bytes(self._certificate + key_to_pem(key))
        (folder / "tokens.json").write_text("{}")
        (folder / "roles.json").write_text("{}")
        command = [sys.executable, "-m", "tests.support.cluster.api", str(folder), f"{address}:{API_PORT}"]
        api = self._lab.start(self._api, command, self.folder / "api.log", stdout=subprocess.PIPE)
        if not api.stdout.readline():  # type: ignore[union-attr]
            raise PodFailed((self.folder / "api.log").read_text())


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
def clusters_of(
    folder: Path, names: Sequence[str], image: Mapping[str, Path], pods: int = 16
) -> Iterator[dict[str, Cluster]]:
    """Clusters with room for so many pods each; `image` are folders of this machine at the image's paths."""
    hosts = [
        f"{name}/{host}" for name in names for host in (API, KUBELET, *(f"pod-{n}" for n in range(pods)))
    ]
    with lab_of(folder, *hosts) as lab:
        yield {name: Cluster(name, folder / name, lab, image) for name in names}


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
