"""The chart, installed: its pods as processes of this machine, with everything that Kubernetes gives them.

See tests/support/cluster for what that is and what it is not. The engine is the scripted one: what is tested
is that keys are made, machines enrol, pods find each other, and that requests are served at the end.
"""

from __future__ import annotations

import copy
import json
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mesh.store.etcd_server import find_etcd
from tests.support.chart.cases import merged
from tests.support.chart.network import Endpoint, passes
from tests.support.chart.rendering import EXAMPLES, Case, Manifest, Renderer
from tests.support.cluster.cluster import Cluster, clusters_of, why_no_cluster
from tests.support.cluster.manifests import Pod
from tests.support.cluster.objects import NAMESPACE
from tests.support.hosts.packets import Packet

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "examples" / "policies"
SCRIPTED: Mapping[str, Any] = {
    "model": {"source": "none", "name": ""},
    "node": {"engine": {"kind": "scripted"}, "retrieval": {"enabled": False}, "witnesses": 0},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_no_cluster()), reason=f"no pods here: {why_no_cluster()}"),
]


@pytest.fixture(scope="module")
def image() -> dict[str, Path]:
    """What our image and etcd's have, where these tests have it."""
    return {"/opt/sovereign-mesh": ROOT / ".venv", "/usr/local/bin": Path(find_etcd()).resolve().parent}


def runnable(manifests: Iterator[Manifest] | tuple[Manifest, ...]) -> list[Manifest]:
    """The wheel's etcd is older than the one that the chart asks for, and has no /readyz yet."""
    made = []
    for manifest in copy.deepcopy(list(manifests)):
        if manifest["kind"] == "StatefulSet" and manifest["metadata"]["name"].endswith("-etcd"):
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
                container["readinessProbe"]["httpGet"]["path"] = "/health"
        made.append(manifest)
    return made


def test_the_laptop_example_serves(tmp_path: Path, render: Renderer, image: Mapping[str, Path]) -> None:
    """Installed, tested, restarted, upgraded twice, removed and installed again.

    What its pods say to each other its NetworkPolicies permit.
    """
    example = EXAMPLES / "laptop" / "values.yaml"
    first = runnable(render(Case("laptop-runs", SCRIPTED, (example,))).manifests)
    with clusters_of(tmp_path / "lab", ["de"], image) as clusters:
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


def test_a_site_is_backed_up_and_restored(
    tmp_path: Path, render: Renderer, image: Mapping[str, Path]
) -> None:
    """The steps of the chart's README, with the loss of everything that a node had."""
    example = EXAMPLES / "laptop" / "values.yaml"

    def manifests(name: str, *layers: Mapping[str, Any]) -> list[Manifest]:
        return runnable(render(Case(name, merged(SCRIPTED, *layers), (example,))).manifests)

    stopped = {"maintenance": {"enabled": True, "backupClaim": "backups"}}
    with clusters_of(tmp_path / "lab", ["de"], image) as clusters:
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


def test_three_authorities_federate(tmp_path: Path, render: Renderer, image: Mapping[str, Path]) -> None:
    """The steps of helm/examples/federation/README.md, each cluster with the values of its country."""
    countries = ("de", "fr", "us")

    def manifests(country: str, **more: Any) -> list[Manifest]:
        policy = (POLICIES / f"{country}.cedar").read_text()
        on_top = {"policy": {"cedar": policy}, "node": {"engine": {"gpu": {"enabled": False}}}}
        values = merged(SCRIPTED, on_top, more)
        name = "-".join(["federation", country, *sorted(more)])
        return runnable(render(Case(name, values, (EXAMPLES / "federation" / f"{country}.yaml",))).manifests)

    with clusters_of(tmp_path / "lab", countries, image) as clusters:
        for cluster in clusters.values():
            cluster.elsewhere = lambda: public_names(clusters)
        clusters["de"].install(manifests("de"))
        for country in ("fr", "us"):
            certificate = clusters["de"].secret(f"mesh-etcd-client-{country}")
            assert certificate is not None
            clusters[country].put_secret("board-client", certificate)
            clusters[country].install(manifests(country))

        bundles = {country: bundle_of(clusters[country]) for country in countries}
        for country in countries:
            others = [bundles[other] for other in countries if other != country]
            clusters[country].upgrade(manifests(country, trust={"bundles": others}))
        for country in countries:
            clusters[country].test()
        (snapshots,) = [each["metadata"]["name"] for each in manifests("de") if each["kind"] == "CronJob"]
        clusters["de"].run_cron_job(snapshots)
        (control,) = [name for name in clusters["de"].running if "control" in name]
        said = clusters["de"].exec(control, "control", ["sh", "-c", PLACES_ABROAD])
        verdicts = {line.split()[0]: line.split()[3] for line in said.splitlines() if " (" in line}
        assert verdicts["par-1"] in ("chosen", "permitted"), said
        assert verdicts["nyc-1"] == "refused", said
        trust = {"bundles": [bundles["fr"], bundles["us"]]}
        existing = manifests("de", etcd={"initialClusterState": "existing"}, trust=trust)
        replace_a_member(clusters["de"], existing)


