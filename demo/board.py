"""The demo's etcd: real, one member, TLS with client certificates on both sides.

Its server certificate is self-signed: nobody vouches for the board, and nobody has to (I5). It lets in
whoever holds a certificate of one of the three authorities.
"""

from __future__ import annotations

import time
from pathlib import Path

from demo.authority import Authority
from demo.processes import Ledger
from mesh.core.types import SpiffeId
from mesh.identity.board_certificate import make_board_certificate
from mesh.identity.ca import MAX_TTL_S, CertificateAuthority
from mesh.identity.keys import key_to_pem, make_key_and_csr
from mesh.identity.leaf import chain_to_pem
from mesh.identity.private_files import make_private_directory, write_file
from mesh.store.etcd_server import EtcdServer, EtcdTls

NAME = "etcd"
SERVER_NAME = "board.mesh.example"


class Board:
    """Starts, kills and restarts etcd, and says how to reach it."""

    def __init__(self, directory: Path, ledger: Ledger, keep: bool) -> None:
        self._directory = directory
        self._ledger = ledger
        self._keep = keep
        self._server: EtcdServer | None = None

    async def start(self, authorities: list[Authority]) -> None:
        """First start: certificates, then the process."""
        make_private_directory(self._directory)
        certificate, key = make_board_certificate(SERVER_NAME, time.time())
        write_file(self._directory / f"{NAME}.pem", certificate, mode=0o644)
        write_file(self._directory / f"{NAME}.key", key)
        roots = b""
        for authority in authorities:
            ca = CertificateAuthority.load(authority.directory / "ca")
            roots += chain_to_pem(ca.bundle.roots)
            # The control plane's own key to the board; nodes show their SVIDs.
            self._issue(ca, "/control/main", authority.directory / "board-client")
        (self._directory / "roots.pem").write_bytes(roots)
        tls = EtcdTls(
            self._directory / "roots.pem", self._directory / f"{NAME}.pem", self._directory / f"{NAME}.key"
        )
        self._server = EtcdServer(self._directory / "data", tls=tls, outlives_parent=self._keep)
        await self.restart()

    def _issue(self, ca: CertificateAuthority, path: str, out: Path) -> None:
        key, csr = make_key_and_csr()
        chain = ca.issue(csr, SpiffeId(ca.trust_domain, path), MAX_TTL_S, time.time())
        write_file(out.with_suffix(".pem"), chain_to_pem(chain), mode=0o644)
        write_file(out.with_suffix(".key"), key_to_pem(key))

    def settings(self, authority: Authority, identity: Path | None = None) -> dict[str, object]:
        """The `board` section of a daemon's configuration."""
        assert self._server is not None
        own = identity / "svid" if identity else authority.directory / "board-client"
        return {
            "endpoints": [self._server.endpoint],
            "ca": str(self._directory / f"{NAME}.pem"),
            "certificate": str(own.with_suffix(".pem")),
            "key": str(own.with_suffix(".key")),
            "server_name": SERVER_NAME,
        }

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        assert self._server is not None
        self._server.kill()

    async def restart(self) -> None:
        """Starts it on the data and the port that it had."""
        assert self._server is not None
        await self._server.start()
        self._ledger.adopt(NAME, self._server.pid)
