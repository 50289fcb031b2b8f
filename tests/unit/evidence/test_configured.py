"""Where a daemon's logs are, and that key and log stay together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.evidence import open_log
from mesh.evidence.configured import ACTIONS, origin_of
from tests.support.evidence import served

NODE = SpiffeId("de.mesh.example", "/node/fra-1")


def refused(reason: Reason):
    return pytest.raises(MeshError, check=lambda error: error.reason is reason)


def test_what_logs_are_called() -> None:
    assert origin_of(NODE) == "de.mesh.example/node/fra-1"
    control = SpiffeId("de.mesh.example", "/control/main")
    assert origin_of(control, ACTIONS) == "de.mesh.example/control/main/actions"


async def test_a_log_and_its_key_are_made_once(tmp_path: Path) -> None:
    for number in range(2):
        log = open_log(tmp_path, NODE)
        assert await log.record({"id": number}) == number
        await log.aclose()
    checkpoint, _ = served(tmp_path / "evidence/decisions", log.key)
    assert (checkpoint.origin, checkpoint.size) == (origin_of(NODE), 2)
    assert sorted(path.name for path in (tmp_path / "evidence").iterdir()) == ["decisions", "decisions.key"]
    for path in (tmp_path / "evidence", tmp_path / "evidence/decisions", tmp_path / "evidence/decisions.key"):
        assert path.stat().st_mode & 0o077 == 0


async def test_a_key_without_its_log_and_a_log_without_its_key_are_refused(tmp_path: Path) -> None:
    log = open_log(tmp_path, NODE)
    await log.record({"id": 1})
    await log.aclose()
    key, folder = tmp_path / "evidence/decisions.key", tmp_path / "evidence/decisions"
    key.rename(tmp_path / "kept.key")
    with refused(Reason.EVIDENCE_DAMAGED):
        open_log(tmp_path, NODE)
    assert not key.exists()
    (tmp_path / "kept.key").rename(key)
    shutil.move(folder, tmp_path / "kept")
    with refused(Reason.EVIDENCE_DAMAGED):
        open_log(tmp_path, NODE)
    shutil.move(tmp_path / "kept", folder)
    await open_log(tmp_path, NODE).aclose()


async def test_a_first_start_that_died_before_the_key_was_written(tmp_path: Path) -> None:
    log = open_log(tmp_path, NODE)
    await log.aclose()
    (tmp_path / "evidence/decisions.key").unlink()  # nothing was recorded, so nothing was signed
    await open_log(tmp_path, NODE).aclose()
