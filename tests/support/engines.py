"""Engines for tests: the real one on the tiny model, and what to watch of its processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from node.engine.base import EngineState
from node.engine.host_paths import HostPaths
from node.engine.process_family import Family
from node.engine.remote import RemoteEngine
from node.engine.spec import EngineSpec
from node.engine.tiny_model import build

MODEL = "tiny"
START_S = 240.0  # three nodes at once on two busy cores stay far below


def tiny_spec(folder: Path, **changes: Any) -> EngineSpec:
    """The tiny model, built under `folder`, where engines of one test run also share their caches."""
    values: dict[str, Any] = {
        "model": str(build(folder / "tiny-model")),
        "model_name": MODEL,
        "context_tokens": 2048,
        "capacity": 16,
        "cache_directory": str(folder / "cache"),
    }
    return EngineSpec(**(values | changes))


@asynccontextmanager
async def running(spec: EngineSpec, run_directory: Path) -> AsyncIterator[RemoteEngine]:
    """A real engine that is ready; whatever happens, none of its processes is left."""
    engine = RemoteEngine(spec, run_directory)
    try:
        await engine.start()
        async with asyncio.timeout(START_S):
            state = await engine.wait_state(EngineState.READY, EngineState.FAILED)
        assert state is EngineState.READY, engine.failure
        yield engine
    finally:
        await engine.aclose()
        end_family(run_directory)


def family_of(run_directory: Path) -> Family:
    """The processes of the engine of this directory."""
    family = HostPaths.of(run_directory).read_record()
    assert family is not None
    return family


def end_family(run_directory: Path) -> None:
    """Ends what is left of them, and of their sockets."""
    paths = HostPaths.of(run_directory)
    family = paths.read_record()
    if family is not None:
        family.end()
    shutil.rmtree(paths.short, ignore_errors=True)


def find(run_directory: Path, name: str) -> list[int]:
    """Process ids of the engine's processes whose command line has `name`."""
    found = []
    for pid in family_of(run_directory).members():
        with contextlib.suppress(psutil.Error):
            if name in " ".join(psutil.Process(pid).cmdline()):
                found.append(pid)
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL, to processes that a test found with `find`."""
    assert pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def eventually(holds: Callable[[], bool], deadline_s: float, what: str) -> float:
    """Looks every 20 ms until it holds; returns the seconds that took, fails after the deadline."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < deadline_s, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began
