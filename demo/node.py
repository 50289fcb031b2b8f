"""One node of the demo mesh: its directory, its configuration, and what it wrote down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.authority import Authority
from demo.model import DemoModel
from mesh.core.types import SpiffeId, node_id
from mesh.evidence.offline import read_entries
from mesh.identity.names import dns_name_of
from mesh.ports import free_ports

# Short, so that one can be watched expiring.
PERMIT_TTL_S = 10.0


@dataclass(frozen=True)
class DemoNode:
    """Where everything of one node lies."""

    authority: Authority
    name: str
    directory: Path
    port: int

    @classmethod
    def plan(cls, authority: Authority, name: str, directory: Path) -> DemoNode:
        """Chooses its port."""
        directory.mkdir(parents=True, mode=0o700)
        return cls(authority, name, directory, free_ports(1)[0])

    @property
    def id(self) -> SpiffeId:
        """Its SPIFFE id."""
        return node_id(self.authority.trust_domain, self.name)

    @property
    def endpoint(self) -> str:
        """host:port of its gateway."""
        return f"127.0.0.1:{self.port}"

    @property
    def identity(self) -> Path:
        """Key, certificate and trust bundles."""
        return self.directory / "identity"

    @property
    def config(self) -> Path:
        """For mesh-node."""
        return self.directory / "mesh-node.yaml"

    @property
    def log(self) -> Path:
        """Where mesh-node's log goes."""
        return self.directory / "mesh-node.log"

    def write_config(self, board: dict[str, object], model: DemoModel, *, scripted: bool) -> None:
        """Writes mesh-node.yaml. A scripted engine goes by the model's name and speaks made-up words."""
        answers = "read" if model.reads and not scripted else "extract"
        # Made once for all nodes and runs.
        shared = self.directory.parents[1].with_name("embedder")
        engine: dict[str, object] = {"model_name": model.name, "context_tokens": 1024, "capacity": 16}
        engine |= {"kind": "scripted"} if scripted else {"kind": "ray_vllm", "model": str(model.path)}
        self.config.write_text(
            yaml.safe_dump(
                {
                    "listen": [self.endpoint],
                    "state_directory": "state",
                    "identity": {
                        "directory": "identity",
                        "renew_at": self.authority.control,
                        "renew_name": dns_name_of(SpiffeId(self.authority.trust_domain, "/control/main")),
                    },
                    "board": board,
                    "engine": engine,
                    "retrieval": {"embedder_directory": str(shared), "answers": answers},
                    "placement": {"permit_ttl_s": PERMIT_TTL_S},
                    "log": {"format": "json"},
                }
            )
        )

    def decisions(self) -> list[dict[str, Any]]:
        """Its decision log, oldest first."""
        return [json.loads(entry) for entry in read_entries(self.directory / "state/evidence/decisions")]

    def written(self) -> str:
        """Everything that the node wrote to disk as text: logs and decisions."""
        texts = [
            p.read_text(errors="replace")
            for p in self.directory.rglob("*")
            if p.suffix in (".log", ".out", ".err") or ("evidence" in p.parts and p.is_file())
        ]
        return "\n".join(texts)
