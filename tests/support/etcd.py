"""A real etcd for tests: fast elections, no fsync, TLS from a real authority where wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import grpc

from mesh.identity.board_certificate import make_board_certificate
from mesh.identity.leaf import chain_to_pem
from mesh.identity.svid import Svid
from mesh.store.base import RecordStore, WatchBatch, WatchKind
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdServer, EtcdTls
from tests.support.identities import AuthorityForTests

# Elections within half a second, and leases as short as one second.
FAST = ["--heartbeat-interval=50", "--election-timeout=500"]
ETCD_NAME = "etcd.control.de.mesh.example"
DEADLINE_S = 20.0


def fast_server(data_dir: Path, tls: EtcdTls | None = None) -> EtcdServer:
    return EtcdServer(data_dir, tls=tls, unsafe_no_fsync=True, extra_flags=FAST)


@cache
def certificate_of(trust_domain: str) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM of the etcd that this domain's authority runs."""
    return make_board_certificate(f"etcd.control.{trust_domain}", time.time())


def server_tls(directory: Path, owner: AuthorityForTests, *clients: AuthorityForTests) -> EtcdTls:
    """Files for an etcd that `owner` runs and that accepts the clients of all these authorities."""
    certificate, key = certificate_of(owner.trust_domain)
    roots = b"".join(chain_to_pem(a.bundle.roots) for a in (owner, *clients))
    files = {"ca.pem": roots, "etcd.pem": certificate, "etcd.key": key}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return EtcdTls(directory / "ca.pem", directory / "etcd.pem", directory / "etcd.key")


def client_credentials(owner: AuthorityForTests, svid: Svid | None) -> Callable[[], grpc.ChannelCredentials]:
    """What a client of that etcd presents; nothing if `svid` is None."""

    def make() -> grpc.ChannelCredentials:
        certificate, _ = certificate_of(owner.trust_domain)
        if svid is None:
            return grpc.ssl_channel_credentials(certificate)
        return grpc.ssl_channel_credentials(certificate, svid.key_pem, svid.chain_pem)

    return make


class Watcher:
    """Collects what a watch says, and waits for it to have said something."""

    def __init__(self, store: RecordStore, prefix: str) -> None:
        self.batches: list[WatchBatch] = []
        self.state: dict[str, bytes] = {}
        self.history: list[tuple[str, bytes | None]] = []
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._collect(store, prefix))

    async def _collect(self, store: RecordStore, prefix: str) -> None:
        async for batch in store.watch(prefix):
            if batch.kind is WatchKind.LISTING:
                self.state = {entry.key: entry.value for entry in batch.puts}
            elif batch.kind is WatchKind.CHANGES:
                for entry in batch.puts:
                    self.state[entry.key] = entry.value
                    self.history.append((entry.key, entry.value))
                for key in batch.deletes:
                    self.state.pop(key, None)
                    self.history.append((key, None))
            self.batches.append(batch)
            self._news.set()

    def count(self, kind: WatchKind) -> int:
        return sum(batch.kind is kind for batch in self.batches)

    async def until(self, condition: Callable[[Watcher], object], deadline_s: float = DEADLINE_S) -> None:
        async with asyncio.timeout(deadline_s):
            while not condition(self):
                if self._task.done():
                    self._task.result()
                    raise AssertionError("the watch ended")
                self._news.clear()
                await self._news.wait()

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def watching(store: RecordStore, prefix: str) -> AsyncIterator[Watcher]:
    """A watcher that has seen its first listing."""
    watcher = Watcher(store, prefix)
    try:
        await watcher.until(lambda w: w.batches)
        yield watcher
    finally:
        await watcher.aclose()


@asynccontextmanager
async def client(server: EtcdServer | str, **options: object) -> AsyncIterator[EtcdStore]:
    """A store on this server or address, closed afterwards."""
    endpoint = server if isinstance(server, str) else server.endpoint
    store = EtcdStore([endpoint], **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.aclose()
