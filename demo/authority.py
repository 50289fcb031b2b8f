"""One authority of the demo mesh: its directory, its control plane and its administrator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from mesh.ports import free_ports

MESH_DOMAIN = "mesh.example"
POLICIES = Path(__file__).resolve().parents[1] / "examples" / "policies"

# The demo's patience is short, so that what takes minutes in production can be watched.
HEADS_INTERVAL_S = 1.0
HEADS_MAX_AGE_S = 8.0


@dataclass(frozen=True)
class Authority:
    """Where everything of one authority lies."""

    country: str  # ISO 3166-1 alpha-2, upper case
    directory: Path
    control_port: int
    enrolment_port: int

    @classmethod
    def plan(cls, country: str, root: Path) -> Authority:
        """Chooses directory and ports."""
        control, enrolment = free_ports(2)
        return cls(country, root / country.lower(), control, enrolment)

    @property
    def trust_domain(self) -> str:
        """Such as de.mesh.example."""
        return f"{self.country.lower()}.{MESH_DOMAIN}"

    @property
    def control(self) -> str:
        """host:port of Admin, Placement and renewal."""
        return f"127.0.0.1:{self.control_port}"

    @property
    def enrolment(self) -> str:
        """host:port where join tokens are brought."""
        return f"127.0.0.1:{self.enrolment_port}"

    @property
    def admin(self) -> Path:
        """Profile of the first administrator."""
        return self.directory / "admin"

    @property
    def bundle(self) -> Path:
        """Its trust bundle, for the others."""
        return self.directory / "bundle.json"

    @property
    def policy(self) -> Path:
        """The example policies of this country."""
        return POLICIES / f"{self.country.lower()}.cedar"

    @property
    def config(self) -> Path:
        """For mesh-control."""
        return self.directory / "mesh-control.yaml"

    @property
    def log(self) -> Path:
        """Where mesh-control's log goes."""
        return self.directory / "mesh-control.log"

    def write_config(self, board: dict[str, object]) -> None:
        """Replaces the example configuration by the demo's."""
        self.config.write_text(
            yaml.safe_dump(
                {
                    "authority_directory": "ca",
                    "state_directory": "state",
                    "listen": [self.control],
                    "enrolment": {"listen": [self.enrolment]},
                    "board": board,
                    "heads": {"interval_s": HEADS_INTERVAL_S, "max_age_s": HEADS_MAX_AGE_S},
                    "bootstrap": {"policy": str(self.policy)},
                    "log": {"format": "json"},
                }
            )
        )
