"""Boards of three authorities on one etcd behind mutual TLS: the whole way of a record, and its bad days."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from control.heads import HeadsKeeper
from mesh.board import Board
from mesh.board_cache import BoardCache, CachedBoard
from mesh.core.errors import MeshError, Reason
from mesh.store.etcd import EtcdStore
from mesh.store.etcd_server import EtcdServer
from tests.support.boards import DAY_S, DE, FR, US, Clock, Writer, running_board
from tests.support.etcd import ETCD_NAME, client_credentials, fast_server, server_tls
from tests.support.identities import AuthorityForTests
from tests.support.waiting import until

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0
DOMAINS = (DE, FR, US)


class Mesh:
    """One etcd, three authorities that federate with each other, and a board for a node of each."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        authorities = {name: AuthorityForTests(directory, name) for name in DOMAINS}
        self.writers = {name: Writer(authority, self.clock) for name, authority in authorities.items()}
        self._owner = authorities[DE]
        tls = server_tls(directory, authorities[DE], authorities[FR], authorities[US])
        self.server: EtcdServer = fast_server(directory / "etcd", tls)
        self.boards: dict[str, Board] = {}
        self.keepers: dict[str, HeadsKeeper] = {}
        self._directory = directory

    def store(self, trust_domain: str) -> EtcdStore:
        svid = self.writers[trust_domain].authority.svid("/node/a")
        credentials = client_credentials(self._owner, svid)
        return EtcdStore(
            [self.server.endpoint],
            credentials=credentials,
            server_name=ETCD_NAME,
            timeout_s=1.0,
            progress_s=0.2,
            silence_s=1.0,
        )

    @asynccontextmanager
    async def board(self, trust_domain: str) -> AsyncIterator[Board]:
        store = self.store(trust_domain)
        bundle = self.writers[trust_domain].authority.bundle
        try:
            async with running_board(
                store, bundle, self.clock, self._directory / trust_domain / "cache"
            ) as board:
                yield board
        finally:
            await store.aclose()

    async def publish_all(self) -> None:
        bundles = [writer.authority.bundle for writer in self.writers.values()]
        for name, writer in self.writers.items():
            keeper = self.keepers[name]
            await keeper.publish(*writer.federation(*(b for b in bundles if b.trust_domain != name)))
            await keeper.publish(*writer.policy())
            await keeper.publish(*writer.facts("a"))
            await self.boards[name].publish(writer.node_signer("a"), *writer.record("a"), DAY_S)
        await self.everywhere(lambda board: len(board.snapshot.candidates) == 3)
        await self.everywhere(lambda board: len(board.snapshot.heads) == 3)

    async def everywhere(self, condition: object) -> None:
        await asyncio.gather(
            *(board.wait_for(lambda _, b=board: condition(b), DEADLINE_S) for board in self.boards.values())  # type: ignore[operator]
        )


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(mesh.server)
        for name, writer in mesh.writers.items():
            board = mesh.boards[name] = await stack.enter_async_context(mesh.board(name))
            mesh.keepers[name] = HeadsKeeper(
                board, name, lambda writer=writer: writer.signer, mesh.clock, interval_s=0.1, max_age_s=8
            )
        await mesh.publish_all()
        yield mesh


async def test_every_board_holds_the_same_and_refuses_nothing(mesh: Mesh) -> None:
    boards = list(mesh.boards.values())
    for board in boards:
        assert not board.refused
        assert board.snapshot.candidates == boards[0].snapshot.candidates
        assert board.snapshot.policies == boards[0].snapshot.policies
        assert board.snapshot.generations.keys() >= boards[0].snapshot.generations.keys() - {
            str(mesh.writers[DE].federation()[0])
        }
        assert [board.snapshot.stale_reason(name, mesh.clock()) for name in DOMAINS] == ["", "", ""]


async def test_a_policy_change_is_pushed_to_all(mesh: Mesh) -> None:
    writer = mesh.writers[DE]
    taken: list[float] = []
    for number in range(10):
        text = f"// {number}"
        began = time.perf_counter()
        change = asyncio.create_task(mesh.keepers[DE].publish(*writer.policy(text)))
        await mesh.everywhere(lambda board, text=text: board.snapshot.policies[DE].cedar == text)
        taken.append(time.perf_counter() - began)
        await change
    # A loose bound: bench/bench_propagation.py measures. Polling, or a lost push, would be seconds.
    assert sorted(taken)[5] < 0.5


