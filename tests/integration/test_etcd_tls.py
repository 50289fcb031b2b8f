"""etcd behind mutual TLS: client certificates of several authorities, and of none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.identity.svid import Svid
from mesh.store.base import WatchKind
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdServer
from tests.support.etcd import ETCD_NAME, client_credentials, fast_server, server_tls, watching
from tests.support.identities import AuthorityForTests

pytestmark = pytest.mark.slow

PREFIX = "/sovereign/v1/de.mesh.example/"
KEY = PREFIX + "policy"


@pytest.fixture
def de(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, "de.mesh.example")


@pytest.fixture
def fr(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, "fr.mesh.example")


@pytest.fixture
async def server(tmp_path: Path, de: AuthorityForTests, fr: AuthorityForTests) -> AsyncIterator[EtcdServer]:
    async with fast_server(tmp_path / "etcd", server_tls(tmp_path, de, fr)) as server:
        yield server


def connect(
    server: EtcdServer, owner: AuthorityForTests, svid: Svid | None, name: str = ETCD_NAME
) -> EtcdStore:
    return EtcdStore(
        [server.endpoint], credentials=client_credentials(owner, svid), server_name=name, timeout_s=2.0
    )


async def test_clients_of_each_authority_share_one_board(
    server: EtcdServer, de: AuthorityForTests, fr: AuthorityForTests
) -> None:
    writer, reader = connect(server, de, de.svid("/node/fra-1")), connect(server, de, fr.svid("/node/par-1"))
    async with watching(reader, PREFIX) as watcher:
        await writer.put(KEY, b"one")
        await watcher.until(lambda w: w.state == {KEY: b"one"})
    await writer.aclose()
    await reader.aclose()


async def test_without_a_client_certificate_or_with_a_strangers_nothing_is_told(
    server: EtcdServer, de: AuthorityForTests, tmp_path: Path
) -> None:
    us = AuthorityForTests(tmp_path, "us.mesh.example")
    imposter = us.forged_svid("spiffe://de.mesh.example/node/fra-1", "fra-1.node.de.mesh.example")
    for svid in (None, us.svid("/node/nyc-1"), imposter):
        store = connect(server, de, svid)
        for attempt in (store.get(KEY), store.put(KEY, b"x"), store.list(PREFIX)):
            with pytest.raises(MeshError) as refused:
                await attempt
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
        await store.aclose()


async def test_a_server_that_is_not_ours_is_told_nothing(
    server: EtcdServer, de: AuthorityForTests, fr: AuthorityForTests
) -> None:
    svid = de.svid("/node/fra-1")
    for store in (connect(server, fr, svid), connect(server, de, svid, "other.control.de.mesh.example")):
        with pytest.raises(MeshError) as refused:
            await store.put(KEY, b"x")
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        await store.aclose()


async def test_renewed_credentials_are_used_and_watches_do_not_notice(
    server: EtcdServer, de: AuthorityForTests, tmp_path: Path
) -> None:
    presented = [de.svid("/node/fra-1")]
    asked = 0

    def credentials() -> object:
        nonlocal asked
        asked += 1
        return client_credentials(de, presented[-1])()

    store = EtcdStore([server.endpoint], credentials=credentials, server_name=ETCD_NAME, timeout_s=2.0)  # type: ignore[arg-type]
    async with watching(store, PREFIX) as watcher:
        for i in range(5):
            presented.append(de.svid("/node/fra-1"))
            await store.reconnect()
            await store.put(KEY, b"%d" % i)
            await watcher.until(lambda w, last=i: w.state.get(KEY) == b"%d" % last)
        assert asked == 6
        assert watcher.count(WatchKind.DISCONNECTED) == 0
        assert watcher.count(WatchKind.LISTING) == 1
        assert [value for _, value in watcher.history] == [b"%d" % i for i in range(5)]
        # And it is really the new one that counts.
        presented.append(AuthorityForTests(tmp_path, "us.mesh.example").svid("/node/nyc-1"))
        await store.reconnect()
        await watcher.until(lambda w: w.batches[-1].kind is WatchKind.DISCONNECTED)
    await store.aclose()
