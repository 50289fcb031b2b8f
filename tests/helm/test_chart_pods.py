"""Every pod that the chart can make, in every case: as little right as it can do with."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.chart.cases import CASES, effective
from tests.support.chart.rendering import RELEASE, Case, Pod, Rendered, Renderer

pytestmark = pytest.mark.slow

# Who has a token for the Kubernetes API, and why.
TOKENS = {
    "authority": "keeps the root key that it makes as a Secret",
    "board-tls": "keeps etcd's certificates that it makes as Secrets",
    "engine-tls": "keeps the certificates between node and replicas that it makes as Secrets",
    "tokens": "keeps join tokens, each in a Secret of its node",
}
# Kinds of volumes that reach nothing of the machine.
VOLUMES = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "name"}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def rendered(request: pytest.FixtureRequest, render: Renderer) -> Rendered:
    case: Case = request.param
    return render(case)


def each_container(rendered: Rendered) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{pod.owner}: {container['name']}", dict(container))
        for pod in rendered.pods
        for container in pod.containers()
    ]


def test_nobody_is_root(rendered: Rendered) -> None:
    assert rendered.pods
    for pod in rendered.pods:
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.owner
        assert context["runAsUser"] >= 10000, pod.owner
        assert context["runAsGroup"] >= 10000, pod.owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod.owner


def test_containers_have_nothing_that_they_do_not_need(rendered: Rendered) -> None:
    for where, container in each_container(rendered):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, where
        assert context["readOnlyRootFilesystem"] is True, where
        assert context["capabilities"] == {"drop": ["ALL"]}, where
        assert not context.get("privileged"), where
        assert context.get("runAsUser", 10001) >= 10000, where
        assert "hostPort" not in str(container.get("ports", [])), where


def test_nothing_of_the_machine_is_shared(rendered: Rendered) -> None:
    for pod in rendered.pods:
        for word in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            assert not pod.spec.get(word), f"{pod.owner}: {word}"
        for volume in pod.spec.get("volumes", []):
            assert set(volume) <= VOLUMES, f"{pod.owner}: {volume}"


def test_only_who_makes_secrets_has_a_token(rendered: Rendered) -> None:
    for pod in rendered.pods:
        if pod.component in TOKENS:
            continue
        assert pod.spec["automountServiceAccountToken"] is False, pod.owner
        assert "serviceAccountToken" not in str(pod.spec.get("volumes", [])), pod.owner
    for account in rendered.of_kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, account["metadata"]["name"]


def test_roles_are_about_secrets_of_the_release_alone(rendered: Rendered) -> None:
    assert not rendered.of_kind("ClusterRole")
    assert not rendered.of_kind("ClusterRoleBinding")
    ours = effective(rendered.case)["fullnameOverride"] or RELEASE
    users = {pod.spec.get("serviceAccountName") for pod in rendered.pods if pod.component in TOKENS}
    for binding in rendered.of_kind("RoleBinding"):
        assert {subject["name"] for subject in binding["subjects"]} <= users
    for role in rendered.of_kind("Role"):
        for rule in role["rules"]:
            assert rule["resources"] == ["secrets"], role["metadata"]["name"]
            # Kubernetes cannot limit "create" to names. Nothing that is there can be changed or listed.
            assert (rule["verbs"] == ["create"]) or (rule["verbs"] == ["get"] and rule["resourceNames"])
            for name in rule.get("resourceNames", []):
                assert name.startswith(ours), role["metadata"]["name"]


def test_resources_are_stated(rendered: Rendered) -> None:
    for where, container in each_container(rendered):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), where
        assert "memory" in resources["limits"], where


def test_images_are_named_exactly(rendered: Rendered) -> None:
    for where, container in each_container(rendered):
        image = container["image"]
        assert re.fullmatch(r"[\w./:-]+(:[\w.-]+|@sha256:[0-9a-f]{64})", image), f"{where}: {image}"
        assert not image.endswith(":latest"), where
        assert container["imagePullPolicy"] in {"Always", "IfNotPresent", "Never"}, where


def test_services_are_not_put_into_the_environment(rendered: Rendered) -> None:
    """Else every pod learns of every Service, and a Service called `ray` sets RAY_PORT."""
    for pod in rendered.pods:
        assert pod.spec["enableServiceLinks"] is False, pod.owner


def test_secrets_are_mounted_and_never_in_the_environment_of_daemons(rendered: Rendered) -> None:
    for pod in rendered.pods:
        if pod.component not in {"node", "control"}:
            continue
        for container in pod.containers():
            assert not container.get("envFrom"), pod.owner
            from_secrets = {
                variable["name"]
                for variable in container.get("env", [])
                if "secretKeyRef" in variable.get("valueFrom", {})
            }
            assert from_secrets <= {"SOVEREIGN_MESH_BOARD_PASSWORD"}, pod.owner


def daemons(rendered: Rendered) -> list[Pod]:
    return [pod for pod in rendered.pods if pod.owner.split("/")[0] in {"StatefulSet", "Deployment"}]


def test_daemons_are_probed_and_given_time_to_stop(rendered: Rendered) -> None:
    for pod in daemons(rendered):
        (container,) = pod.spec["containers"]
        assert "readinessProbe" in container, pod.owner
        assert "livenessProbe" in container or pod.component == "etcd", pod.owner
        assert pod.spec["terminationGracePeriodSeconds"] > 0, pod.owner
        if pod.component in {"node", "control"}:
            readiness, liveness = container["readinessProbe"], container["livenessProbe"]
            assert readiness["httpGet"]["path"] == "/readyz", pod.owner
            assert liveness["httpGet"]["path"] == "/livez", pod.owner
            assert pod.ports()[readiness["httpGet"]["port"]] == 9464


def test_there_is_never_a_second_control_plane(rendered: Rendered) -> None:
    for deployment in rendered.of_kind("Deployment"):
        assert deployment["spec"]["replicas"] == 1
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_jobs_end(rendered: Rendered) -> None:
    for job in rendered.of_kind("Job"):
        assert job["spec"]["backoffLimit"] <= 20, job["metadata"]["name"]
        assert job["spec"]["ttlSecondsAfterFinished"] > 0 or "helm.sh/hook" in job["metadata"]["annotations"]
