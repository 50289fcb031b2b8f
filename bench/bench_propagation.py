"""How soon a policy change is enforced: from the authority's word to the last of three nodes.

    python -m bench.bench_propagation [--quick] [--json FILE]

One etcd with TLS and fsync, and one process for each of three nodes, of three authorities, with a board
and a placer; the nodes tell their status every second, as they would. The German authority withdraws a
French node and admits it again, in turn. The time runs from before the policy is signed until the last
node's own decision about a German request to that node (mesh/core/placement.py, judge_here) has changed.
Clocks are the machine's monotonic one, which its processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Row:
    """One figure; `reach` is what it should be at most, None where it is only stated."""

    what: str
    value: float
    unit: str
    reach: float | None = None

    @property
    def reached(self) -> str:
        if self.reach is None:
            return ""
        return "yes" if self.value <= self.reach else "NO"


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


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few changes: to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--node", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.node:
        asyncio.run(node(arguments.node[0], Path(arguments.node[1])))
        return 0
    rows = asyncio.run(measure(20 if arguments.quick else 500))
    for row in rows:
        reach = f"reach {row.reach:g}" if row.reach is not None else ""
        print(f"{row.what:52} {row.value:9.2f} {row.unit:12} {reach:10} {row.reached:4}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
