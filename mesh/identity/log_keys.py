"""The key that a log signs its checkpoints with: Ed25519, as signed notes (C2SP) have it.

Made where the log is first opened, kept in one PEM file that its owner alone may read, never sent anywhere.
It is no X.509 key: who stands behind it is said elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import make_private_directory, read_file, write_file


class LogKey:
    """A private key. `public` is its public half, 32 bytes (RFC 8032)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> LogKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> LogKey:
        """Reads the file; NOT_FOUND if there is none, CONFIG_INVALID if others may read it or it is no
        Ed25519 key in PEM."""
        try:
            key = serialization.load_pem_private_key(read_file(path, private=True), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise MeshError(Reason.CONFIG_INVALID, f"{path.name}: expected an unencrypted Ed25519 key in PEM")
        return cls(key)

    @classmethod
    def load_or_make(cls, path: Path) -> LogKey:
        """The key in the file, made now if there is none. CONFIG_INVALID also if it cannot be written."""
        try:
            return cls.load(path)
        except MeshError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
        made = cls.generate()
        made.save(path)
        return made

    def save(self, path: Path) -> None:
        """Writes a new file with mode 0600; CONFIG_INVALID if there is one, or it cannot be written."""
        try:
            make_private_directory(path.parent)
            write_file(path, self.to_pem())
        except OSError as error:
            raise MeshError(
                Reason.CONFIG_INVALID, f"{path.name} cannot be written: {error.strerror}"
            ) from None

    def to_pem(self) -> bytes:
        """PKCS#8 PEM, unencrypted: at rest it is guarded by file permissions."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes."""
        return self._key.sign(message)


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether it is the signature of the message by the key of these 32 bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
