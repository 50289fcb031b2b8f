"""Two authorities."""

from pathlib import Path

import pytest

from tests.support.identities import AuthorityForTests


@pytest.fixture
def de(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, "de.mesh.example")


@pytest.fixture
def us(tmp_path: Path) -> AuthorityForTests:
    return AuthorityForTests(tmp_path, "us.mesh.example")
