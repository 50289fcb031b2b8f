"""A federation on the hosts of a lab: etcd, a control plane for each authority, nodes, clients, all of them
processes of their own with the addresses and ports that operators would use.

    with federation_of(tmp_path, Plan({"DE": ("fra-1", "ber-1"), "FR": ("par-1",)})) as mesh:
        mesh.clinic.ask("chat", profile=mesh.profile, classes=["confidential"], prompt="...")

Everything is set up by meshctl from the host "office", as an administrator would: authorities, trust, nodes,
clients. The calls come from the host "clinic", a German client's. Policies are those of examples/policies. On
etcd there is TLS with client certificates; nobody on these hosts speaks in plain text.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mesh.core.retrieval import CollectionSpec
from mesh.core.types import DataClass, SpiffeId
from mesh.identity.board_certificate import make_board_certificate
from mesh.identity.ca import MAX_TTL_S, CertificateAuthority
from mesh.identity.keys import key_to_pem, make_key_and_csr
from mesh.identity.leaf import chain_to_pem
from mesh.identity.names import dns_name_of
from mesh.sdk.profile import Profile
from mesh.store.etcd_server import find_etcd
from node.index.documents import DocumentMeta
from node.index.library import Library
from node.index.stored import NewChunk
from node.index.stores import StoreSettings
from tests.support.hosts.calls import Caller
from tests.support.hosts.lab import ROOT, Lab, lab_of
from tests.support.hosts.node import DIMENSIONS, EMBEDDER

MESH_PORT, ENROLMENT_PORT, ETCD_PORT, ETCD_PEER_PORT = 7443, 7444, 2379, 2380
ETCD_NAME = "board.mesh.example"
COLLECTION = "guides"
START_S = 60.0


@dataclass(frozen=True)
class Plan:
    """Who takes part: for each country the names of its nodes. Times in seconds."""

    nodes: Mapping[str, Sequence[str]]
    witnesses: int = 0
    heads_interval_s: float = 1.0
    heads_max_age_s: float = 60.0
    lease_s: float = 2.0
    documents: bool = False

    @property
    def hosts(self) -> list[str]:
        controls = [control_host(country) for country in self.nodes]
        return ["etcd", *controls, *self.names, "office", "clinic"]

    @property
    def names(self) -> list[str]:
        return [name for names in self.nodes.values() for name in names]


def control_host(country: str) -> str:
    return f"control-{country.lower()}"


@dataclass
class Federation:
    """A running one. Use `federation_of`."""

    lab: Lab
    folder: Path
    plan: Plan
    processes: dict[str, subprocess.Popen[Any]] = field(default_factory=dict)
    office: Caller = field(init=False)
    clinic: Caller = field(init=False)

    # --- where things are ------------------------------------------------------------------------

    def domain(self, country: str) -> str:
        return f"{country.lower()}.mesh.example"

    def authority(self, country: str) -> Path:
        return self.folder / country.lower()

    @property
    def profile(self) -> str:
        """Of the German client."""
        return str(self.folder / "clinic")

    def at(self, host: str, port: int = MESH_PORT) -> str:
        return f"{self.lab.addresses[host]}:{port}"

    def country(self, node: str) -> str:
        return next(country for country, names in self.plan.nodes.items() if node in names)

    # --- what administrators do ------------------------------------------------------------------

    def meshctl(self, *words: str, country: str | None = None) -> dict[str, Any]:
        """Runs it on the host "office"; its JSON. AssertionError if it says no."""
        profile = ["--profile", str(self.authority(country) / "admin")] if country else []
        done = self.office.ask("meshctl", words=[*words, *profile])
        assert done["code"] == 0, done["err"]
        return dict(done["out"])

    def statuses(self, country: str = "DE") -> dict[str, dict[str, Any]]:
        """What an authority knows of the nodes that are there and have said how they are."""
        views = self.meshctl("node", "list", country=country)["nodes"]
        return {v["node"].rsplit("/", 1)[-1]: v["status"] for v in views if v.get("status")}

    def until(self, condition: Callable[[], object], deadline_s: float = START_S) -> float:
        """Asks again and again, since what others know has no event here; seconds that it took."""
        begun = time.monotonic()
        while not condition():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} has ended by itself; see its log in {self.folder}"
            if time.monotonic() - begun > deadline_s:
                raise TimeoutError(f"not so after {deadline_s:g} s")
            time.sleep(0.1)
        return time.monotonic() - begun

    # --- bringing it up --------------------------------------------------------------------------

    def bring_up(self) -> None:
        agent = [sys.executable, "-m", "tests.support.hosts.agent"]
        office, clinic = (
            self.lab.talk(host, agent, self.folder / f"{host}.log") for host in ("office", "clinic")
        )
        self.office = Caller(office)
        for country in self.plan.nodes:
            self.meshctl(
                "authority", "init", str(self.authority(country)), "--trust-domain", self.domain(country),
                "--control", self.at(control_host(country)),
                "--enrolment", self.at(control_host(country), ENROLMENT_PORT),
            )  # fmt: skip
        self._start_etcd()
        for country in self.plan.nodes:
            self._start_control(country)
        for country in self.plan.nodes:
            self._until_it_answers(country)
            for other in self.plan.nodes:
                if other != country:
                    bundle = str(self.authority(other) / "bundle.json")
                    self._patiently("trust", "import", bundle, country=country)
            if self.plan.documents:
                digest = asyncio.run(EMBEDDER.digest())
                self._patiently(
                    "collection", "apply", "--name", COLLECTION, "--embedder", EMBEDDER.name,
                    "--embedder-digest", digest, "--dimensions", str(DIMENSIONS), country=country,
                )  # fmt: skip
        for name in self.plan.names:
            self._enrol(name)
            self.start_node(name)
        self.meshctl("client", "issue", "desk", "--tenant", "clinic-a", "--out", self.profile, country="DE")
        home = {name: self.at(name) for name in self.plan.nodes["DE"]}
        client = Profile.load(Path(self.profile)).model_copy(
            update={"nodes": home, "identity": Path("identity")}
        )
        client.save(Path(self.profile))
        self.clinic = Caller(clinic)
        self.until_ready()

    def until_ready(self) -> None:
        """Waits until every authority has every node as ready, with its documents."""
        for country in self.plan.nodes:
            self.until(lambda country=country: self._ready(country))

    def _ready(self, country: str) -> bool:
        statuses = self.statuses(country)
        if not all(statuses.get(name, {}).get("ready") for name in self.plan.names):
            return False
        if not self.plan.documents:
            return True
        views = self.meshctl("collection", "list", country=country)["collections"]
        held = {node.rsplit("/", 1)[-1] for view in views for node in view["nodes"]}
        return held >= set(self.plan.names)

    def _until_it_answers(self, country: str) -> None:
        profile = str(self.authority(country) / "admin")
        self.until(lambda: self.office.ask("meshctl", words=["status", "--profile", profile])["code"] == 0)

    def _patiently(self, *words: str, country: str) -> None:
        """For what needs the board, to which a control plane may not be connected yet."""
        profile = ["--profile", str(self.authority(country) / "admin")]
        self.until(lambda: self.office.ask("meshctl", words=[*words, *profile])["code"] == 0)

    def _start_etcd(self) -> None:
        folder = self.folder / "etcd"
        folder.mkdir(mode=0o700)
        certificate, key = make_board_certificate(ETCD_NAME, time.time())
        (folder / "etcd.pem").write_bytes(certificate)
        (folder / "etcd.key").write_bytes(key)
        roots = b""
        for country in self.plan.nodes:
            ca = CertificateAuthority.load(self.authority(country) / "ca")
            roots += chain_to_pem(ca.bundle.roots)
            own, csr = make_key_and_csr()
            chain = ca.issue(csr, SpiffeId(ca.trust_domain, "/control/main"), MAX_TTL_S, time.time())
            (self.authority(country) / "board.pem").write_bytes(chain_to_pem(chain))
            (self.authority(country) / "board.key").write_bytes(key_to_pem(own))
        (folder / "roots.pem").write_bytes(roots)
        clients, peers = f"https://{self.at('etcd', ETCD_PORT)}", f"http://{self.at('etcd', ETCD_PEER_PORT)}"
        command = [
            str(find_etcd()), "--name=etcd", f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=etcd={peers}", "--enable-grpc-gateway=false", "--logger=zap",
            "--log-level=warn", "--unsafe-no-fsync", "--heartbeat-interval=50", "--election-timeout=500",
            "--client-cert-auth", f"--trusted-ca-file={folder / 'roots.pem'}",
            f"--cert-file={folder / 'etcd.pem'}", f"--key-file={folder / 'etcd.key'}",
        ]  # fmt: skip
        self.processes["etcd"] = self.lab.start("etcd", command, self.folder / "etcd.log")

    def _board(self, identity: Path) -> dict[str, object]:
        return {
            "endpoints": [self.at("etcd", ETCD_PORT)],
            "ca": str(self.folder / "etcd" / "etcd.pem"),
            "certificate": str(identity.with_suffix(".pem")),
            "key": str(identity.with_suffix(".key")),
            "server_name": ETCD_NAME,
        }

    def _start_control(self, country: str) -> None:
        folder, host = self.authority(country), control_host(country)
        settings = {
            "authority_directory": "ca",
            "state_directory": "state",
            "listen": [self.at(host)],
            "enrolment": {"listen": [self.at(host, ENROLMENT_PORT)]},
            "board": self._board(folder / "board"),
            "heads": {"interval_s": self.plan.heads_interval_s, "max_age_s": self.plan.heads_max_age_s},
            "bootstrap": {"policy": str(ROOT / "examples" / "policies" / f"{country.lower()}.cedar")},
            "log": {"format": "json"},
        }
        config = folder / "mesh-control.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "control.daemon", "--config", str(config)]
        self.processes[host] = self.lab.start(host, command, self.folder / f"{host}.log")

    # --- nodes -----------------------------------------------------------------------------------

    def _enrol(self, name: str) -> None:
        country, folder = self.country(name), self.folder / name
        folder.mkdir(mode=0o700)
        control = control_host(country)
        facts = ("--location", country, "--operator", country, "--controller", country)
        token = self.meshctl("node", "token", name, *facts, "--admin-access", country, country=country)
        self.meshctl(
            "node", "enroll", "--token", token["token"], "--control", self.at(control, ENROLMENT_PORT),
            "--trust-bundle", str(self.authority(country) / "bundle.json"), "--out", str(folder / "identity"),
        )  # fmt: skip
        if self.plan.documents:
            asyncio.run(_take_in(folder / "state" / "retrieval" / "indexes", name))
        self.configure(name, self.plan.witnesses)

    def configure(self, name: str, witnesses: int) -> None:
        """Writes the node's configuration; in force from its next start."""
        control = SpiffeId(self.domain(self.country(name)), "/control/main")
        settings = {
            "listen": [self.at(name)],
            "state_directory": "state",
            "identity": {
                "directory": "identity",
                "renew_at": self.at(control_host(self.country(name))),
                "renew_name": dns_name_of(control),
            },
            "board": self._board(self.folder / name / "identity" / "svid"),
            "engine": {"kind": "scripted"},
            "status": {"heartbeat_s": 0.5, "lease_s": self.plan.lease_s},
            "evidence": {"witnesses": witnesses},
            "retrieval": {"store": {"kind": "memory"}} if self.plan.documents else {"enabled": False},
            "log": {"format": "json"},
        }
        (self.folder / name / "mesh-node.yaml").write_text(yaml.safe_dump(settings))

    def start_node(self, name: str) -> None:
        config = str(self.folder / name / "mesh-node.yaml")
        command = [sys.executable, "-m", "tests.support.hosts.node", "--config", config]
        self.processes[name] = self.lab.start(name, command, self.folder / f"{name}.log")

    def end_node(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends a node's daemon, by default so that it says goodbye to nobody."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(START_S)


async def _take_in(folder: Path, name: str) -> None:
    """One document of every class, in words that only this node's have."""
    spec = CollectionSpec(COLLECTION, EMBEDDER.name, await EMBEDDER.digest(), DIMENSIONS)
    library = Library(folder, lambda: {COLLECTION: spec}, EMBEDDER, StoreSettings(kind="memory"), time.time)
    try:
        index = await library.create(COLLECTION)
        for kind in ("public", "internal", "confidential"):
            text = f"The pump of {name} is in the {kind} cellar behind the copper valve."
            meta = DocumentMeta(
                id=f"{name}-{kind}", title=f"Pump of {name}", classes=frozenset({DataClass(kind)})
            )
            (vector,) = await EMBEDDER.embed([text])
            index.put(meta, "sha256:" + hashlib.sha256(text.encode()).hexdigest(), [NewChunk(text, vector)])
    finally:
        library.close()


@contextlib.contextmanager
def federation_of(folder: Path, plan: Plan) -> Iterator[Federation]:
    """A federation, ready; everything is ended afterwards, also if it did not come up."""
    with lab_of(folder, *plan.hosts) as lab:
        mesh = Federation(lab, folder, plan)
        mesh.bring_up()
        yield mesh
