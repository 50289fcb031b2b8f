"""A real etcd on its bad days: cuts, compactions, crashes, frozen members, lost quorum, lost data."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import grpc.aio
import pytest

from mesh.core.errors import MeshError, Reason
from mesh.store.base import WatchKind
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdCluster, EtcdServer, find_etcd
from sovereign.etcd.v3 import etcd_pb2
from tests.support.etcd import FAST, client, fast_server, watching
from tests.support.proxy import proxied

pytestmark = pytest.mark.slow

PREFIX = "/sovereign/v1/de.mesh.example/"
KEY = PREFIX + "policy"


async def happened(store: EtcdStore, key: str, value: bytes) -> bool:
    """Puts; whether that was acknowledged. Any refusal but "unknown" is an error."""
    try:
        await store.put(key, value)
    except MeshError as error:
        if error.reason is not Reason.STORE_UNAVAILABLE:
            raise
        return False
    return True


async def compact(server: EtcdServer, revision: int) -> None:
    async with grpc.aio.insecure_channel(server.endpoint) as channel:
        request = etcd_pb2.CompactionRequest(revision=revision, physical=True).SerializeToString()
        await channel.unary_unary("/etcdserverpb.KV/Compact", None, None)(request)


async def test_a_watch_that_was_cut_off_goes_on_without_a_gap(tmp_path: Path) -> None:
    async with (
        fast_server(tmp_path / "etcd") as server,
        proxied(server.endpoint) as proxy,
        client(server) as writer,
        client(proxy.address) as reader,
        watching(reader, PREFIX) as watcher,
    ):
        for i in range(30):
            if i % 10 == 5:
                proxy.cut()
                await watcher.until(lambda w: w.batches[-1].kind is WatchKind.DISCONNECTED)
            await writer.put(KEY, b"%d" % i)
            if i % 10 == 9:
                proxy.heal()
                await watcher.until(lambda w, last=i: w.history[-1:] == [(KEY, b"%d" % last)])
        assert [value for _, value in watcher.history] == [b"%d" % i for i in range(30)]
        assert watcher.count(WatchKind.LISTING) == 1
        assert watcher.count(WatchKind.DISCONNECTED) == 3, "told once each time"


async def test_a_compaction_while_cut_off_leads_to_a_new_listing(tmp_path: Path) -> None:
    async with (
        fast_server(tmp_path / "etcd") as server,
        proxied(server.endpoint) as proxy,
        client(server) as writer,
        client(proxy.address) as reader,
    ):
        await writer.put(PREFIX + "gone", b"x")
        async with watching(reader, PREFIX) as watcher:
            await writer.put(KEY, b"before")
            await watcher.until(lambda w: w.state.get(KEY) == b"before")
            proxy.cut()
            await writer.delete(PREFIX + "gone")
            for i in range(10):
                revision = await writer.put(KEY, b"%d" % i)
            await compact(server, revision)
            proxy.heal()
            await watcher.until(lambda w: w.count(WatchKind.LISTING) == 2)
            assert watcher.state == {KEY: b"9"}
            await writer.put(KEY, b"after")
            await watcher.until(lambda w: w.history[-1:] == [(KEY, b"after")])


async def test_nothing_that_was_acknowledged_is_lost_over_sigkill_and_watches_resume(tmp_path: Path) -> None:
    async with fast_server(tmp_path / "etcd") as server, client(server) as writer, client(server) as reader:
        acknowledged: dict[str, bytes] = {}
        attempted: dict[str, set[bytes]] = {}
        crash = asyncio.Event()

        async def write(worker: int) -> None:
            for i in range(1_000_000):
                key, value = f"{PREFIX}w{worker}-{i % 7}", b"%d" % i
                attempted.setdefault(key, set()).add(value)
                if not await happened(writer, key, value):
                    return
                acknowledged[key] = value
                if i == 30:
                    crash.set()

        async with watching(reader, PREFIX) as watcher:
            workers = [asyncio.create_task(write(worker)) for worker in range(4)]
            await crash.wait()
            server.kill()
            await asyncio.gather(*workers)
            await server.start()
            entries, _ = await reader.list(PREFIX)
            stored = {entry.key: entry.value for entry in entries}
            for key, value in acknowledged.items():
                # What came after, and was cut off before it was acknowledged, may be there or not.
                assert int(stored[key]) >= int(value)
                assert stored[key] in attempted[key]
            await writer.put(KEY, b"end")
            await watcher.until(lambda w: w.state.get(KEY) == b"end")
            assert watcher.state == {**stored, KEY: b"end"}
            assert watcher.count(WatchKind.LISTING) == 1
            assert len(watcher.history) == len(set(watcher.history)), "nothing twice"


async def test_a_frozen_member_is_noticed_within_seconds_though_its_connection_stays_open(
    tmp_path: Path,
) -> None:
    async with fast_server(tmp_path / "etcd") as server:
        store = EtcdStore([server.endpoint], timeout_s=1.0, progress_s=0.2, silence_s=1.0)
        async with watching(store, PREFIX) as watcher:
            server.suspend()
            await watcher.until(lambda w: w.batches[-1].kind is WatchKind.DISCONNECTED, 3)
            with pytest.raises(MeshError) as refused:
                await store.put(KEY, b"x")
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
            server.resume()
            await watcher.until(lambda w: w.batches[-1].kind is WatchKind.PROGRESS)
            await store.put(KEY, b"y")
            await watcher.until(lambda w: w.state.get(KEY) == b"y")
        await store.aclose()


async def test_a_line_that_swallows_everything_is_noticed_too(tmp_path: Path) -> None:
    async with fast_server(tmp_path / "etcd") as server, proxied(server.endpoint) as proxy:
        store = EtcdStore([proxy.address], timeout_s=1.0, progress_s=0.2, silence_s=1.0)
        async with watching(store, PREFIX) as watcher:
            proxy.freeze()
            await watcher.until(lambda w: w.batches[-1].kind is WatchKind.DISCONNECTED, 3)
            proxy.heal()
            await watcher.until(lambda w: w.batches[-1].kind is WatchKind.PROGRESS)
        await store.aclose()


async def test_three_members_outlive_one_and_a_client_moves_on(tmp_path: Path) -> None:
    async with EtcdCluster(tmp_path, unsafe_no_fsync=True, extra_flags=FAST) as cluster:
        store = EtcdStore(cluster.endpoints, timeout_s=2.0, progress_s=0.2, silence_s=1.0)
        async with watching(store, PREFIX) as watcher:
            lease = await store.lease(4.0)
            await store.put(PREFIX + "status/a", b"up", lease=lease)
            await store.put(KEY, b"one")
            # The first endpoint is the one in use; it may or may not lead.
            cluster.members[0].kill()
            while not await happened(store, KEY, b"two"):
                pass
            await watcher.until(lambda w: w.state.get(KEY) == b"two")
            assert not lease.lost
            await cluster.members[0].start()
            cluster.members[1].suspend()
            while not await happened(store, KEY, b"three"):
                pass
            await watcher.until(lambda w: w.state.get(KEY) == b"three")
            assert watcher.state[PREFIX + "status/a"] == b"up"
            values = [value for key, value in watcher.history if key == KEY]
            assert list(dict.fromkeys(values)) == [b"one", b"two", b"three"]
            cluster.members[1].resume()
        await store.aclose()


async def test_without_a_quorum_a_put_fails_and_nobody_is_told_otherwise(tmp_path: Path) -> None:
    async with EtcdCluster(tmp_path, unsafe_no_fsync=True, extra_flags=FAST) as cluster:
        store = EtcdStore(cluster.endpoints, timeout_s=1.0)
        revision = await store.put(KEY, b"one")
        cluster.members[1].kill()
        cluster.members[2].kill()
        with pytest.raises(MeshError) as refused:
            await store.put(KEY, b"two", expected_revision=revision)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        for member in cluster.members[1:]:
            member.launch()
        for member in cluster.members:
            await member.ready()
        entry = await store.get(KEY)
        assert entry is not None
        # Its fate was unknown: reading tells, and the expectation keeps it from happening twice.
        assert entry.value in (b"one", b"two")
        assert await store.put(KEY, b"three", expected_revision=entry.revision) > entry.revision
        await store.aclose()


async def test_an_etcd_that_comes_back_empty_is_listed_anew_and_its_leases_are_lost(tmp_path: Path) -> None:
    server = fast_server(tmp_path / "etcd")
    async with server, client(server) as store:
        lease = await store.lease(1.0)
        for i in range(20):
            await store.put(KEY, b"%d" % i, lease=lease)
        async with watching(store, PREFIX) as watcher:
            server.kill()
            shutil.rmtree(server.data_dir)
            await server.start()
            await watcher.until(lambda w: w.count(WatchKind.LISTING) == 2)
            assert watcher.state == {}
            with pytest.raises(MeshError) as refused:
                await store.put(KEY, b"x", lease=lease)
            assert refused.value.reason is Reason.STORE_CONFLICT
            assert lease.lost
            await store.put(KEY, b"new")
            await watcher.until(lambda w: w.state == {KEY: b"new"})


async def test_a_stale_token_is_replaced_without_anybody_noticing(tmp_path: Path) -> None:
    flags = [*FAST, "--auth-token=simple", "--auth-token-ttl=1"]
    async with EtcdServer(tmp_path / "etcd", unsafe_no_fsync=True, extra_flags=flags) as server:
        etcdctl = find_etcd().with_name("etcdctl")
        for words in (
            "user add root:secret",
            "user add mesh:word",
            "role add mesh",
            "role grant-permission mesh readwrite --prefix=true /sovereign/",
            "user grant-role mesh mesh",
            "user grant-role root root",
            "auth enable",
        ):
            command = [etcdctl, f"--endpoints={server.endpoint}", *words.split()]
            await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        async with client(server) as stranger:
            with pytest.raises(MeshError) as refused:
                await stranger.get(KEY)
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
            assert "word" not in str(refused.value)
        async with client(server, user="mesh", password="word") as store, watching(store, PREFIX) as watcher:
            await store.put(KEY, b"one")
            store._token = "forgotten.1"
            await store.put(KEY, b"two", expected_revision=(await store.get(KEY)).revision)  # type: ignore[union-attr]
            store._token = "forgotten.2"
            await store.reconnect()
            await store.put(KEY, b"three")
            await watcher.until(lambda w: w.state.get(KEY) == b"three")
            with pytest.raises(MeshError):
                await store.get("/elsewhere")
        async with client(server, user="mesh", password="wrong") as store:
            with pytest.raises(MeshError) as refused:
                await store.get(KEY)
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
