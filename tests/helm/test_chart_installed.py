"""The chart, installed: its pods as processes of this machine, with everything that Kubernetes gives them.

See tests/support/cluster for what that is and what it is not. The engine is the scripted one: what is tested
is that keys are made, machines enrol, pods find each other, and that requests are served at the end.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart.cases import merged
from tests.support.chart.network import Endpoint, passes
from tests.support.chart.rendering import EXAMPLES, Case, Manifest, Renderer
from tests.support.cluster.cluster import Cluster, clusters_of, why_no_cluster
from tests.support.cluster.installing import SCRIPTED, image, runnable
from tests.support.cluster.manifests import Pod
from tests.support.cluster.objects import NAMESPACE
from tests.support.hosts.packets import Packet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_no_cluster()), reason=f"no pods here: {why_no_cluster()}"),
]


def test_the_laptop_example_serves(tmp_path: Path, render: Renderer) -> None:
    """Installed, tested, restarted, upgraded twice, removed and installed again.

    What its pods say to each other its NetworkPolicies permit.
    """
    example = EXAMPLES / "laptop" / "values.yaml"
    first = runnable(render(Case("laptop-runs", SCRIPTED, (example,))).manifests)
    with clusters_of(tmp_path / "lab", ["de"], image()) as clusters:
        cluster = clusters["de"]
        with cluster.capture("all") as capture:
            cluster.install(first)
            (said,) = cluster.test().values()
            assert "chosen" in said
        opened = connections(capture.packets, cluster)
        assert {("node", "etcd", 2379), ("node", "control", 7444), ("control", "etcd", 2379)} <= opened.keys()
        policies = [each for each in first if each["kind"] == "NetworkPolicy"]
        assert not [ends for ends, (a, b, port) in opened.items() if not passes(policies, a, b, port)]

        keys = list((cluster.folder / "claims").rglob("*.key"))
        assert keys
        for key in keys:
            assert stat.S_IMODE(key.stat().st_mode) == 0o600, key
            assert key.stat().st_uid == 10001, key

        (node,) = [name for name in cluster.running if "node" in name]
        cluster.stop(node)
        cluster.start(node)
        cluster.wait()
        assert "\nfra-1 is enrolled\n" in cluster.log(node), "it kept its identity"
        cluster.test()

        more = merged(SCRIPTED, {"node": {"serving": {"queue": 7}}})
        cluster.upgrade(runnable(render(Case("laptop-again", more, (example,))).manifests))
        cluster.test()
        # Everything of the release restarts, etcd included.
        debug = merged(more, {"log": {"level": "debug"}, "etcd": {"initialClusterState": "existing"}})
        cluster.upgrade(runnable(render(Case("laptop-debug", debug, (example,))).manifests))
        cluster.test()

        root = cluster.secret("mesh-authority")
        cluster.uninstall()
        assert not cluster.running
        cluster.install(first)
        assert cluster.secret("mesh-authority") == root
        assert "the authority is there already" in everything(cluster, "mesh-authority-")
        assert "\nfra-1 is enrolled\n" in cluster.log(node).rpartition("--- enrol")[2]
        cluster.test()


def everything(cluster: Cluster, prefix: str) -> str:
    """All that pods with such a name said."""
    return "".join(path.read_text(errors="replace") for path in cluster.folder.glob(f"{prefix}*.log"))


def test_a_site_is_backed_up_and_restored(tmp_path: Path, render: Renderer) -> None:
    """The steps of the chart's README, with the loss of everything that a node had."""
    example = EXAMPLES / "laptop" / "values.yaml"

    def manifests(name: str, *layers: Mapping[str, Any]) -> list[Manifest]:
        return runnable(render(Case(name, merged(SCRIPTED, *layers), (example,))).manifests)

    stopped = {"maintenance": {"enabled": True, "backupClaim": "backups"}}
    with clusters_of(tmp_path / "lab", ["de"], image()) as clusters:
        cluster = clusters["de"]
        cluster.install(manifests("laptop-runs"))
        cluster.test()
        cluster.upgrade(manifests("laptop-stopped", stopped))
        assert not [name for name in cluster.running if name in ("mesh-node-1", "mesh-control-0")]
        cluster.exec("mesh-node-1-maintenance-0", "maintenance", ["sh", "/scripts/node-backup.sh"])
        cluster.exec("mesh-control-maintenance-0", "maintenance", ["sh", "/scripts/node-backup.sh"])
        shutil.rmtree(cluster.folder / "claims" / "data-mesh-node-1" / "state")
        shutil.rmtree(cluster.folder / "claims" / "data-mesh-node-1" / "identity")

        (kept,) = (cluster.folder / "claims" / "backups" / "fra-1").glob("*.tar")
        restore = f"RESTORE_EVIDENCE=continue sh /scripts/node-restore.sh /backup/fra-1/{kept.name}"
        cluster.exec("mesh-node-1-maintenance-0", "maintenance", ["sh", "-c", restore])
        cluster.upgrade(manifests("laptop-runs"))
        assert "\nfra-1 is enrolled\n" in cluster.log("mesh-node-1").rpartition("--- enrol")[2]
        cluster.test()


def connections(
    packets: list[Packet], cluster: Cluster
) -> dict[tuple[str, str, int], tuple[Endpoint, Endpoint, int]]:
    """Which pod opened a connection to which, by the first packets of each; by the components' names."""
    pods = {address: endpoint_of(pod, address) for address, pod in cluster.seen.items()}
    found = {}
    for each in packets:
        if each.flags == "S" and each.source in pods and each.destination in pods:
            ends = pods[each.source], pods[each.destination]
            names = [end.labels.get("app.kubernetes.io/component", end.name) for end in ends]
            found[names[0], names[1], each.destination_port] = (*ends, each.destination_port)
    return found


def endpoint_of(pod: Pod, address: str) -> Endpoint:
    """As NetworkPolicies see it."""
    ports = {
        port["name"]: port["containerPort"]
        for container in pod.spec["containers"]
        for port in container.get("ports", ())
        if "name" in port
    }
    return Endpoint(
        pod.name, NAMESPACE, pod.labels, {"kubernetes.io/metadata.name": NAMESPACE}, address, ports
    )
