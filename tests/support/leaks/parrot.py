"""The worst model there is for secrets: it repeats whatever passages it is shown, and cites at random."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from typing import Any

from node.engine.base import FinishReason, Piece, Prompt, Sampling

_PASSAGE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


def parrot(engine: Any, seed: int) -> None:
    """Makes a scripted engine one."""
    chance = random.Random(seed)

    async def generate(model: str, prompt: Prompt, sampling: Sampling) -> AsyncIterator[Piece]:
        shown = _PASSAGE.findall(prompt.messages[-1].content)
        said = []
        for number, text in shown:
            cited = number if chance.random() < 0.7 else str(chance.randint(1, len(shown)))
            said += [f"{sentence.rstrip('.')} [{cited}]." for sentence in text.split(". ")]
        chance.shuffle(said)
        yield Piece(" ".join(said), 1)
        yield Piece("", 1, FinishReason.STOP, 1)

    engine.generate = generate
