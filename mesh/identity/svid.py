"""An SVID: a certificate chain and the key that belongs to it, in memory and on disk.

Key and certificate are two files, and a crash may come between writing one and the other. So a new
key waits as ``svid.key.next`` until its certificate is in place; loading takes whichever key fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.keys import PrivateKey, key_from_pem, key_to_pem
from mesh.identity.leaf import Leaf, chain_from_pem, chain_to_pem, read_leaf
from mesh.identity.private_files import read_file, sync_directory, write_file
from mesh.identity.signing import Signer

KEY_FILE = "svid.key"
NEXT_KEY_FILE = "svid.key.next"
CHAIN_FILE = "svid.pem"

# A renewal replaces two files: one further look finds both of the same.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Svid:
    """Who we are. `chain` is DER, leaf first, root left out. The key is never printed.

    Raises IDENTITY_MALFORMED for a chain that is none, CONFIG_INVALID for a key that does not fit.
    """

    chain: tuple[bytes, ...]
    key: PrivateKey

    def __post_init__(self) -> None:
        if not self.chain:
            raise MeshError(Reason.IDENTITY_MALFORMED, "expected a certificate")
        if self._leaf.public_key != self.key.public_key():
            raise MeshError(Reason.CONFIG_INVALID, "the private key does not belong to the certificate")

    def __repr__(self) -> str:
        return f"Svid({self.id}, serial {self.serial})"

    @cached_property
    def _leaf(self) -> Leaf:
        return read_leaf(self.chain[0])

    @property
    def id(self) -> SpiffeId:
        """The name in the certificate."""
        return self._leaf.id

    @property
    def serial(self) -> str:
        """The certificate's serial number, lower-case hex."""
        return self._leaf.serial

    @property
    def not_before(self) -> float:
        """Unix seconds."""
        return self._leaf.not_before

    @property
    def not_after(self) -> float:
        """Unix seconds."""
        return self._leaf.not_after

    @property
    def half_life(self) -> float:
        """When to renew, Unix seconds."""
        return (self.not_before + self.not_after) / 2

    @cached_property
    def key_pem(self) -> bytes:
        """The key, for TLS stacks and for private files alone."""
        return key_to_pem(self.key)

    @cached_property
    def chain_pem(self) -> bytes:
        """The chain in PEM."""
        return chain_to_pem(self.chain)

    @cached_property
    def signer(self) -> Signer:
        """Signs statements in this name."""
        return Signer(self.chain, self.key)


def save_svid(directory: Path, svid: Svid) -> None:
    """Writes the SVID into a directory of mode 0700; OSError leaves the old one usable."""
    write_file(directory / NEXT_KEY_FILE, svid.key_pem, replace=True)
    write_file(directory / CHAIN_FILE, svid.chain_pem, mode=0o644, replace=True)
    (directory / NEXT_KEY_FILE).rename(directory / KEY_FILE)
    sync_directory(directory)


def load_svid(directory: Path) -> Svid:
    """Reads the SVID in a directory; NOT_FOUND, CONFIG_INVALID or IDENTITY_MALFORMED.

    Safe while another process renews it.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _load(directory)
        except MeshError as error:
            # The key may have been replaced after the certificate was read.
            if error.reason not in (Reason.CONFIG_INVALID, Reason.NOT_FOUND):
                raise
    return _load(directory)


def _load(directory: Path) -> Svid:
    chain = chain_from_pem(read_file(directory / CHAIN_FILE))
    try:
        return Svid(chain, key_from_pem(read_file(directory / KEY_FILE, private=True)))
    except MeshError as error:
        if not (directory / NEXT_KEY_FILE).exists() or error.reason is Reason.IDENTITY_MALFORMED:
            raise
    return Svid(chain, key_from_pem(read_file(directory / NEXT_KEY_FILE, private=True)))
