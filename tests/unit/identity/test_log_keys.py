"""The keys that logs sign with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.identity.keys import generate_key, key_to_pem
from mesh.identity.log_keys import LogKey, verify_ed25519


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "evidence" / "decisions.key"
    made = LogKey.load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    again = LogKey.load_or_make(path)
    assert again.public == made.public == LogKey.load(path).public
    assert len(made.public) == 32


def test_signatures(tmp_path: Path) -> None:
    key, other = LogKey.generate(), LogKey.generate()
    signature = key.sign(b"message")
    assert len(signature) == 64
    assert verify_ed25519(key.public, b"message", signature)
    assert not verify_ed25519(other.public, b"message", signature)
    assert not verify_ed25519(key.public, b"massage", signature)
    assert not verify_ed25519(key.public[:31], b"message", signature)
    assert not verify_ed25519(key.public, b"message", signature[:63])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "log.key"
    LogKey.load_or_make(path)
    path.chmod(mode)
    with refused(Reason.CONFIG_INVALID):
        LogKey.load_or_make(path)


@pytest.mark.parametrize("content", [b"", b"no key", key_to_pem(generate_key())])
def test_what_is_no_ed25519_key_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with refused(Reason.CONFIG_INVALID):
        LogKey.load_or_make(path)
    assert path.read_bytes() == content


def test_none_to_load_and_none_to_make(tmp_path: Path) -> None:
    with refused(Reason.NOT_FOUND):
        LogKey.load(tmp_path / "log.key")
    (tmp_path / "file").write_text("")
    with refused(Reason.CONFIG_INVALID):
        LogKey.load_or_make(tmp_path / "file" / "log.key")
