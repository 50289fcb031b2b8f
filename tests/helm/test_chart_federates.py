"""The chart's federation example, installed: three authorities, each in a cluster of its own.

Apart from test_chart_installed.py, so that the two can be run beside each other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart.cases import merged
from tests.support.chart.rendering import EXAMPLES, Case, Manifest, Renderer
from tests.support.cluster.cluster import Cluster, clusters_of, why_no_cluster
from tests.support.cluster.installing import ROOT, SCRIPTED, image, runnable

POLICIES = ROOT / "examples" / "policies"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(why_no_cluster()), reason=f"no pods here: {why_no_cluster()}"),
]


def test_three_authorities_federate(tmp_path: Path, render: Renderer) -> None:
    """The steps of helm/examples/federation/README.md, each cluster with the values of its country."""
    countries = ("de", "fr", "us")

    def manifests(country: str, **more: Any) -> list[Manifest]:
        policy = (POLICIES / f"{country}.cedar").read_text()
        on_top = {"policy": {"cedar": policy}, "node": {"engine": {"gpu": {"enabled": False}}}}
        values = merged(SCRIPTED, on_top, more)
        name = "-".join(["installed", country, *sorted(more)])
        return runnable(render(Case(name, values, (EXAMPLES / "federation" / f"{country}.yaml",))).manifests)

    with clusters_of(tmp_path / "lab", countries, image()) as clusters:
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
