"""What a replica says of one generation: believed up to its last word, and within bounds."""

from __future__ import annotations

import pytest

from mesh.core.errors import MeshError, Reason
from node.engine import replica_session
from node.engine.base import FinishReason
from node.engine.replica_session import Generation
from sovereign.engine.v1 import engine_pb2


async def test_nothing_counts_after_the_last_word() -> None:
    generation = Generation(1)
    generation.tell(engine_pb2.Event(id=1, text="a", tokens=1, finish="stop", prompt_tokens=7))
    generation.tell(engine_pb2.Event(id=1, text="b", tokens=1, finish="length", prompt_tokens=9))
    piece = await generation.take()
    assert (piece.text, piece.tokens, piece.finish) == ("a", 1, FinishReason.STOP)


async def test_a_flood_that_nobody_reads_ends_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_session, "_MOST_UNREAD", 10)
    generation = Generation(1)
    for _ in range(5):
        generation.tell(engine_pb2.Event(id=1, text="abcd", tokens=1))
    assert (await generation.take()).text == "abcdabcd", "what came before is handed out"
    with pytest.raises(MeshError) as refusal:
        await generation.take()
    assert refusal.value.reason is Reason.ENGINE_FAILED
    assert generation.over
