"""How soon a policy change is enforced: from the authority's word to the last of three nodes.

    python -m bench.bench_propagation [--quick] [--json FILE]

One etcd with TLS and fsync, and one process for each of three nodes, of three authorities, with a board
and a placer; the nodes tell their status every second, as they would. The German authority withdraws a
French node and admits it again, in turn. The time runs from before the policy is signed until the last
node's own decision about a German request to that node (mesh/core/placement.py, judge_here) has changed.
Clocks are the machine's monotonic one, which its processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.report import Row, command, percentile
from control.heads import HeadsKeeper
from mesh.board import Board
from mesh.core.placement import Placer
from mesh.core.records import RecordKey, RecordType
from mesh.core.snapshot import Snapshot, TrustBundle
from mesh.core.types import Action, Principal, RequestContext, SpiffeId
from mesh.identity.svid import CHAIN_FILE, KEY_FILE, load_svid, save_svid
from mesh.store.configured import BoardSettings, open_store
from mesh.store.etcd_server import EtcdServer
from tests.support.boards import DAY_S, DE, FR, US, Writer, running_board
from tests.support.etcd import ETCD_NAME, server_tls
from tests.support.identities import AuthorityForTests

NODE = SpiffeId(FR, "/node/a")
CLIENT = Principal(SpiffeId(DE, "/client/firm-b"))
QUESTION = RequestContext.of(["confidential"], "drafting", transfer_basis="adequacy")
ADMITS = '@id("all") permit (principal, action, resource);\n// change {number}'
WITHDRAWS = ADMITS + '\n@id("not-france") forbid (principal, action, resource in Jurisdiction::"FR");'
DEADLINE_S = 30.0


def board_settings(endpoint: str, directory: Path) -> BoardSettings:
    return BoardSettings(
        endpoints=[endpoint],
        ca=directory / "etcd.pem",
        certificate=directory / CHAIN_FILE,
        key=directory / KEY_FILE,
        server_name=ETCD_NAME,
    )


# --- a node -------------------------------------------------------------------------------------


async def node(endpoint: str, directory: Path) -> None:
    """Prints the generation of the German policy and the time, whenever its own decision is a new one."""
    svid = load_svid(directory)
    bundle = TrustBundle(svid.id.trust_domain, ((directory / "root.der").read_bytes(),))
    placer = Placer()
    decided: tuple[int, bool] = (0, False)

    def decide(snapshot: Snapshot) -> None:
        nonlocal decided
        if DE not in snapshot.policies or NODE not in snapshot.candidates:
            return
        decision = placer.judge_here(
            snapshot,
            NODE,
            principal=CLIENT,
            action=Action.INFER,
            context=QUESTION,
            now=time.time(),
            decision_id="d",
        )
        now = (snapshot.policies[DE].generation, decision.permitted)
        if now != decided:
            decided = now
            print(json.dumps([*now, time.monotonic()]), flush=True)

    store = open_store(board_settings(endpoint, directory))
    status = RecordKey(svid.id.trust_domain, RecordType.STATUS, svid.id.name)
    async with running_board(store, bundle, time.time, directory / "cache") as board:
        board.subscribe(decide)
        decide(board.snapshot)
        lease = await store.lease(5)
        while True:
            await board.publish(svid.signer, status, b"", 30, lease)
            await asyncio.sleep(1)


# --- the measurement ----------------------------------------------------------------------------


class Mesh:
    """etcd, three authorities, and a process for each node."""

    def __init__(self, directory: Path) -> None:
        self.writers = {
            name: Writer(AuthorityForTests(directory, name), time.time)  # type: ignore[arg-type]
            for name in (DE, FR, US)
        }
        authorities = [writer.authority for writer in self.writers.values()]
        self.server = EtcdServer(directory / "etcd", tls=server_tls(directory, *authorities))
        self.directory = directory
        self.nodes: list[asyncio.subprocess.Process] = []

    def identity(self, writer: Writer, path: str) -> Path:
        """A directory with an identity and what it needs to trust."""
        home = self.directory / f"{writer.trust_domain}{path.replace('/', '-')}"
        home.mkdir()
        save_svid(home, writer.authority.svid(path, DAY_S))
        (home / "root.der").write_bytes(writer.authority.bundle.roots[0])
        (home / "etcd.pem").write_bytes((self.directory / "etcd.pem").read_bytes())
        return home

    async def start(self, stack: AsyncExitStack) -> HeadsKeeper:
        """Publishes everything; returns what publishes for DE."""
        await stack.enter_async_context(self.server)
        bundles = [writer.authority.bundle for writer in self.writers.values()]
        keepers: dict[str, HeadsKeeper] = {}
        for name, writer in self.writers.items():
            home = self.identity(writer, "/control/main")
            store = open_store(board_settings(self.server.endpoint, home))
            stack.push_async_callback(store.aclose)
            board: Board = await stack.enter_async_context(
                running_board(store, writer.authority.bundle, time.time)
            )
            keeper = keepers[name] = HeadsKeeper(
                board, name, lambda writer=writer: writer.signer, time.time, max_age_s=3600
            )
            await keeper.publish(*writer.federation(*(b for b in bundles if b.trust_domain != name)))
            await keeper.publish(*writer.policy(ADMITS.format(number=0)))
            await keeper.publish(*writer.facts("a"))
            await board.publish(writer.node_signer("a"), *writer.record("a"), DAY_S)
        for writer in self.writers.values():
            self.nodes.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "bench.bench_propagation", "--node"),
                    *(self.server.endpoint, str(self.identity(writer, "/node/a"))),
                    stdout=asyncio.subprocess.PIPE,
                )
            )
            stack.push_async_callback(self.end, self.nodes[-1])
        await self.decided(1, True)
        return keepers[DE]

    async def decided(self, generation: int, permitted: bool) -> list[float]:
        """When each node first decided so, by the monotonic clock."""

        async def one(process: asyncio.subprocess.Process) -> float:
            assert process.stdout is not None
            while True:
                line = await process.stdout.readline()
                if not line:
                    raise RuntimeError("a node ended by itself")
                found, verdict, at = json.loads(line)
                if (found, verdict) == (generation, permitted):
                    return float(at)

        async with asyncio.timeout(DEADLINE_S):
            return list(await asyncio.gather(*(one(process) for process in self.nodes)))

    async def end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def measure(changes: int) -> list[Row]:
    """All rows; about a second for every 20 changes."""
    last: list[float] = []
    first: list[float] = []
    acknowledged: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            mesh = Mesh(Path(directory))
            keeper = await mesh.start(stack)
            for number in range(1, changes + 1):
                permitted = number % 2 == 0
                text = (ADMITS if permitted else WITHDRAWS).format(number=number)
                began = time.monotonic()
                generation = await keeper.publish(*mesh.writers[DE].policy(text))
                acknowledged.append(time.monotonic() - began)
                reached = await mesh.decided(generation, permitted)
                first.append(min(reached) - began)
                last.append(max(reached) - began)
    return [
        Row(f"policy change to the last of 3 nodes, p50 of {changes}", percentile(last, 0.5) * 1e3, "ms"),
        Row(
            f"policy change to the last of 3 nodes, p99 of {changes}", percentile(last, 0.99) * 1e3, "ms", 250
        ),
        Row("policy change to the last of 3 nodes, worst", max(last) * 1e3, "ms"),
        Row("policy change to the first of 3 nodes, p50", percentile(first, 0.5) * 1e3, "ms"),
        Row("policy and heads acknowledged by etcd, p50", percentile(acknowledged, 0.5) * 1e3, "ms"),
    ]


def main() -> int:
    """The benchmark, or one of its nodes."""
    if sys.argv[1:2] == ["--node"]:
        asyncio.run(node(sys.argv[2], Path(sys.argv[3])))
        return 0
    return command(__doc__, lambda quick: asyncio.run(measure(20 if quick else 500)))


if __name__ == "__main__":
    sys.exit(main())
