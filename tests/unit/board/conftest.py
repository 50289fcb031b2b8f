"""Three authorities, a clock, and a board on a memory store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mesh.board import Board
from mesh.store.memory import MemoryBoard, MemoryStore
from tests.support.boards import DE, FR, US, Clock, Writer, running_board
from tests.support.identities import AuthorityForTests


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AuthorityForTests]:
    directory = tmp_path_factory.mktemp("authorities")
    return {name: AuthorityForTests(directory, name) for name in (DE, FR, US)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def de(authorities: dict[str, AuthorityForTests], clock: Clock) -> Writer:
    return Writer(authorities[DE], clock)


@pytest.fixture
def fr(authorities: dict[str, AuthorityForTests], clock: Clock) -> Writer:
    return Writer(authorities[FR], clock)


@pytest.fixture
def us(authorities: dict[str, AuthorityForTests], clock: Clock) -> Writer:
    return Writer(authorities[US], clock)


@pytest.fixture
def memory() -> MemoryBoard:
    return MemoryBoard()


@pytest.fixture
async def board(memory: MemoryBoard, de: Writer, clock: Clock) -> AsyncIterator[Board]:
    async with running_board(MemoryStore(memory), de.authority.bundle, clock) as board:
        yield board
