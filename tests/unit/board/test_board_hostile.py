"""A store that invents keys without end: neither memory nor the log grows with it (I5)."""

from __future__ import annotations

import pytest

from mesh.board import MAX_REFUSED, MAX_WARNINGS, Board
from mesh.core.records import ROOT
from mesh.store.memory import MemoryBoard
from tests.support.boards import DE, DEADLINE_S, Clock, Writer


async def read(board: Board, memory: MemoryBoard, de: Writer, generation: int = 1) -> None:
    """Waits until the board has read all that was put before."""
    key, payload = de.policy()
    memory.overwrite(str(key), de.seal(key, payload, generation))
    await board.wait_for(lambda s: DE in s.policies and s.policies[DE].generation == generation, DEADLINE_S)


async def test_garbage_is_remembered_up_to_a_bound(board: Board, memory: MemoryBoard, de: Writer) -> None:
    for number in range(MAX_REFUSED + 500):
        memory.overwrite(f"{ROOT}{DE}/facts/x{number}", b"garbage")
        memory.overwrite(f"{ROOT}{DE}/no-such-type/{number}", b"garbage")
    await read(board, memory, de)
    assert len(board.refused) == MAX_REFUSED
    assert len(board._on_board) <= MAX_REFUSED + 1
    # what lies in the place of something in force is: it has to be put right
    key, _ = de.policy()
    memory.overwrite(str(key), b"garbage")
    revision = memory.revision
    await board.wait_for(lambda _: board.board_revision(str(key)) == (revision, False), DEADLINE_S)
    assert await board.restore() == 1


async def test_garbage_that_comes_and_goes_does_not_fill_the_log(
    board: Board, memory: MemoryBoard, de: Writer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> int:
        return sum(record.levelname == "WARNING" for record in caplog.records)

    for number in range(3 * MAX_WARNINGS):
        memory.overwrite(f"{ROOT}{DE}/facts/x{number}", b"garbage")
        memory.commit(f"{ROOT}{DE}/facts/x{number}", None)
    await read(board, memory, de)
    assert 0 < warnings() <= MAX_WARNINGS + 1
    clock.now += 60
    before = warnings()
    memory.overwrite(f"{ROOT}{DE}/facts/x", b"garbage")
    await read(board, memory, de, 2)
    assert warnings() == before + 1
