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
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.cluster.kubelet import DEADLINE_S, EMPTY, PATH, Kubelet, PodFailed, Running
from tests.support.cluster.manifests import (
    Manifest,
    Pod,
    hooks_at,
    hooks_of,
    job_pod,
    key_of,
    names_of,
    pods_of,
)
from tests.support.cluster.objects import NAMESPACE, Objects
from tests.support.hosts.lab import Capture, Lab, lab_of, why_not

API, KUBELET = "kubernetes-api", "kubelet"
GRACE_S = 20.0
POLL_S = 0.1


class Cluster:
    """Use `clusters_of`. `name` begins the names of its hosts in the lab."""

    def __init__(self, name: str, folder: Path, lab: Lab, image: Mapping[str, Path]) -> None:
        folder.mkdir(parents=True)
        self.folder, self._lab = folder, lab
        self._free = [host for host in lab.addresses if host.startswith(f"{name}/pod-")]
        self.elsewhere: Callable[[], Iterable[tuple[str, str]]] = tuple
        """Address and name of what is outside the cluster, as its DNS has it."""
        self.manifests: list[Manifest] = []
        self._released: set[str] = set()
        self.running: dict[str, Running] = {}
        self.seen: dict[str, Pod] = {}
        """Address to the last pod that had it, also after its end."""
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        self.objects = Objects(folder, lab, f"{name}/{API}")
        self._kubelet = Kubelet(folder, lab, f"{name}/{KUBELET}", self.objects, image, self._hosts)

    # --- Helm ---------------------------------------------------------------------------------------

    def install(self, manifests: Sequence[Manifest]) -> None:
        """`helm install --wait --wait-for-jobs`."""
        self.manifests = [each for each in manifests if each]
        self.objects.admit(self.manifests)
        for kind in ("ServiceAccount", "ConfigMap", "Secret"):  # Helm makes these before what needs them
            self.objects.held |= {
                key_of(each): each for each in self.manifests if each["kind"] == kind and not hooks_of(each)
            }
        self._hooks("pre-install")
        ours = [each for each in self.manifests if not hooks_of(each)]
        self.objects.held |= {key_of(each): each for each in ours}
        self._released = {key_of(each) for each in ours}
        for manifest in ours:
            for pod in pods_of(manifest, NAMESPACE):
                self._create(pod)
        self.wait()
        self._hooks("post-install")

    def upgrade(self, manifests: Sequence[Manifest]) -> None:
        """`helm upgrade --wait`: new Jobs run, pods whose template changed are replaced one by one."""
        before = self.objects.held
        self.manifests = [each for each in manifests if each]
        self.objects.admit(self.manifests)
        self._hooks("pre-upgrade")
        ours = {key_of(each): each for each in self.manifests if not hooks_of(each)}
        self.objects.held = before | ours
        for key in self._released - ours.keys():
            del self.objects.held[key]
        self._released = set(ours)
        wanted = {pod.name for each in ours.values() for pod in pods_of(each, NAMESPACE)}
        for name in [each for each in self.running if each not in wanted]:
            self.stop(name)
        for key, manifest in ours.items():
            if before.get(key, {}).get("spec") == manifest.get("spec"):
                continue
            if manifest["kind"] == "Job" and key in before:
                raise LookupError(f"{key}: the template of a Job cannot be changed")
            for pod in reversed(list(pods_of(manifest, NAMESPACE))):
                if pod.name in self.running:
                    self.stop(pod.name)
                self._create(pod)
                self.wait()
        self._hooks("post-upgrade")

    def uninstall(self) -> None:
        """`helm uninstall`: what the release made goes; what its Jobs made, kept claims and volumes stay."""
        self._stop([self._forget(name) for name in list(self.running)])
        self._publish()
        for key in self._released:
            annotations = self.objects.held[key]["metadata"].get("annotations", {})
            if annotations.get("helm.sh/resource-policy") != "keep":
                del self.objects.held[key]
        self._released = set()

    def test(self) -> dict[str, str]:
        """`helm test`: the log of each test's pod; PodFailed if one fails."""
        return self._hooks("test")

    def run_cron_job(self, name: str) -> str:
        """What would run at its time, now; the log."""
        return self._finish(job_pod(self.objects.held[f"CronJob/{name}"], NAMESPACE))

    def _hooks(self, moment: str) -> dict[str, str]:
        logs = {}
        for group in hooks_at(self.manifests, moment):
            self.objects.held |= {key_of(each): each for each in group}
            for manifest in group:
                for pod in pods_of(manifest, NAMESPACE):
                    logs[pod.name] = self._finish(pod)
        return logs

    # --- pods ---------------------------------------------------------------------------------------

    def stop(self, name: str) -> None:
        """As the kubelet does: SIGTERM, the pod's grace, SIGKILL; PodFailed where it came to that."""
        running = self._forget(name)
        self._publish()
        self._stop([running])

    def kill(self, name: str) -> None:
        """A pod is gone at once, as with its machine."""
        running = self._forget(name)
        for process in running.processes.values():
            process.kill()
            process.wait()
        self._publish()

    def start(self, name: str) -> None:
        """A pod of the release that was stopped, again; `wait` waits for it."""
        pods = (pod for each in self.objects.held.values() for pod in pods_of(each, NAMESPACE))
        self._create(next(pod for pod in pods if pod.name == name))

    def wait(self, deadline_s: float = DEADLINE_S) -> None:
        """Until every pod is ready or, where it is one of a Job, done."""
        deadline = time.monotonic() + deadline_s
        while True:
            for running in list(self.running.values()):
                self._kubelet.advance(running)
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
            process = self._kubelet.run(running, found, log, command=command, stdout=subprocess.PIPE)
            out, _ = process.communicate(timeout=DEADLINE_S)
            if process.returncode:
                raise PodFailed(f"{name}: exit code {process.returncode}\n{log.read_text()[-2000:]}")
            return str(out.decode())

    def secret(self, name: str) -> dict[str, bytes] | None:
        """A Secret's files, whoever made it."""
        found = self.objects.data("Secret", name)
        return None if found is None else dict(found)

    def put_secret(self, name: str, files: Mapping[str, bytes]) -> None:
        """`kubectl create secret generic`."""
        data = {key: base64.b64encode(value).decode() for key, value in files.items()}
        self.objects.held[f"Secret/{name}"] = {"kind": "Secret", "metadata": {"name": name}, "data": data}

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

    def _stop(self, stopped: Sequence[Running]) -> None:
        """All are told at once, as when a release is removed."""
        for running in stopped:
            for process in running.processes.values():
                process.send_signal(signal.SIGTERM)
        killed = []
        for running in stopped:
            grace = min(GRACE_S, float(running.pod.spec.get("terminationGracePeriodSeconds", 30)))
            for container, process in running.processes.items():
                try:
                    process.wait(grace)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    killed.append(f"{running.pod.name}/{container} had to be killed\n{running.tail}")
        if killed:
            raise PodFailed("\n".join(killed))

    def _finish(self, pod: Pod) -> str:
        self._create(pod)
        self.wait()
        self._forget(pod.name)
        return self.log(pod.name)

    def _publish(self) -> None:
        """Names that lead somewhere, into the file that every pod has as /etc/hosts."""
        lines = ["127.0.0.1 localhost", f"{self.objects.address} kubernetes.default.svc"]
        lines += [f"{address} {name}" for address, name in self.elsewhere()]
        for running in self.running.values():
            lines.append(f"{running.address} {running.pod.name}")
        for service in self.objects.held.values():
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
