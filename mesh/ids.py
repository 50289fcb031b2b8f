"""Ids of decisions, permits and incidents: UUID version 7 (RFC 9562, section 5.7).

They begin with the time in milliseconds, so logs sort by them; the rest is random. Clock and entropy
are arguments, so that tests know the ids beforehand.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable


def id_maker(clock: Callable[[], float], entropy: Callable[[int], bytes] = os.urandom) -> Callable[[], str]:
    """What makes ids. `clock` is Unix seconds; `entropy(n)` gives n random bytes."""

    def new_id() -> str:
        milliseconds = int(clock() * 1000) & ((1 << 48) - 1)
        random = int.from_bytes(entropy(10), "big")
        value = milliseconds << 80 | random
        value = value & ~(0xF << 76) | 0x7 << 76  # version 7
        value = value & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
        return str(uuid.UUID(int=value))

    return new_id
