"""A whole mesh on one machine, of real parts: authorities, etcd, control planes, nodes, clients.

Everything is set up through `meshctl`, as an administrator would, and every daemon is a process of its
own. The world knows how to break things (kill, restart, withdraw) and how to end all of them; what the
story expects of that is in demo/story.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control.cli.main import run as run_meshctl
from demo.authority import Authority
from demo.board import Board
from demo.model import DemoModel
from demo.node import DemoNode
from demo.processes import Ledger, MemoryGauge
from mesh.client import MeshClient
from mesh.identity.svid import load_svid
from mesh.sdk.profile import Profile

COUNTRIES = ("DE", "FR", "US")
NODE_NAMES = {"DE": "fra-1", "FR": "par-1", "US": "iad-1"}
# Who calls: name -> country, and the tenant and application of its SPIFFE id.
CLIENTS = {
    "clinic": ("DE", "clinic-a", "desk"),
    "firm": ("DE", "firm-b", "drafts"),
    "contractor": ("DE", "firm-b", "contractor"),
    "bank": ("FR", "bank-c", "desk"),
    "coast": ("US", "coast-d", "desk"),
}
CONTROL_READY_S = 60.0
NODE_READY_S = 420.0
RECORD_ARRIVES_S = 10.0

Progress = Callable[[str], None]


class World:
    """The mesh of the demo. Use `async with World.open(...)`."""

    def __init__(self, root: Path, model: DemoModel, *, keep: bool, progress: Progress) -> None:
        self.root = root
        self.model = model
        self.progress = progress
        self.keep = keep
        self.authorities = {country: Authority.plan(country, root) for country in COUNTRIES}
        self.ledger = Ledger(root / "processes.json", keep)
        self.board = Board(root / "board", self.ledger, keep)
        self.nodes: dict[str, DemoNode] = {}
        self.profiles: dict[str, Path] = {}
        self.memory = MemoryGauge(self.ledger.family)

    @property
    def model_name(self) -> str:
        """What callers call the model."""
        return self.model.name

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        root: Path,
        model: DemoModel,
        *,
        keep: bool = False,
        progress: Progress = lambda _: None,
    ) -> AsyncIterator[World]:
        """Brings the mesh up, and down again whatever happens (unless it is kept and came up)."""
        end_leftovers(root)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True, mode=0o700)
        world = cls(root, model, keep=keep, progress=progress)
        came_up = False
        try:
            with world.memory:
                await world._bring_up()
                came_up = True
                yield world
        finally:
            if not (keep and came_up):
                await asyncio.to_thread(world.end)

    def end(self) -> None:
        """Ends every process of this world."""
        self.ledger.end_all()

    # --- bringing it up --------------------------------------------------------------------------

    async def _bring_up(self) -> None:
        self.progress("founding three authorities")
        for authority in self.authorities.values():
            await self.meshctl(
                "authority", "init", str(authority.directory), "--trust-domain", authority.trust_domain,
                "--control", authority.control, "--enrolment", authority.enrolment,
            )  # fmt: skip
        self.progress("starting etcd")
        await self.board.start(list(self.authorities.values()))
        for authority in self.authorities.values():
            authority.write_config(self.board.settings(authority))
            command = [sys.executable, "-m", "control.daemon", "--config", str(authority.config)]
            self.ledger.spawn(f"control-{authority.country}", command, authority.log)
        for authority in self.authorities.values():
            self.progress(f"waiting for the control plane of {authority.country}")
            await self._until_answers(authority)
        self.progress("exchanging trust bundles")
        for authority in self.authorities.values():
            for other in self.authorities.values():
                if other is not authority:
                    await self.meshctl("trust", "import", str(other.bundle), profile=authority.admin)
        for country, name in NODE_NAMES.items():
            self.progress(f"node {name} joins {country} and starts its engine")
            node = await self.add_node(country, name)
            self.start_node(node)
        for name, (country, tenant, application) in CLIENTS.items():
            await self.add_client(name, country, tenant, application)
        started = time.monotonic()
        while waiting := [n for n in NODE_NAMES.values() if not await self.is_ready(n)]:
            elapsed = time.monotonic() - started
            self.progress(f"Ray and vLLM start on {', '.join(waiting)} ({elapsed:.0f} s, of 30 to 120)")
            self._check_alive()
            if elapsed > NODE_READY_S:
                raise TimeoutError(
                    f"not ready after {NODE_READY_S:.0f} s: {', '.join(waiting)}; see {self.root}"
                )
            await asyncio.sleep(1)

    async def _until_answers(self, authority: Authority) -> None:
        deadline = time.monotonic() + CONTROL_READY_S
        while True:
            try:
                await self.meshctl("status", profile=authority.admin)
                return
            except CommandFailed as error:
                self._check_alive()
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"mesh-control of {authority.country}: {error}; see {authority.log}"
                    ) from None
                await asyncio.sleep(0.2)

    def _check_alive(self) -> None:
        for name in self.ledger.dead():
            raise RuntimeError(f"{name} ended by itself; see its log in {self.root}")

    # --- nodes and clients -------------------------------------------------------------------------

    async def add_node(
        self, country: str, name: str, *, controller: str | None = None, scripted: bool = False
    ) -> DemoNode:
        """Lets a node of this authority join: token, enrolment, configuration."""
        authority = self.authorities[country]
        token = await self.meshctl(
            "node", "token", name, "--location", country, "--operator", country,
            "--controller", controller or country, "--admin-access", country, profile=authority.admin,
        )  # fmt: skip
        node = DemoNode.plan(authority, name, self.root / "nodes" / name)
        await self.meshctl(
            "node", "enroll", "--token", token["token"], "--control", authority.enrolment,
            "--trust-bundle", str(authority.bundle), "--out", str(node.identity),
        )  # fmt: skip
        node.write_config(self.board.settings(authority, node.identity), self.model, scripted=scripted)
        self.nodes[name] = node
        return node

    def start_node(self, node: DemoNode) -> None:
        """Starts, or starts again, the daemon of a node."""
        command = [sys.executable, "-m", "node.daemon", "--config", str(node.config)]
        self.ledger.spawn(f"node-{node.name}", command, node.log)

    def kill_node(self, name: str) -> None:
        """SIGKILL for the node's daemon: it says goodbye to nobody."""
        self.ledger.signal(f"node-{name}", signal.SIGKILL)

    async def stop_node(self, name: str) -> None:
        """SIGTERM: the node drains and ends."""
        self.ledger.signal(f"node-{name}", signal.SIGTERM)
        await asyncio.to_thread(self.ledger.wait_gone, f"node-{name}", 40.0)

    def renew_node(self, name: str) -> None:
        """SIGHUP: the node renews its certificate now rather than at half life."""
        self.ledger.signal(f"node-{name}", signal.SIGHUP)

    def node_serial(self, name: str) -> str:
        """Serial number of the node's certificate on disk."""
        return load_svid(self.nodes[name].identity).serial

    async def add_client(self, name: str, country: str, tenant: str, application: str) -> None:
        """Issues a client of this authority, with a profile that asks the home node first."""
        authority = self.authorities[country]
        out = self.root / "clients" / name
        await self.meshctl(
            "client", "issue", application, "--tenant", tenant, "--out", str(out), profile=authority.admin
        )
        homes = {n.name: n.endpoint for n in self.nodes.values() if n.authority is authority}
        Profile.load(out).model_copy(update={"nodes": homes, "identity": Path("identity")}).save(out)
        self.profiles[name] = out

    def client(self, name: str) -> MeshClient:
        """A new SDK client of this name."""
        return MeshClient.from_profile(self.profiles[name])

    async def views(self, country: str = "DE") -> dict[str, dict[str, Any]]:
        """What one authority knows of every node, by name."""
        answer = await self.meshctl("node", "list", profile=self.authorities[country].admin)
        return {view["node"].rsplit("/", 1)[-1]: view for view in answer["nodes"]}

    async def is_ready(self, name: str, since: float = 0.0) -> bool:
        """Whether the DE authority has heard, since then (Unix seconds), that the node is ready."""
        try:
            view = (await self.views()).get(name)
        except CommandFailed:
            return False
        status = view.get("status") if view else None
        return bool(view and status and status["ready"] and view["status_at_ms"] / 1000 > since)

    async def until_ready(self, name: str, timeout_s: float = 120.0) -> float:
        """Waits until a node says, from now on, that it is ready; seconds that it took."""
        started, since = time.monotonic(), time.time()
        while not await self.is_ready(name, since):
            self._check_alive()
            if time.monotonic() - started > timeout_s:
                raise TimeoutError(f"{name} is not ready after {timeout_s:.0f} s; see {self.nodes[name].log}")
            await asyncio.sleep(0.2)
        return time.monotonic() - started

    # --- documents ---------------------------------------------------------------------------------

    async def make_index(self, country: str, collection: str) -> None:
        """Defines the collection in a country and makes an empty index for it on the country's node."""
        admin = self.authorities[country].admin
        await self.meshctl("collection", "apply", "--name", collection, profile=admin)
        deadline = time.monotonic() + RECORD_ARRIVES_S
        while True:
            try:
                await self.meshctl(
                    "index", "create", collection, "--node", NODE_NAMES[country], profile=admin
                )
                return
            except CommandFailed as error:
                # The node may be a moment behind the board.
                if "COLLECTION_UNKNOWN" not in str(error) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def holders(self, collection: str, count: int) -> set[str]:
        """SPIFFE ids of the nodes that hold the collection, as soon as every authority knows so many."""
        deadline = time.monotonic() + RECORD_ARRIVES_S
        while True:
            seen = []
            for authority in self.authorities.values():
                answer = await self.meshctl("collection", "list", profile=authority.admin)
                views = [c for c in answer["collections"] if c["collection"]["name"] == collection]
                seen.append({node for view in views for node in view["nodes"]})
            if all(len(nodes) >= count for nodes in seen) or time.monotonic() > deadline:
                return set.intersection(*seen)
            await asyncio.sleep(0.2)

    # --- meshctl -----------------------------------------------------------------------------------

    async def meshctl(self, *arguments: str, profile: Path | None = None) -> dict[str, Any]:
        """Runs meshctl in this process and returns its JSON; raises CommandFailed."""
        given = [*arguments, "--output", "json", *(("--profile", str(profile)) if profile else ())]
        code, out, err = await asyncio.to_thread(_captured, given)
        if code != 0:
            raise CommandFailed(code, err.strip())
        return dict(json.loads(out))

    async def meshctl_process(self, *arguments: str, profile: Path) -> tuple[int, str, str]:
        """Runs meshctl as a process of its own: exit code, standard output and standard error."""
        command = [sys.executable, "-m", "control.cli.main", *arguments, "--profile", str(profile)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode(), err.decode()


class CommandFailed(Exception):
    """meshctl said no; `code` is its exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"exit code {code}: {message}")
        self.code = code


def _captured(arguments: Sequence[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_meshctl(arguments)
    return code, out.getvalue(), err.getvalue()


def end_leftovers(root: Path) -> bool:
    """Ends a mesh that an earlier run left up; whether there was one."""
    ledger = root / "processes.json"
    if not ledger.exists():
        return False
    Ledger(ledger).end_all()
    return True
