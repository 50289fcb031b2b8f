"""Checks of what a node answers: a permitted node may still be broken or hostile.

A stream is bounded by what was asked for, in tokens and in text, and follows its protocol: Started
from the node that was asked, deltas, Finished, nothing after. Whatever breaks that is a
`ProtocolBreach`, which ends the use of the node. Pure: fed with values, opens nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId

# No tokenizer in use has tokens longer than this; a stop string may hold back a few of them.
MAX_CHARS_PER_TOKEN = 512
MAX_TEXT_SLACK = 4096
# Deltas without a token (an incomplete character) that may pass before the next token.
MAX_EMPTY_DELTAS = 1024
MAX_DIMENSIONS = 16_384
UNIT_TOLERANCE = 0.01


class ProtocolBreach(MeshError):
    """The node broke the protocol. What it sent before is not to be relied on."""

    def __init__(self, expected: str) -> None:
        super().__init__(Reason.NODE_LOST, f"the node broke the protocol: expected {expected}")


class StreamCheck:
    """Follows one stream from one node; every method raises ProtocolBreach."""

    def __init__(self, node: SpiffeId, max_tokens: int) -> None:
        self._node = node
        self._max_tokens = max_tokens
        self._max_chars = max_tokens * MAX_CHARS_PER_TOKEN + MAX_TEXT_SLACK
        self._chars = 0
        self._empty = 0
        self.tokens = 0
        self.started = False
        self.finished = False

    def on_started(self, node: str) -> None:
        """`node` is who the answer says it is from."""
        if self.started or self.finished:
            raise ProtocolBreach("Started once, at the beginning")
        if node != str(self._node):
            raise ProtocolBreach("an answer from the node that was asked")
        self.started = True

    def on_delta(self, text: str, tokens: int) -> None:
        """New text."""
        if not self.started or self.finished:
            raise ProtocolBreach("text only between Started and Finished")
        self.tokens += tokens
        self._chars += len(text)
        self._empty = 0 if tokens else self._empty + 1
        if self.tokens > self._max_tokens:
            raise ProtocolBreach(f"at most {self._max_tokens} tokens")
        if self._chars > self._max_chars or self._empty > MAX_EMPTY_DELTAS:
            raise ProtocolBreach("text in proportion to its tokens")

    def on_finished(self, reason: str, completion_tokens: int) -> None:
        """The end, as the node states it."""
        if not self.started or self.finished:
            raise ProtocolBreach("Finished once, at the end")
        if reason not in ("stop", "length") or not self.tokens <= completion_tokens <= self._max_tokens:
            raise ProtocolBreach("an end that fits what was sent")
        self.finished = True


def check_embeddings(
    vectors: Sequence[Sequence[float]], texts: int, answered_by: str, node: SpiffeId
) -> None:
    """Raises ProtocolBreach unless there is one finite unit vector per text, all of one dimension."""
    if answered_by != str(node):
        raise ProtocolBreach("an answer from the node that was asked")
    if len(vectors) != texts:
        raise ProtocolBreach(f"{texts} embeddings")
    dimensions = {len(v) for v in vectors}
    if len(dimensions) != 1 or not 0 < next(iter(dimensions)) <= MAX_DIMENSIONS:
        raise ProtocolBreach(f"embeddings of one dimension, at most {MAX_DIMENSIONS}")
    for vector in vectors:
        norm = math.sqrt(math.fsum(x * x for x in vector))
        if not math.isfinite(norm) or abs(norm - 1.0) > UNIT_TOLERANCE:
            raise ProtocolBreach("embeddings of unit length")
