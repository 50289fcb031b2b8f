"""The record store as a daemon's configuration file names it.

Shared by node/config.py and control/config.py. TLS files are read anew for every connection, so that a
renewed certificate is used without a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import grpc
from pydantic import Field, SecretStr, model_validator

from mesh.core.errors import MeshError, Reason
from mesh.settings import Address, Settings
from mesh.store.etcd import EtcdStore

# Environment variables that override settings of a file that has these as its `board`.
BOARD_SECRETS: Mapping[str, str] = {"SOVEREIGN_MESH_BOARD_PASSWORD": "board.password"}


class BoardSettings(Settings):
    """Where signed records are exchanged: etcd's endpoints, and TLS and a user for it."""

    endpoints: list[Address] = Field(min_length=1, max_length=9)
    """etcd's. It is not trusted: it can delay records, never forge one."""
    ca: Path | None = None
    """The authority that signed etcd's certificate. Left out: no TLS, which is for one machine only."""
    certificate: Path | None = None
    """What this daemon shows to etcd."""
    key: Path | None = None
    """Of `certificate`."""
    server_name: str = ""
    """The name in etcd's certificate, where it differs from the address."""
    user: str = ""
    """Of etcd's own users, where it has some."""
    password: SecretStr = SecretStr("")
    """Of `user`. Better given as `SOVEREIGN_MESH_BOARD_PASSWORD` in the environment."""

    @model_validator(mode="after")
    def _complete(self) -> BoardSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if self.certificate is not None and self.ca is None:
            raise ValueError("certificate is of no use without ca")
        if bool(self.user) != bool(self.password.get_secret_value()):
            raise ValueError("user and password belong together")
        return self

    def beside(self, folder: Path) -> BoardSettings:
        """The same with relative paths taken from `folder`."""
        update = {
            name: folder / path
            for name in ("ca", "certificate", "key")
            if (path := getattr(self, name)) is not None
        }
        return self.model_copy(update=update)


def open_store(settings: BoardSettings) -> EtcdStore:
    """A store on these endpoints; connects when first used. CONFIG_INVALID if a TLS file is missing."""
    if settings.ca is not None:
        _credentials(settings)  # a wrong path is found at the start, not at three in the morning
    return EtcdStore(
        settings.endpoints,
        credentials=(lambda: _credentials(settings)) if settings.ca is not None else None,
        server_name=settings.server_name,
        user=settings.user,
        password=settings.password.get_secret_value(),
    )


def _credentials(settings: BoardSettings) -> grpc.ChannelCredentials:
    read = {"ca": settings.ca, "certificate": settings.certificate, "key": settings.key}
    found: dict[str, bytes | None] = {}
    for name, path in read.items():
        try:
            found[name] = path.read_bytes() if path is not None else None
        except OSError as error:
            raise MeshError(Reason.CONFIG_INVALID, f"board.{name}: {error.strerror}") from None
    return grpc.ssl_channel_credentials(found["ca"], found["key"], found["certificate"])
