"""The scripts of the chart's containers, run as they stand: real etcd, control plane, node, API requests.

One site comes up as in a cluster, container by container (tests/support/chart_site.py).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mesh.core.types import SpiffeId
from mesh.identity.ca import CertificateAuthority
from mesh.identity.keys import make_key_and_csr
from mesh.identity.leaf import chain_from_pem, chain_to_pem
from mesh.sdk.profile import Profile
from mesh.store.etcd_server import EtcdServer, EtcdTls
from tests.support.chart_site import ROOT, SCRIPTS, TRUST_DOMAIN, Pods, Site, directory
from tests.support.kubernetes_api import api_server

BOARD = "mesh-etcd-0.mesh-etcd.mesh.svc.cluster.local"
DE, FR = TRUST_DOMAIN, "fr.mesh.example"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    with api_server(tmp_path / "api") as api:
        yield Pods(tmp_path, api)


def board_certificates(pods: Pods, clients: str) -> str:
    ca = directory(pods.folder / "no-ca")
    return pods.run(
        "certificates.sh",
        PREFIX="mesh-etcd",
        ALGORITHM="rsa",
        DAYS=365,
        SERVERS=f"server={BOARD},localhost",
        CLIENTS=clients,
        CA_DIR=pods.mount("mesh-etcd-ca") if "mesh-etcd-ca" in pods.api.secrets else ca,
        WORK_DIR=directory(pods.folder / "work"),
    )


def found(pods: Pods) -> str:
    return pods.run(
        "authority-found.sh",
        SECRET_NAME="mesh-authority",
        TRUST_DOMAIN=DE,
        WORK_DIR=directory(pods.folder / "work"),
    )


def put_together(pods: Pods, secret: Path, authority: Path, trust_domain: str = DE, code: int = 0) -> str:
    directory(authority.parent)
    return pods.run(
        "authority-files.sh", code=code, SECRET_DIR=secret, AUTHORITY_DIR=authority, TRUST_DOMAIN=trust_domain
    )


async def test_a_site_comes_up(pods: Pods) -> None:
    site = Site(pods)

    # The board's certificates: once, and later only what is new.
    board_certificates(pods, "client")
    assert pods.api.secrets == {"mesh-etcd-ca", "mesh-etcd-server", "mesh-etcd-client"}
    assert "all certificates are there" in board_certificates(pods, "client")
    before = pods.api.files("mesh-etcd-server")
    board_certificates(pods, "client client-fr")
    assert pods.api.files("mesh-etcd-client-fr")["ca.crt"] == before["ca.crt"]
    assert pods.api.files("mesh-etcd-server") == before
    assert not list((pods.folder / "work").iterdir()), "keys stay in memory only as long as they are needed"

    # The authority: founded once, put together in memory for its owner alone.
    found(pods)
    root = pods.api.files("mesh-authority")["root.key"]
    assert "there already" in found(pods)
    assert pods.api.files("mesh-authority")["root.key"] == root
    for _ in range(2):  # a container that starts again finds what the last one left
        put_together(pods, pods.mount("mesh-authority"), site.authority)
    assert (site.authority / "root.key").stat().st_mode & 0o777 == 0o600
    assert CertificateAuthority.load(site.authority).trust_domain == DE

    server, client = pods.mount("mesh-etcd-server"), pods.mount("mesh-etcd-client")
    tls = EtcdTls(server / "ca.crt", server / "tls.crt", server / "tls.key")
    async with EtcdServer(pods.folder / "etcd", tls=tls, unsafe_no_fsync=True) as etcd:
        board = {
            "endpoints": [etcd.endpoint],
            "ca": str(client / "ca.crt"),
            "certificate": str(client / "tls.crt"),
            "key": str(client / "tls.key"),
            "server_name": BOARD,
        }
        try:
            run_site(site, board)
        finally:
            site.stop()


def run_site(site: Site, board: dict[str, object]) -> None:
    pods = site.pods
    site.start(
        "control.daemon",
        {
            "authority_directory": str(site.authority),
            "state_directory": str(site.folder / "control"),
            "listen": [site.control],
            "enrolment": {"listen": [site.enrolment]},
            "board": board,
            "heads": {"interval_s": 0.5},
        },
    )

    # Tokens: one a node, once.
    site.tokens()
    assert {"mesh-join-fra-1", "mesh-join-fra-2"} <= pods.api.secrets
    assert site.tokens().count("has a token already") == 2

    # Enrolment: by the root certificate alone, once, and never with files that others may read.
    site.enrol()
    identity = site.data / "identity"
    first = (identity / "svid.pem").read_bytes()
    (identity / "svid.key").chmod(0o660)
    assert "fra-1 is enrolled" in site.enrol()
    assert (identity / "svid.key").stat().st_mode & 0o777 == 0o600
    assert (identity / "svid.pem").read_bytes() == first
    identity.rename(site.data / "identity.new")
    assert "fra-1 is enrolled" in site.enrol(), "it ended before its identity was in place"
    assert (identity / "svid.pem").read_bytes() == first
    used = site.enrol(POD_NAME="mesh-node-2", DATA_DIR=directory(site.folder / "second"))
    assert "fra-2" in used
    assert "JOIN_TOKEN_INVALID" in site.enrol(DATA_DIR=directory(site.folder / "third"), code=1)

    # One that was off for too long needs a new token, and gets it when the Secret was deleted.
    (identity / "svid.pem").write_bytes(expired(site.authority))
    pods.api.delete("mesh-join-fra-1")
    site.tokens()
    assert "has run out" in site.enrol()
    assert (identity / "svid.pem").read_bytes() != first
    assert not (site.data / "identity.new").exists()

    # Policies and other authorities.
    policy = ROOT / "examples/policies/de.cedar"
    assert "de-" in pods.run("policy-apply.sh", POLICY=policy, **site.admin)
    trust = directory(site.folder / "trust")
    subprocess.run(
        [str(pods.commands / "meshctl"), "authority", "init", str(site.folder / "fr"), "--trust-domain", FR],
        check=True, capture_output=True,
    )  # fmt: skip
    shutil.copy(site.folder / "fr/bundle.json", trust / f"{FR}.json")
    (trust / f"{FR}.fingerprint").write_text(f"sha256:{'0' * 64}")
    assert "BUNDLE_INVALID" in pods.run("trust-import.sh", code=1, TRUST_DIR=trust, **site.admin)
    (trust / f"{FR}.fingerprint").write_text(fingerprint(site.folder / "fr/ca/root.pem"))
    assert FR in pods.run("trust-import.sh", TRUST_DIR=trust, **site.admin)

    # A node serves, and the chart's test places a request on it.
    site.start(
        "node.daemon",
        {
            "listen": [site.node],
            "state_directory": str(site.data / "state"),
            "identity": {
                "directory": str(identity),
                "renew_at": site.control,
                "renew_name": f"main.control.{DE}",
            },
            "board": board,
            "engine": {"kind": "scripted", "model_name": "scripted"},
            "retrieval": {"enabled": False},
            "evidence": {"witnesses": 0},
            "telemetry": {"listen": site.health},
        },
    )
    tested: dict[str, object] = {
        "READY": f"http://{site.health}/readyz",
        "NODES": f"fra-1={site.node}",
        "MODEL": "scripted",
        "DATA_CLASS": "public",
        "PURPOSE": "demo",
    }
    said = pods.run("place-test.sh", PROFILE_TGZ="", **tested, **site.admin)
    assert f"http://{site.health}/readyz: 200" in said
    assert "fra-1" in said
    refused = pods.run(
        "place-test.sh", code=1, PROFILE_TGZ="", **{**tested, "READY": f"http://{site.control}/"}
    )
    assert "fra-1" not in refused, "a node that is not ready is sent nothing"

    # The same with a profile of one's own, and nothing of the authority.
    profile = site.folder / "profile.tgz"
    subprocess.run(["tar", "-czf", str(profile), "-C", str(site.folder / "work/client"), "."], check=True)
    work = directory(site.folder / "elsewhere")
    assert "fra-1" in pods.run("place-test.sh", PROFILE_TGZ=profile, WORK_DIR=work, **tested)


def expired(authority: Path) -> bytes:
    _, csr = make_key_and_csr()
    chain = CertificateAuthority.load(authority).issue(
        csr, SpiffeId(DE, "/node/fra-1"), 60.0, time.time() - 3600
    )
    return chain_to_pem(chain)


def fingerprint(root: Path) -> str:
    (der,) = chain_from_pem(root.read_bytes())
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_a_root_of_cert_manager_is_adopted(pods: Pods, tmp_path: Path) -> None:
    CertificateAuthority.create(tmp_path / "made", DE, time.time)
    secret = directory(tmp_path / "secret")
    shutil.copy(tmp_path / "made/root.pem", secret / "tls.crt")
    shutil.copy(tmp_path / "made/root.key", secret / "tls.key")
    authority = tmp_path / "run/ca"
    for _ in range(2):
        put_together(pods, secret, authority)
    assert (authority / "root.pem").read_bytes() == (secret / "tls.crt").read_bytes()
    assert (authority / "authority.key").stat().st_mode & 0o777 == 0o600
    assert "fr.mesh.example" in put_together(pods, secret, authority, FR, code=1)


def test_an_administrator_gets_a_profile_and_nothing_of_it_stays(pods: Pods, tmp_path: Path) -> None:
    authority = tmp_path / "run/ca"
    CertificateAuthority.create(authority, DE, time.time)
    script = f"sh {SCRIPTS / 'admin-profile.sh'} me 127.0.0.1:1 127.0.0.1:2 > {tmp_path / 'me.tgz'}"
    environment = {"PATH": f"{pods.commands}:/usr/bin:/bin", "AUTHORITY_DIR": str(authority)}
    subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True)
    subprocess.run(["tar", "-xzf", "me.tgz"], cwd=tmp_path, check=True)
    assert Profile.load(tmp_path).require_control().endpoint == "127.0.0.1:1"
    assert (tmp_path / "identity/svid.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["ca"]
    assert "expected a name" in pods.run("admin-profile.sh", "me", code=2)


def test_half_an_authority_is_none(pods: Pods, tmp_path: Path) -> None:
    secret = directory(tmp_path / "secret")
    assert "neither" in put_together(pods, secret, tmp_path / "run/ca", code=1)
    (secret / "root.key").write_text("a key")
    assert "no key root.pem" in put_together(pods, secret, tmp_path / "run/ca", code=1)
    assert not (tmp_path / "run/ca").exists()


def test_certificates_of_an_engine_are_those_that_both_ends_expect(pods: Pods, tmp_path: Path) -> None:
    names = {end: f"{end}.engine.sovereign-mesh.internal" for end in ("replica", "gateway")}
    pods.run(
        "certificates.sh",
        PREFIX="mesh-engine",
        ALGORITHM="ecdsa",
        DAYS=365,
        SERVERS=f"replica={names['replica']}",
        CLIENTS=f"gateway={names['gateway']}",
        CA_DIR=tmp_path / "none",
        WORK_DIR=directory(tmp_path / "work"),
    )
    ca = x509.load_pem_x509_certificate(pods.api.files("mesh-engine-ca")["tls.crt"])
    for end, name in names.items():
        leaf = x509.load_pem_x509_certificate(pods.api.files(f"mesh-engine-{end}")["tls.crt"])
        leaf.verify_directly_issued_by(ca)
        assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert alternative.get_values_for_type(x509.DNSName) == [name]
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (ExtendedKeyUsageOID.SERVER_AUTH in usages) == (end == "replica")


def test_certificates_wait_for_the_mount_of_their_ca(pods: Pods, tmp_path: Path) -> None:
    settings = {
        "PREFIX": "p",
        "ALGORITHM": "ecdsa",
        "DAYS": 365,
        "SERVERS": "s=a.example",
        "WORK_DIR": tmp_path / "work",
    }
    directory(tmp_path / "work")
    pods.run("certificates.sh", CLIENTS="", CA_DIR=tmp_path / "none", **settings)
    said = pods.run("certificates.sh", CLIENTS="c", CA_DIR=tmp_path / "none", code=1, **settings)
    assert "p-ca exists and is not mounted" in said
    assert pods.api.secrets == {"p-ca", "p-s"}


def test_no_more_snapshots_are_kept_than_wanted(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "snapshot.db").write_bytes(b"a snapshot")
    backup = directory(tmp_path / "backup")
    for day in range(1, 5):
        (backup / f"etcd-2026010{day}T000000Z.db").write_bytes(b"old")
        (backup / f"etcd-2026010{day}T000000Z.db.sha256").write_text("old")
    pods.run("keep-snapshot.sh", SNAPSHOT=tmp_path / "snapshot.db", BACKUP_DIR=backup, KEEP=2)
    kept = sorted(path.name for path in backup.iterdir())
    assert kept[:2] == ["etcd-20260104T000000Z.db", "etcd-20260104T000000Z.db.sha256"]
    assert len(kept) == 4
    subprocess.run(["sha256sum", "--check", kept[3]], cwd=backup, check=True, capture_output=True)


def test_a_model_is_waited_for_only_where_somebody_fetches_it(pods: Pods, tmp_path: Path) -> None:
    model = tmp_path / "models/tiny"
    assert "there is no model" in pods.run("await-model.sh", code=1, MODEL_DIR=model, FETCHED="no")
    later = subprocess.Popen(["sh", "-c", 'sleep 0.5; mkdir -p "$0"; touch "$0/config.json"', str(model)])
    assert "waiting for the model" in pods.run("await-model.sh", MODEL_DIR=model, FETCHED="yes")
    later.wait()


def test_a_model_is_fetched_with_what_the_chart_says(pods: Pods, tmp_path: Path) -> None:
    told = tmp_path / "told"
    (pods.commands / "mesh-model").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\n')
    (pods.commands / "mesh-model").chmod(0o755)
    settings = {
        "MODEL_FROM": "hub:org/model@main",
        "MODEL_DIGEST": "sha256:00",
        "MODEL_DIR": tmp_path / "m/0/1",
    }
    pods.run("model-fetch.sh", OPTIONS="--max-bytes 300GiB", **settings)
    assert told.read_text().split() == [
        "fetch", "--from", "hub:org/model@main", "--to", str(tmp_path / "m/0/1"), "--digest", "sha256:00",
        "--max-bytes", "300GiB",
    ]  # fmt: skip
    assert (tmp_path / "m/0").is_dir(), "where the download lies beside its place"
