"""One contract for every decision log (I7), and what the file must survive."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.evidence import DecisionLog, FileDecisionLog, MemoryDecisionLog


@pytest.fixture(params=["memory", "file"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DecisionLog]:
    made = MemoryDecisionLog() if request.param == "memory" else FileDecisionLog.open(tmp_path / "d.jsonl")
    yield made
    await made.aclose()


def entries(log: DecisionLog) -> list[dict[str, object]]:
    if isinstance(log, MemoryDecisionLog):
        return log.entries
    assert isinstance(log, FileDecisionLog)
    return [json.loads(line) for line in log.path.read_text().splitlines()]


async def test_what_was_recorded_is_there(log: DecisionLog):
    await log.record({"id": "1", "refused": ["ü"]})
    assert entries(log) == [{"id": "1", "refused": ["ü"]}]


async def test_many_at_once_are_all_there_in_order(log: DecisionLog):
    await asyncio.gather(*(log.record({"id": number}) for number in range(500)))
    assert [entry["id"] for entry in entries(log)] == list(range(500))


async def test_a_caller_that_leaves_spoils_nothing(log: DecisionLog):
    leaving = asyncio.create_task(log.record({"id": "left"}))
    await asyncio.sleep(0)
    leaving.cancel()
    await log.record({"id": "stayed"})
    assert {"id": "stayed"} in entries(log)


async def test_the_file_is_private_and_goes_on_after_a_restart(tmp_path: Path):
    path = tmp_path / "state" / "decisions.jsonl"
    for number in range(2):
        log = FileDecisionLog.open(path)
        await log.record({"id": number})
        await log.aclose()
    assert path.read_text() == '{"id":0}\n{"id":1}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_line_torn_by_a_crash_is_cut_off(tmp_path: Path):
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(b'{"id":0}\n{"id":1,"dec' + b"x" * 200_000)
    log = FileDecisionLog.open(path)
    await log.record({"id": 2})
    await log.aclose()
    assert path.read_text() == '{"id":0}\n{"id":2}\n'


async def test_a_full_disk_refuses_i7(tmp_path: Path):
    path = tmp_path / "decisions.jsonl"
    path.symlink_to("/dev/full")
    log = FileDecisionLog.open(path)
    for _ in range(2):
        with pytest.raises(MeshError) as caught:
            await log.record({"id": 1})
        assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE
    await log.aclose()


async def test_a_folder_that_cannot_be_made_refuses(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MeshError) as caught:
        FileDecisionLog.open(tmp_path / "file" / "decisions.jsonl")
    assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE


async def test_after_closing_nothing_is_recorded(tmp_path: Path):
    log = FileDecisionLog.open(tmp_path / "decisions.jsonl")
    await log.aclose()
    with pytest.raises(MeshError) as caught:
        await log.record({"id": 1})
    assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE


_DISK_THAT_FILLS_UP = """
import asyncio, resource, sys
from pathlib import Path
from mesh.core.errors import MeshError
from mesh.evidence import FileDecisionLog

async def main():
    log = FileDecisionLog.open(Path(sys.argv[1]))
    await log.record({"id": "before"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
    try:
        await log.record({"id": "does not fit" * 10})
        print("recorded")
    except MeshError as error:
        print(error.reason.code)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await log.record({"id": "after"})
    await log.aclose()

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_line_that_only_half_fitted_leaves_no_trace(tmp_path: Path):
    path = tmp_path / "decisions.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", _DISK_THAT_FILLS_UP, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == Reason.EVIDENCE_UNAVAILABLE.code, done.stderr
    assert path.read_text() == '{"id":"before"}\n{"id":"after"}\n'