# As step 5 of the README, in the pod itself.
PLACES_ABROAD = """
set -eu
cd /tmp
sh /scripts/admin-profile.sh me control.de.example.org:7443 control.de.example.org:7444 > admin.tgz
mkdir -m 700 admin
tar -xzf admin.tgz -C admin
meshctl node list --profile admin >&2
meshctl client issue drafts --tenant firm-b --out firm --profile admin >&2
meshctl place --class confidential --purpose contracts/drafting --explain --profile firm
"""


def replace_a_member(cluster: Cluster, existing: list[Manifest]) -> None:
    """A member of etcd loses its volume and comes back as the chart's README says."""
    tls = [f"--{option}=/etc/etcd/tls/{file}" for option, file in TLS_FILES]

    def members(*words: str) -> str:
        command = ["etcdctl", "member", *words, "--endpoints=https://localhost:2379", *tls]
        return cluster.exec("mesh-etcd-0", "etcd", command)

    cluster.kill("mesh-etcd-2")
    shutil.rmtree(cluster.folder / "claims" / "data-mesh-etcd-2" / "data")
    (lost,) = [line.split(",")[0] for line in members("list").splitlines() if "mesh-etcd-2" in line]
    members("remove", lost)
    members("add", "mesh-etcd-2", "--peer-urls=https://mesh-etcd-2.mesh-etcd.mesh.svc.cluster.local:2380")
    cluster.upgrade(existing)
    listed = members("list").splitlines()
    assert [line.split(", ")[1] for line in listed] == ["started"] * 3, listed
    assert lost not in "".join(listed)
    cluster.test()


TLS_FILES = (("cacert", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))


def public_names(clusters: Mapping[str, Cluster]) -> Iterator[tuple[str, str]]:
    """What the README has put into DNS: control planes, nodes and the members of the board."""
    for country, cluster in clusters.items():
        for running in cluster.running.values():
            name = running.pod.name
            component = running.pod.labels.get("app.kubernetes.io/component")
            if component == "control":
                yield running.address, f"control.{country}.example.org"
            elif component == "etcd":
                yield running.address, f"board-{name.rpartition('-')[2]}.{country}.example.org"
            elif component == "node":
                prefix = {"de": "fra", "fr": "par", "us": "nyc"}[country]
                yield running.address, f"{prefix}-{name.rpartition('-')[2]}.{country}.example.org"


def bundle_of(cluster: Cluster) -> dict[str, str]:
    """An entry of the others' `trust.bundles`; the fingerprint is what its control plane says."""
    kept = cluster.secret("mesh-authority")
    assert kept is not None
    (control,) = [name for name in cluster.running if "control" in name]
    command = "meshctl trust export /tmp/bundle.json --authority /run/authority/ca --output json"
    told = json.loads(cluster.exec(control, "control", ["sh", "-c", command]))
    return {
        "trustDomain": told["trust_domain"],
        "bundle": kept["bundle.json"].decode(),
        "fingerprint": told["fingerprints"][0],
    }


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
