"""What a rendered chart asks for, as pods to run: pure, from parsed YAML to values.

Knows the kinds that the chart uses and refuses what it would have to guess: a field of a pod that is not
understood here is an error, so that a test cannot pass because something was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = Mapping[str, Any]

HOOK = "helm.sh/hook"
WEIGHT = "helm.sh/hook-weight"
# Of a pod: what is carried out here, and what only matters to a scheduler.
_POD = frozenset(
    [
        "containers",
        "initContainers",
        "volumes",
        "restartPolicy",
        "serviceAccountName",
        "hostname",
        "subdomain",
        "securityContext",
        "automountServiceAccountToken",
        "enableServiceLinks",
    ]
)
_SCHEDULING = frozenset(
    [
        "affinity",
        "nodeSelector",
        "tolerations",
        "topologySpreadConstraints",
        "priorityClassName",
        "imagePullSecrets",
        "terminationGracePeriodSeconds",
        "runtimeClassName",
        "dnsPolicy",
    ]
)
_CONTAINER = frozenset(
    [
        "name",
        "command",
        "args",
        "env",
        "envFrom",
        "volumeMounts",
        "workingDir",
        "securityContext",
        "readinessProbe",
        "livenessProbe",
        "startupProbe",
    ]
)
_OF_THE_RUNTIME = frozenset(
    ["image", "imagePullPolicy", "resources", "ports", "lifecycle", "terminationMessagePolicy"]
)


class NotThereYet(LookupError):
    """Something that a pod mounts or reads does not exist; it may still be made."""


@dataclass(frozen=True)
class Pod:
    """One pod to run. `claims` are the volumes that a StatefulSet makes for it: volume name to claim name."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    claims: Mapping[str, str]
    owner: str
    """What it is of: "Job/...", "StatefulSet/...", "Deployment/...", "Pod/..."."""

    @property
    def runs_to_its_end(self) -> bool:
        """Whether it is done when its containers have ended."""
        return self.owner.startswith(("Job/", "Pod/"))

    @property
    def group(self) -> int:
        """The group that its volumes are made accessible to; the user's own where none is named."""
        context = self.spec.get("securityContext", {})
        return int(context.get("fsGroup", context.get("runAsGroup", 0)))


def key_of(manifest: Manifest) -> str:
    """Such as "Secret/de-authority"."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def hooks_of(manifest: Manifest) -> frozenset[str]:
    """At which moments Helm makes this; empty for what belongs to the release."""
    text = (manifest["metadata"].get("annotations") or {}).get(HOOK, "")
    return frozenset(word.strip() for word in text.split(",") if word.strip())


def weight_of(manifest: Manifest) -> int:
    """Lighter hooks first."""
    return int((manifest["metadata"].get("annotations") or {}).get(WEIGHT, "0"))


def hooks_at(manifests: Iterable[Manifest], moment: str) -> list[list[Manifest]]:
    """The hooks of one moment, those of equal weight together, in Helm's order."""
    found = [each for each in manifests if moment in hooks_of(each)]
    weights = sorted({weight_of(each) for each in found})
    return [[each for each in found if weight_of(each) == weight] for weight in weights]


def pods_of(manifest: Manifest, namespace: str) -> Iterator[Pod]:
    """The pods that this manifest is about; none for a CronJob, whose time does not come by itself."""
    kind, meta = manifest["kind"], manifest["metadata"]
    spec = manifest.get("spec", {})
    if kind == "Pod":
        yield _pod(meta["name"], namespace, meta, spec, {}, key_of(manifest))
    elif kind == "Job":
        yield job_pod(manifest, namespace)
    elif kind in ("StatefulSet", "Deployment"):
        template = spec["template"]
        first = spec.get("ordinals", {}).get("start", 0)
        for index in range(first, first + spec.get("replicas", 1)):
            name = f"{meta['name']}-{index}"
            claims = {
                claim["metadata"]["name"]: f"{claim['metadata']['name']}-{name}"
                for claim in spec.get("volumeClaimTemplates", ())
            }
            inner = dict(template["spec"])
            if kind == "StatefulSet":
                inner |= {"hostname": name, "subdomain": spec["serviceName"]}
            yield _pod(name, namespace, template["metadata"], inner, claims, key_of(manifest))
    elif kind in ("DaemonSet", "ReplicaSet"):
        raise LookupError(f"{key_of(manifest)}: not a kind that is run here")


