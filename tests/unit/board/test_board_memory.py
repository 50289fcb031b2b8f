"""What a board remembers on disk: starting without the store, damaged files, full and read-only disks."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh import board_cache
from mesh.board import Board
from mesh.core.errors import Reason
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.boards import DAY_S, DE, FR, Clock, Writer, running_board

DEADLINE_S = 10.0


@pytest.fixture
def memory() -> MemoryBoard:
    return MemoryBoard()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "records"


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_cache, "SAVE_AFTER_S", {board_cache.RECORDS: 0.0, board_cache.HEADS: 0.0})
    monkeypatch.setattr(board_cache, "SAVE_AGAIN_S", 0.01)


async def filled(memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path) -> None:
    """Runs a board with records of two trust domains, and ends it."""
    async with running_board(MemoryStore(memory), de.authority.bundle, clock, directory) as board:
        await board.publish(de.signer, *de.federation(fr.authority.bundle), DAY_S)
        await board.publish(de.signer, *de.policy(), DAY_S)
        await board.publish(de.signer, *de.revocations(de.node("fra-9")), 60)
        await board.publish(de.signer, *de.heads({str(de.policy()[0]): 1}), DAY_S)
        for key, payload in (fr.policy(), fr.facts("par-1"), fr.record("par-1"), fr.status("par-1")):
            memory.overwrite(str(key), fr.seal(key, payload, 8))
        await board.wait_for(lambda s: s.candidates and board.statuses, DEADLINE_S)


def restarted(de: Writer, clock: Clock, directory: Path) -> Board:
    """A board that has no store."""
    away = MemoryBoard()
    away.disconnect()
    return Board(MemoryStore(away), DE, de.authority.bundle, clock, directory)


async def test_i4_a_board_starts_from_disk_when_the_store_is_away(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path
) -> None:
    await filled(memory, de, fr, clock, directory)
    board = restarted(de, clock, directory)
    assert set(board.snapshot.policies) == {DE, FR}
    assert list(board.snapshot.candidates) == [fr.node("par-1")]
    assert board.snapshot.is_revoked(de.node("fra-9"))
    assert board.snapshot.stale_reason(DE, clock()) == ""
    assert not board.statuses
    assert not board.problems
    assert board.snapshot.version > 1, "versions in the evidence go on"


async def test_what_has_expired_meanwhile_is_not_in_force_but_revocations_are(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path
) -> None:
    await filled(memory, de, fr, clock, directory)
    clock.now += DAY_S + 1
    board = restarted(de, clock, directory)
    assert not board.snapshot.policies
    assert not board.snapshot.candidates
    assert board.snapshot.is_revoked(de.node("fra-9"))
    assert not board.snapshot.generations


async def test_i5_generations_do_not_go_back_over_a_restart(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path
) -> None:
    await filled(memory, de, fr, clock, directory)
    rolled_back = MemoryBoard()
    key, payload = fr.policy("// older")
    rolled_back.overwrite(str(key), fr.seal(key, payload, 7))
    async with running_board(MemoryStore(rolled_back), de.authority.bundle, clock, directory) as board:
        assert board.refused == {str(key): Reason.RECORD_ROLLED_BACK}
        assert board.snapshot.policies[FR].generation == 8
        assert await board.publish(de.signer, *de.policy(), DAY_S) == 2


async def test_files_are_private_and_appear_while_running(
    memory: MemoryBoard, de: Writer, clock: Clock, directory: Path
) -> None:
    async with running_board(MemoryStore(memory), de.authority.bundle, clock, directory) as board:
        await board.publish(de.signer, *de.policy(), DAY_S)
        await eventually(board, lambda: (directory / board_cache.RECORDS).exists())
    assert modes(directory) == {"records": 0o700, board_cache.RECORDS: 0o600}


async def test_i5_a_tampered_file_is_believed_no_more_than_the_board(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path
) -> None:
    await filled(memory, de, fr, clock, directory)
    path = directory / board_cache.RECORDS
    whole, *lines = (json.loads(line) for line in path.read_text().splitlines())
    entries = {line["key"]: line for line in lines}
    entries[str(de.policy()[0])]["envelope"] = entries[str(fr.policy()[0])]["envelope"]
    entries["no key"] = {"key": "no key", "seen": None, "envelope": "eHg="}
    path.write_text("\n".join(json.dumps(line) for line in (whole, *entries.values())))
    board = restarted(de, clock, directory)
    assert set(board.snapshot.policies) == {FR}


FIRST = b'{"format":1,"version":1,"saved_at":0}\n'
DAMAGED = {
    "empty": b"",
    "cut": b"{",
    "list": b"[]",
    "bare": b'{"format":1}',
    "newer": b'{"format":2,"version":1,"saved_at":0}',
    "binary": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "no key": FIRST + b"{}",
    "seen": FIRST + b'{"key":"a","seen":[1],"envelope":null}',
    "base64": FIRST + b'{"key":"a","seen":null,"envelope":"*"}',
    "cut later": FIRST + b'{"key":"a","seen":null,"envel',
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_file_is_put_aside_and_told(
    damage: bytes, memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path
) -> None:
    await filled(memory, de, fr, clock, directory)
    path = directory / board_cache.RECORDS
    path.write_bytes(damage)
    path.chmod(0o600)
    board = restarted(de, clock, directory)
    assert "damaged" in board.problems[board_cache.RECORDS]
    assert not board.snapshot.policies
    assert path.with_name(path.name + ".damaged").read_bytes() == damage
    async with running_board(MemoryStore(memory), de.authority.bundle, clock, directory) as board:
        assert set(board.snapshot.policies) == {DE, FR}
        await eventually(board, lambda: not board.problems)


async def test_a_file_that_others_can_read_is_refused(
    memory: MemoryBoard, de: Writer, fr: Writer, clock: Clock, directory: Path
) -> None:
    await filled(memory, de, fr, clock, directory)
    (directory / board_cache.RECORDS).chmod(0o644)
    board = restarted(de, clock, directory)
    assert board_cache.RECORDS in board.problems
    assert not board.snapshot.policies


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    full = True
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(28, "No space left on device")
        real(descriptor)

    def fill(now: bool) -> None:
        nonlocal full
        full = now

    monkeypatch.setattr(os, "fsync", fsync)
    return fill


async def test_a_full_disk_keeps_the_old_file_is_told_and_tried_again(
    memory: MemoryBoard,
    de: Writer,
    fr: Writer,
    clock: Clock,
    directory: Path,
    full_disk: Callable[[bool], None],
) -> None:
    full_disk(False)
    await filled(memory, de, fr, clock, directory)
    before = (directory / board_cache.RECORDS).read_bytes()
    async with running_board(MemoryStore(memory), de.authority.bundle, clock, directory) as board:
        full_disk(True)
        await board.publish(de.signer, *de.policy("// newer"), DAY_S)
        await eventually(board, lambda: board_cache.RECORDS in board.problems)
        assert "No space left" in board.problems[board_cache.RECORDS]
        assert board.snapshot.policies[DE].generation == 2, "what is in force does not depend on the disk"
        assert (directory / board_cache.RECORDS).read_bytes() == before
        assert set(modes(directory)) == {"records", board_cache.HEADS, board_cache.RECORDS}, (
            "no temporary file"
        )
        full_disk(False)
        await eventually(board, lambda: not board.problems)
    assert restarted(de, clock, directory).snapshot.policies[DE].generation == 2


async def test_a_directory_that_cannot_be_made_is_a_problem_and_no_crash(
    memory: MemoryBoard, de: Writer, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with running_board(
        MemoryStore(memory), de.authority.bundle, clock, tmp_path / "file" / "x"
    ) as board:
        await board.publish(de.signer, *de.policy(), DAY_S)
        await eventually(board, lambda: board.problems)


async def eventually(board: Board, condition: Callable[[], object]) -> None:
    """Files are written by a thread that tells nobody: looks again and again, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def modes(directory: Path) -> dict[str, int]:
    """Permissions of the directory and of what is in it."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}
