"""What an authority will state about a node once that node joins.

The facts are fixed when the join token is made and published when it is spent, so that a node that
never comes never shows. One file per node, mode 0600, holding the facts record's payload. Blocking.
"""

from __future__ import annotations

from pathlib import Path

from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.types import NodeFacts
from mesh.identity.private_files import make_private_directory, read_file, write_file


class PendingFacts:
    """A directory of facts by node name. Names are path segments of SPIFFE ids and thus safe as files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_private_directory(directory)

    def put(self, name: str, facts: NodeFacts) -> None:
        """Keeps the facts, in place of older ones. STORE_UNAVAILABLE if the disk does not take them."""
        try:
            write_file(self._path(name), codec.facts_to_payload(facts), replace=True)
        except OSError as error:
            raise MeshError(
                Reason.STORE_UNAVAILABLE, f"facts cannot be stored: {error.strerror or 'I/O error'}"
            ) from None

    def get(self, name: str) -> NodeFacts:
        """The facts; NOT_FOUND if there are none."""
        return codec.facts_from_payload(read_file(self._path(name), private=True))

    def remove(self, name: str) -> None:
        """Forgets them, if there are any."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.facts"
