"""A node serves what both sides permit: streams, embeddings, models, health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.mesh import Mesh, context, mesh_of


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with mesh_of(tmp_path, "DE", "FR", "US") as made:
        for country, name in (("DE", "fra-1"), ("FR", "par-1"), ("US", "nyc-1")):
            await made[country].node(name)
        yield made


async def test_placed_then_served(mesh: Mesh):
    clinic = mesh["DE"].caller("clinic")
    asked = context(["special-category"])
    placed = await clinic.place(asked)
    node = mesh["DE"].nodes["fra-1"]
    assert placed.decision.chosen == str(node.id)
    permit = placed.targets[0].permit.SerializeToString()
    events = await clinic.send(node, clinic.chat_request(asked, permit, max_tokens=3))
    assert [event.WhichOneof("event") for event in events] == [
        "started",
        "delta",
        "delta",
        "delta",
        "finished",
    ]
    assert events[0].started.node == str(node.id)
    assert events[-1].finished.completion_tokens == 3
    assert node.engine.finished == 1
