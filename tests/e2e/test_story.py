"""The story of `make demo`, step by step, on the same real mesh: I1 to I7, with every part real.

The steps are demo/story.py's own; here each is a test, in order, on one mesh that comes up once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.model import DemoModel, shipped
from demo.story import STEPS, Step
from demo.telling import Teller
from demo.world import World

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(600)]

MAX_MEMORY_GIB = 12


class Stage:
    """A world that lives in an event loop of its own, over all tests of this file."""

    def __init__(self, root: Path, model: DemoModel) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="story")
        self._thread.start()
        self._opened = World.open(root, model)
        self.world = self.run(self._opened.__aenter__(), 550)

    def run(self, work: Coroutine[Any, Any, Any], timeout_s: float = 180) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        try:
            self.run(self._opened.__aexit__(None, None, None))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("story")
    stage = Stage(folder / "mesh", shipped(folder / "tiny"))
    try:
        yield stage
    finally:
        family = stage.world.ledger.family()
        stage.close()
    left = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"left running: {left}"


@pytest.mark.parametrize(("title", "step"), STEPS, ids=[step.__name__ for _, step in STEPS])
def test_step(stage: Stage, title: str, step: Step) -> None:
    teller = Teller()

    async def told() -> None:
        with teller.step(1, title):
            await step(stage.world, teller)

    stage.run(told())
    failed = [f"{e.text}: {e.seen}" for e in teller.results[0].expectations if not e.held]
    assert not failed
    assert teller.held


def test_it_fits_in_memory(stage: Stage) -> None:
    peak = stage.world.memory.peak_bytes / 2**30
    assert 0.5 < peak <= MAX_MEMORY_GIB
