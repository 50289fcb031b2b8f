"""Which of equal scores count: those with the lower ids, also where the list is cut.

A store that cuts inside a run of equal scores keeps any of them. Then two stores with the same chunks, or
one store before and after an index is built, would answer differently.
"""

from __future__ import annotations

from collections.abc import Callable

from node.index.base import Scored
from node.index.checks import MAX_DEPTH

_WIDER = 4


def best(ask: Callable[[int], list[Scored]], depth: int) -> list[Scored]:
    """The first `depth` by score, then id. `ask(limit)` gives up to `limit`, in order of score.

    It is asked for one more than needed, and for more while the cut would fall inside a run of equal
    scores, up to MAX_DEPTH; a run longer than that is cut as the store cuts it.
    """
    limit = min(depth + 1, MAX_DEPTH)
    found = ask(limit)
    while len(found) == limit < MAX_DEPTH and found[-1].score == found[depth - 1].score:
        limit = min(limit * _WIDER, MAX_DEPTH)
        found = ask(limit)
    return sorted(found, key=lambda each: (-each.score, each.id))[:depth]
