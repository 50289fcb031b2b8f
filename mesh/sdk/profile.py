"""A profile: the directory that tells a client or an administrator who it is and whom to ask.

It holds profile.yaml, described by `Profile`, and usually the identity beside it (key, certificate
chain and trust bundles, as mesh/identity lays them out). It knows endpoints and names; it opens no
connection and reads no key.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import Field, field_validator

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId, node_id
from mesh.settings import Settings, TraceSettings, load_settings

FILE_NAME = "profile.yaml"
ENVIRONMENT = "MESHCTL_PROFILE"


class ControlPlane(Settings):
    """How to reach the authority's control plane."""

    # Last segment of its SPIFFE id, /control/<name>
    name: str = "main"
    # host:port with mutual TLS: Admin, Placement, renewal
    endpoint: str
    # host:port where only the server proves itself: enrolment with a join token
    enrolment: str = ""

    @field_validator("endpoint", "enrolment")
    @classmethod
    def _host_and_port(cls, text: str) -> str:
        return check_endpoint(text) if text else text


class Profile(Settings):
    """The contents of profile.yaml. Paths in it are relative to its directory."""

    # Home authority, such as de.mesh.example
    trust_domain: str
    # Directory of key, certificates and trust bundles
    identity: Path = Path("identity")
    control: ControlPlane | None = None
    # Nodes of the home authority, name to host:port: they are asked first where a request may go
    nodes: dict[str, str] = Field(default_factory=dict)
    # Where spans of what this client asks for go; see docs/observability.md
    traces: TraceSettings | None = None

    @field_validator("trust_domain")
    @classmethod
    def _trust_domain(cls, text: str) -> str:
        try:
            return SpiffeId(text, "/authority").trust_domain
        except MeshError as error:
            raise ValueError(error.message) from None

    @field_validator("nodes")
    @classmethod
    def _nodes(cls, nodes: dict[str, str]) -> dict[str, str]:
        for name, endpoint in nodes.items():
            try:
                node_id("x.example", name)
            except MeshError as error:
                raise ValueError(error.message) from None
            check_endpoint(endpoint)
        return nodes

    @classmethod
    def load(cls, directory: Path) -> Profile:
        """Reads DIRECTORY/profile.yaml; raises CONFIG_INVALID. The identity path comes back absolute."""
        profile = load_settings(cls, directory / FILE_NAME, {}, {})
        traces = profile.traces
        if traces is not None and traces.ca is not None:
            traces = traces.model_copy(update={"ca": (directory / traces.ca).absolute()})
        identity = (directory / profile.identity).absolute()
        return profile.model_copy(update={"identity": identity, "traces": traces})

    def save(self, directory: Path) -> Path:
        """Writes DIRECTORY/profile.yaml (directory mode 0700); returns the file's path."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / FILE_NAME
        text = yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)
        scratch = path.with_suffix(".new")
        scratch.write_text("# Who this is and whom to ask; see `meshctl --help`.\n" + text)
        os.replace(scratch, path)
        return path

    @property
    def control_id(self) -> SpiffeId:
        """SPIFFE id of the control plane; raises CONFIG_INVALID if the profile names none."""
        return SpiffeId(self.trust_domain, f"/control/{self.require_control().name}")

    def require_control(self) -> ControlPlane:
        """The control plane; raises CONFIG_INVALID if the profile names none."""
        if self.control is None:
            raise MeshError(Reason.CONFIG_INVALID, "profile.yaml: control: missing")
        return self.control


def check_endpoint(text: str) -> str:
    """Returns host:port unchanged; raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("expected host:port")
    return text
