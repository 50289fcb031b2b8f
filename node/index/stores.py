"""Which vector store a node uses, as its configuration file names it, and how one is opened.

Embedded stores keep their files in the collection's own folder. Servers are reached over TLS unless they
are on this very machine: vectors can be turned back into text, so nobody on the way may read them. The
clients of servers are imported only when one is configured.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from mesh.core.errors import MeshError, Reason
from mesh.settings import Settings
from node.index.base import VectorStore
from node.index.memory import MemoryStore

EXACT_BELOW = 20_000
_SERVERS = ("qdrant", "milvus")
_MAX_KEY_BYTES = 64 * 1024


class StoreSettings(Settings):
    """The vector store. `url`, `api_key_file`, `ca_file` and `timeout_s` are for servers.

    `exact_below` is for qdrant_edge: with fewer chunks than this, every search looks at all of them.
    """

    kind: Literal["memory", "qdrant_edge", "qdrant", "milvus"] = "qdrant_edge"
    """qdrant_edge: embedded. qdrant, milvus: a server. memory: gone at the end, for trying out."""
    url: str = Field(default="", max_length=2048)
    """Of the server; `http://` for this very machine only."""
    api_key_file: Path | None = None
    """A file with the key for the server."""
    ca_file: Path | None = None
    """The authority to check the server with. Left out: those that the system trusts."""
    timeout_s: Annotated[float, Field(ge=1, le=600)] = 10.0
    """How long the server may take for one call, in seconds."""
    exact_below: int = Field(default=EXACT_BELOW, ge=0, le=10_000_000)
    """With fewer chunks than this, every search looks at all of them. For qdrant_edge."""

    @model_validator(mode="after")
    def _complete(self) -> StoreSettings:
        if self.kind not in _SERVERS:
            if self.url or self.api_key_file is not None or self.ca_file is not None:
                raise ValueError(f"url, api_key_file and ca_file are of no use to {self.kind}")
            return self
        if not self.url:
            raise ValueError(f"url is needed by {self.kind}")
        if not _is_safe(self.url):
            raise ValueError("url: expected https://host:port; http:// only for this very machine")
        return self

    def beside(self, folder: Path) -> StoreSettings:
        """The same with relative paths taken from `folder`."""
        update = {
            name: folder / path
            for name in ("api_key_file", "ca_file")
            if (path := getattr(self, name)) is not None
        }
        return self.model_copy(update=update)


def open_store(settings: StoreSettings, folder: Path, collection: str, dimensions: int) -> VectorStore:
    """The store of one collection; made if it is not there yet.

    `folder` is this collection's own, for embedded stores; `collection` is its name on a server, where
    no other node may use the same. Raises INDEX_UNAVAILABLE, and CONFIG_INVALID if a file of the
    settings or the package of the client is missing.
    """
    if settings.kind == "memory":
        return MemoryStore(dimensions)
    try:
        if settings.kind == "qdrant_edge":
            from node.index.qdrant_edge import QdrantEdgeStore

            return QdrantEdgeStore.open(folder, dimensions, exact_below=settings.exact_below)
        key, ca = _read_key(settings.api_key_file), _existing(settings.ca_file)
        if settings.kind == "qdrant":
            from node.index.qdrant_cluster import connect as connect_qdrant

            return connect_qdrant(settings.url, key, ca, settings.timeout_s, collection, dimensions)
        from node.index.milvus import connect as connect_milvus

        return connect_milvus(settings.url, key, ca, settings.timeout_s, collection, dimensions)
    except ImportError as error:
        raise MeshError(
            Reason.CONFIG_INVALID, f"store.kind: expected the package of {settings.kind} to be installed"
        ) from error


def discard_store(settings: StoreSettings, folder: Path) -> None:
    """Removes the files of an embedded store that cannot be opened, so that it can be built anew.

    INDEX_UNAVAILABLE while another process has it open. What is on a server is left alone.
    """
    if settings.kind == "qdrant_edge":
        from node.index.qdrant_edge import QdrantEdgeStore

        QdrantEdgeStore.discard(folder)


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    if parts.scheme == "https":
        return True
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return parts.scheme == "http" and local


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            key = file.read(_MAX_KEY_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MeshError(Reason.CONFIG_INVALID, "store.api_key_file: expected a readable file") from error
    if not key or len(key) > _MAX_KEY_BYTES:
        raise MeshError(Reason.CONFIG_INVALID, "store.api_key_file: expected one key, in ASCII")
    return key


def _existing(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise MeshError(Reason.CONFIG_INVALID, "store.ca_file: expected a file")
    return path
