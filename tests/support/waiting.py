"""Waiting for what has no event of its own: a condition, looked at again and again, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 10.0


async def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Returns once the condition is true; TimeoutError after the deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.002)
