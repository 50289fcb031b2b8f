"""vLLM's pooling runner as the embedder: the same model must give the same vectors either way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh.core.types import Task
from node.engine.embedder import Embedder, package_folder
from node.engine.process_family import Family
from tests.support.engines import family_of, running, tiny_spec

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

TEXTS = ["vaccines are kept cold", "the harbour pilot boards at dawn", "a", "interest " * 100]


async def test_vllm_embeds_like_onnxruntime(tmp_path: Path):
    spec = tiny_spec(tmp_path, embedding_model=str(package_folder()))
    async with running(spec, tmp_path / "run") as engine:
        (model,) = (m for m in engine.models if Task.EMBED in m.tasks)
        vectors = await engine.embed(model.name, TEXTS)
        expected = await asyncio.to_thread(Embedder(tmp_path / "graph").embed, TEXTS)
        for one, other in zip(vectors, expected, strict=True):
            assert sum(a * b for a, b in zip(one, other, strict=True)) == pytest.approx(1, abs=2e-3)
        family: Family = family_of(tmp_path / "run")
        assert len(list(family.members())) > 1
    assert not family.members(), "nothing is left running"
