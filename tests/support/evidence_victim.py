"""A process that records decisions until it is killed at a given step, and says what was acknowledged.

Run as a script: for each line of JSON on stdin it forks a child (imports are paid once) that opens the log
and goes on with it. The child writes "<size>" after each batch that was acknowledged in full, and
"signed <size> <root>" for each checkpoint that it was given; it kills itself with SIGKILL the `nth` time that
it passes `step`, or, where `step` is "half", in the middle of the `nth` write. Then the parent writes
"dead <signal or 0>".
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mesh.evidence import disk, journal
from mesh.identity.log_keys import LogKey
from tests.support.evidence import open_log

ROUNDS = 24


def batches(seed: int, size: int) -> list[int]:
    """How many entries come together, round by round: small ones and some that fill tiles."""
    rng = random.Random(f"{seed}/{size}")
    return [rng.choice((1, 2, 7, 40, 130)) for _ in range(ROUNDS)]


def entry(index: int) -> dict[str, object]:
    """What is recorded at an index."""
    return {"id": f"d-{index}", "kind": "serve", "refused": ["x"] * (index % 7)}


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


def _half(nth: int) -> Callable[[int, bytes], None]:
    """A write that the nth time gets half way only."""
    written = 0

    def write(descriptor: int, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == nth:
            os.write(descriptor, data[: len(data) // 2])
            _die()
        whole(descriptor, data)

    whole = disk.write_all
    return write


async def run(folder: Path, key: Path, seed: int, step: str, nth: int) -> None:
    """One life."""
    passed = 0

    def failpoint(name: str) -> None:
        nonlocal passed
        passed += name == step
        if name == step and passed == nth:
            _die()

    journal.FILE_ENTRIES = 100
    if step == "half":
        disk.write_all = journal.write_all = _half(nth)
    log = open_log(folder, LogKey.load(key), failpoint=failpoint)
    for number, count in enumerate(batches(seed, log.size)):
        await asyncio.gather(*(log.record(entry(log.size + n)) for n in range(count)))
        os.write(1, f"{log.size}\n".encode())
        if number % 3 == 0:
            signed = (await log.checkpoint()).checkpoint
            os.write(1, f"signed {signed.size} {signed.root.hex()}\n".encode())
    await log.aclose()


def main() -> None:
    """Reads orders until stdin ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                order = json.loads(line)
                asyncio.run(run(Path(order.pop("folder")), Path(order.pop("key")), **order))
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        os.write(1, f"dead {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
