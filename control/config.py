"""The settings of `mesh-control`, one YAML file. examples/config/mesh-control.yaml comments each of them.

Unknown and contradictory settings are CONFIG_INVALID and named (mesh/settings.py). Relative paths are
taken from the file's folder. Nothing here opens a file or a socket, save the configuration itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from mesh.core.errors import MeshError
from mesh.core.types import SpiffeId
from mesh.settings import (
    Address,
    LogSettings,
    PlacementSettings,
    Settings,
    TelemetrySettings,
    load_settings,
)
from mesh.store.configured import BOARD_SECRETS, BoardSettings

# The gap between two heads that a node must be able to miss without calling the authority stale.
MISSED_HEADS = 2


class EnrolmentSettings(Settings):
    """Where machines without a certificate bring their join tokens."""

    listen: list[Address] = Field(min_length=1, max_length=8)
    """Here only the server proves itself. Not one of the addresses of `listen`."""
    per_minute: int = Field(default=60, ge=1, le=10_000)
    """More enrolments are refused with a hint when to try again."""


class HeadsSettings(Settings):
    """How often the authority says which of its records are current, and how long that holds."""

    interval_s: Annotated[float, Field(ge=0.2, le=3600)] = 5.0
    """How often the authority says which of its records are current, in seconds."""
    max_age_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """Nodes stop using its records across borders once its last word is older, in seconds; at least three
    intervals."""

    @model_validator(mode="after")
    def _ordered(self) -> HeadsSettings:
        if self.max_age_s < (MISSED_HEADS + 1) * self.interval_s:
            raise ValueError(
                f"max_age_s must be at least {MISSED_HEADS + 1} times interval_s, "
                "or one late record stops what crosses borders"
            )
        return self


class CertificateSettings(Settings):
    """How long certificates hold. They are renewed when half of it is over."""

    ttl_hours: Annotated[float, Field(gt=0.001, le=24)] = 24.0
    """They are renewed at half of it."""


class BootstrapSettings(Settings):
    """What to publish where there is nothing yet. Ignored afterwards."""

    policy: Path | None = None
    """A Cedar file, published at the first start if no policy is in force yet. Without a policy nothing is
    permitted."""


class ControlSettings(Settings):
    """The whole file."""

    name: str = "main"
    """Its name in the mesh, `spiffe://<trust domain>/control/<name>`."""
    authority_directory: Path
    """Root key and record-signing key, made by `meshctl authority init` or `adopt`. Mode 0700, and backed up:
    whoever reads it is the authority."""
    state_directory: Path
    """Verified records, hashed join tokens, the logs of decisions and of administrators' actions."""
    listen: list[Address] = Field(min_length=1, max_length=8)
    """Admin, Placement and renewal, over mutual TLS."""
    enrolment: EnrolmentSettings
    """Where machines without a certificate bring a join token."""
    board: BoardSettings
    """etcd, where signed records are exchanged."""
    heads: HeadsSettings = HeadsSettings()
    """The authority's word on which of its records are current."""
    certificates: CertificateSettings = CertificateSettings()
    """How long certificates hold."""
    bootstrap: BootstrapSettings = BootstrapSettings()
    """What to publish where there is nothing yet."""
    placement: PlacementSettings = PlacementSettings()
    """How it places requests."""
    log: LogSettings = LogSettings()
    """What it writes to standard error."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """What it shows of itself."""

    @field_validator("name")
    @classmethod
    def _name(cls, text: str) -> str:
        try:
            SpiffeId("x.example", f"/control/{text}")
        except MeshError:
            raise ValueError('expected 1 to 63 of a-z, 0-9 and "-"') from None
        return text

    @model_validator(mode="after")
    def _apart(self) -> ControlSettings:
        shared = {a for a in self.listen if not a.endswith(":0")} & set(self.enrolment.listen)
        if shared:
            raise ValueError(
                "listen and enrolment.listen must differ: enrolment takes callers without a certificate"
            )
        if self.authority_directory == self.state_directory:
            raise ValueError(
                "state_directory must not be authority_directory: that one holds the root key only"
            )
        return self


def load_config(path: Path, environment: Mapping[str, str]) -> ControlSettings:
    """Reads the file; CONFIG_INVALID names every setting that is wrong."""
    settings = load_settings(ControlSettings, path, environment, BOARD_SECRETS)
    folder = path.resolve().parent

    policy = settings.bootstrap.policy
    return settings.model_copy(
        update={
            "authority_directory": folder / settings.authority_directory,
            "state_directory": folder / settings.state_directory,
            "board": settings.board.beside(folder),
            "telemetry": settings.telemetry.beside(folder),
            "bootstrap": BootstrapSettings(policy=folder / policy if policy is not None else None),
        }
    )