async def test_i4_etcd_killed_everybody_goes_on_until_stale_and_recovers_by_itself(mesh: Mesh) -> None:
    mesh.server.kill()
    await mesh.everywhere(lambda board: not board.connected)
    de = mesh.boards[DE].snapshot
    assert len(de.candidates) == 3
    assert de.stale_reason(FR, mesh.clock()) == ""
    mesh.clock.now += 9
    assert de.stale_reason(FR, mesh.clock()) != ""
    with pytest.raises(MeshError) as away:
        await mesh.keepers[DE].publish(*mesh.writers[DE].policy("// not now"))
    assert away.value.reason is Reason.STORE_UNAVAILABLE
    keeping = [asyncio.create_task(keeper.run()) for keeper in mesh.keepers.values()]
    try:
        await mesh.server.start()
        await mesh.everywhere(
            lambda board: all(board.snapshot.stale_reason(name, mesh.clock()) == "" for name in DOMAINS)
        )
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
    assert await mesh.keepers[DE].publish(*mesh.writers[DE].policy("// again")) > 1
    await mesh.everywhere(lambda board: board.snapshot.policies[DE].cedar == "// again")


async def test_an_etcd_that_lost_everything_is_filled_again(mesh: Mesh) -> None:
    before = {name: board.snapshot for name, board in mesh.boards.items()}
    mesh.server.kill()
    shutil.rmtree(mesh.server.data_dir)
    await mesh.server.start()
    keeping = [asyncio.create_task(keeper.run()) for keeper in mesh.keepers.values()]
    try:
        store = mesh.store(DE)
        async with asyncio.timeout(DEADLINE_S):
            # 3 x policy, facts, node, federation and heads. Others' writes come as they come.
            while len((await store.list("/sovereign/v1/"))[0]) < 15:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await store.aclose()
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
    for name, board in mesh.boards.items():
        assert board.snapshot.candidates == before[name].candidates
        assert board.snapshot.policies == before[name].policies
        assert not board.refused


async def test_a_newcomer_learns_everything_from_the_board_or_from_its_disk(mesh: Mesh) -> None:
    async with mesh.board(DE) as newcomer:
        assert newcomer.snapshot.candidates == mesh.boards[DE].snapshot.candidates
    cache = mesh._directory / DE / "cache"
    disk = BoardCache(cache, lambda _: CachedBoard())
    in_force = {key for key in mesh.boards[DE].snapshot.generations if not key.endswith("/heads")}
    # A board saves a moment after a change; what is tried here is what it knows after that.
    await until(lambda: in_force <= disk.load().envelopes.keys())
    mesh.server.kill()
    store = mesh.store(DE)
    bundle = mesh.writers[DE].authority.bundle
    async with running_board(store, bundle, mesh.clock, cache, connected=False) as restarted:
        assert restarted.snapshot.candidates == mesh.boards[DE].snapshot.candidates
        assert restarted.snapshot.policies == mesh.boards[DE].snapshot.policies
        assert not restarted.connected
    await store.aclose()


async def test_a_status_lives_with_its_node(mesh: Mesh) -> None:
    writer = mesh.writers[FR]
    node = writer.node("a")
    store = mesh.store(FR)
    lease = await store.lease(1.0)
    async with running_board(store, writer.authority.bundle, mesh.clock) as board:
        for load in range(5):
            await board.publish(writer.node_signer("a"), *writer.status("a", load), 30, lease)
        await mesh.everywhere(lambda b: node in b.statuses and b.statuses[node].in_flight == 4)
    # The process is gone: nobody renews, and nobody says goodbye.
    await store.aclose()
    await mesh.everywhere(lambda b: node not in b.statuses)


async def test_i5_who_owns_etcd_can_withhold_but_not_forge_delete_or_go_back(mesh: Mesh) -> None:
    de, owner = mesh.writers[DE], mesh.store(US)
    key = str(de.policy()[0])
    old = await owner.get(key)
    assert old is not None
    await mesh.keepers[DE].publish(*de.policy("// new"))
    await mesh.everywhere(lambda board: board.snapshot.policies[DE].cedar == "// new")
    for hostile in (
        old.value,
        b"garbage",
        de.seal(*de.policy("// evil"), 99, signer=mesh.writers[US].signer),
    ):
        await owner.put(key, hostile)
        await mesh.everywhere(lambda board: key in board.refused)
        assert {board.snapshot.policies[DE].cedar for board in mesh.boards.values()} == {"// new"}
        await owner.delete(key)
        await mesh.everywhere(lambda board: key not in board.refused)
        assert {board.snapshot.policies[DE].cedar for board in mesh.boards.values()} == {"// new"}
    await owner.aclose()
