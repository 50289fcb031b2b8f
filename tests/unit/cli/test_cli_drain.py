"""When a node counts as drained, and what is said meanwhile."""

from __future__ import annotations

import pytest

from control.cli.node_drain import GONE_AFTER_S, progress_of
from sovereign.mesh.v1 import admin_pb2, records_pb2

CORDONED_BY = 7


def node(running: int, facts_generation: int) -> admin_pb2.NodeView:
    status = records_pb2.NodeStatus(ready=True, running=running, facts_generation=facts_generation)
    return admin_pb2.NodeView(node="spiffe://de.mesh.example/node/fra-1", status=status)


@pytest.mark.parametrize(
    ("view", "silent_s", "done", "words"),
    [
        (node(0, CORDONED_BY), 0, True, "0 running calls left"),
        (node(0, CORDONED_BY + 1), 0, True, "0 running calls left"),
        (node(1, CORDONED_BY), 0, False, "1 running call left"),
        (node(16, CORDONED_BY), 99, False, "16 running calls left"),
        # it may still take what was permitted before
        (node(0, CORDONED_BY - 1), 99, False, "it has not heard of the cordon yet"),
        (node(0, 0), 99, False, "it has not heard of the cordon yet"),
        (admin_pb2.NodeView(), GONE_AFTER_S / 2, False, "it says nothing"),
        (admin_pb2.NodeView(), GONE_AFTER_S, True, "it says nothing"),
    ],
)
def test_drained_is_what_nothing_permitted_can_reach_any_more(
    view: admin_pb2.NodeView, silent_s: float, done: bool, words: str
):
    found = progress_of(view, CORDONED_BY, silent_s)
    assert found.done is done
    assert found.words("fra-1") == f"draining fra-1: {words}"
