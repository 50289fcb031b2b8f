"""The kubelet: a pod's init containers one by one, its containers, their restarts and their probes.

Never waits: `advance` does what is next for a pod, if it is time. Whoever calls it again and again has pods
that start, fail, are tried again and become ready, each at its own pace. Processes are started by the thread
that calls, since they end with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.manifests import NotThereYet, Pod, environment_of, expand, port_number
from tests.support.cluster.objects import API_PORT, Objects
from tests.support.cluster.volumes import Volumes
from tests.support.hosts.lab import Lab

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DEADLINE_S = 60.0
BACK_OFF_S, RESTARTS = 0.5, 30
# Folders that an image has empty, and this machine does not.
EMPTY = ("/tmp", "/home", "/mnt", "/media", "/srv", "/run", "/opt")
# What an image of its own would have first, here: etcd's.
PATH = "/usr/local/bin:/opt/sovereign-mesh/bin:/usr/bin:/bin"


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


class Kubelet:
    """Of one cluster. `host` is where probes come from; `hosts` is every pod's /etc/hosts."""

    def __init__(
        self, folder: Path, lab: Lab, host: str, objects: Objects, image: Mapping[str, Path], hosts: Path
    ) -> None:
        self.folder, self._lab, self._objects, self._image, self._hosts = folder, lab, objects, image, hosts
        self._volumes = Volumes(folder, objects.data)
        self._prober = lab.talk(
            host, [sys.executable, "-m", "tests.support.cluster.prober"], folder / "prober.log"
        )

    def advance(self, running: Running) -> None:
        """What is next for a pod, if it is time. PodFailed where it is not tried again."""
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
                    running.processes[container["name"]] = self.run(running, container, running.log)
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
            running.processes[name] = self.run(running, container, running.log)
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
        owner = self._objects.held.get(running.pod.owner, {})
        limit = owner.get("spec", {}).get("backoffLimit", 6) if owner.get("kind") == "Job" else RESTARTS
        if never and owner.get("kind") == "Job":
            running.initialised, running.volumes = 0, None  # the Job makes a new pod
        if running.restarts > (0 if never and owner.get("kind") != "Job" else limit):
            raise PodFailed(f"{running.pod.name}/{container} ended with {code}\n{running.tail}")

    def run(
        self,
        running: Running,
        container: Mapping[str, Any],
        log: Path,
        *,
        command: Sequence[str] = (),
        stdout: Any = None,
    ) -> subprocess.Popen[bytes]:
        """Starts one of a pod's containers, or another command in its place."""
        pod = running.pod
        environment = {"PATH": PATH, "HOME": "/", "HOSTNAME": pod.spec.get("hostname", pod.name)}
        environment |= {
            "KUBERNETES_SERVICE_HOST": self._objects.address,
            "KUBERNETES_SERVICE_PORT": str(API_PORT),
        }
        environment |= environment_of(container, pod, running.address, self._objects.data)
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
                    "source": str(self._objects.mount_of(account)),
                    "target": SERVICE_ACCOUNT,
                    "read_only": True,
                }
            )
        return mounts

    def _gets_token(self, pod: Pod) -> bool:
        account = self._objects.held.get(
            f"ServiceAccount/{pod.spec.get('serviceAccountName', 'default')}", {}
        )
        wish = pod.spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        return bool(wish)

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
            process = self.run(
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