def job_pod(manifest: Manifest, namespace: str) -> Pod:
    """The pod of a Job, or of the Job that a CronJob would make."""
    spec = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template = spec["template"]
    name = manifest["metadata"]["name"]
    return _pod(name, namespace, template.get("metadata", {}), template["spec"], {}, f"Job/{name}")


def _pod(
    name: str,
    namespace: str,
    meta: Mapping[str, Any],
    spec: Mapping[str, Any],
    claims: Mapping[str, str],
    of: str,
) -> Pod:
    unknown = set(spec) - _POD - _SCHEDULING
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        unknown |= set(container) - _CONTAINER - _OF_THE_RUNTIME
    if unknown:
        raise LookupError(f"{of}: not understood by these tests: {', '.join(sorted(unknown))}")
    return Pod(name, namespace, dict(meta.get("labels") or {}), spec, claims, of)


def environment_of(container: Mapping[str, Any], pod: Pod, address: str, data: Any) -> dict[str, str]:
    """A container's variables. `data(kind, name)` gives a ConfigMap's or Secret's files, or None."""
    made: dict[str, str] = {}
    for each in container.get("envFrom", ()):
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if key in each:
                found = data(kind, each[key]["name"])
                if found is None and not each[key].get("optional"):
                    raise NotThereYet(f"{pod.owner}: needs {kind}/{each[key]['name']}")
                made |= {name: value.decode() for name, value in (found or {}).items()}
    for each in container.get("env", ()):
        if "valueFrom" not in each:
            made[each["name"]] = expand(str(each.get("value", "")), made)
            continue
        value = _value_from(each["valueFrom"], pod, address, data)
        if value is not None:
            made[each["name"]] = value
    return made


def _value_from(source: Mapping[str, Any], pod: Pod, address: str, data: Any) -> str | None:
    if "fieldRef" in source:
        return {
            "metadata.name": pod.name,
            "metadata.namespace": pod.namespace,
            "status.podIP": address,
        }[source["fieldRef"]["fieldPath"]]
    for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if key in source:
            reference = source[key]
            found = data(kind, reference["name"])
            if found is not None and reference["key"] in found:
                return str(found[reference["key"]].decode())
            if reference.get("optional"):
                return None
            raise NotThereYet(f"{pod.owner}: needs {kind}/{reference['name']} with {reference['key']}")
    raise LookupError(f"{pod.owner}: a variable from {', '.join(source)} is not understood by these tests")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' $(NAME) of variables that are known; $$(NAME) is left as $(NAME)."""
    out, at = "", 0
    while (mark := text.find("$", at)) >= 0:
        out += text[at:mark]
        if text.startswith("$$", mark):
            out, at = out + "$", mark + 2
            continue
        end = text.find(")", mark)
        name = text[mark + 2 : end] if text.startswith("$(", mark) and end > 0 else None
        if name in variables:
            out, at = out + variables[str(name)], end + 1
        else:
            out, at = out + "$", mark + 1
    return out + text[at:]


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether a Service's selector takes a pod; none takes no pod."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def names_of(service: Manifest, pods: Iterable[Pod], namespace: str) -> Iterator[tuple[str, Pod]]:
    """Every DNS name that leads to one of the pods, with that pod."""
    name, spec = service["metadata"]["name"], service["spec"]
    for pod in pods:
        if not selects(spec.get("selector"), pod.labels):
            continue
        for port in spec.get("ports", ()):
            target = port.get("targetPort", port["port"])
            if spec.get("clusterIP") != "None" and port_number(target, pod) != port["port"]:
                raise LookupError(f"Service/{name}: ports are not translated here, and {target} would be")
        for tail in (
            name,
            f"{name}.{namespace}",
            f"{name}.{namespace}.svc",
            f"{name}.{namespace}.svc.cluster.local",
        ):
            yield tail, pod
            if pod.spec.get("subdomain") == name:
                yield f"{pod.spec['hostname']}.{tail}", pod


def port_number(target: int | str, pod: Pod) -> int:
    """A port by number or by the name that one of the containers gives it."""
    if isinstance(target, int):
        return target
    for container in pod.spec["containers"]:
        for port in container.get("ports", ()):
            if port.get("name") == target:
                return int(port["containerPort"])
    raise LookupError(f"{pod.owner}: has no port {target}")
