"""When a node counts as drained, and what is said meanwhile."""

from __future__ import annotations

import pytest

from control.cli import node_drain
from control.cli.node_drain import GONE_AFTER_S, progress_of
from mesh.core.errors import MeshError, Reason
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


class Plane:
    """A session whose control plane gives these answers, one after the other, and the last one for ever."""

    def __init__(self, *answers: admin_pb2.NodeView | MeshError, board_connected: bool = True) -> None:
        self.admin = self
        self._answers = list(answers)
        self._connected = board_connected

    async def GetStatus(self, request: object) -> admin_pb2.GetStatusResponse:
        return admin_pb2.GetStatusResponse(board_connected=self._connected)

    async def node_of(self, _session: object, _name: str) -> admin_pb2.NodeView:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, MeshError):
            raise answer
        return answer


async def waited(plane: Plane, monkeypatch: pytest.MonkeyPatch, timeout_s: float, told: list[str]):
    monkeypatch.setattr(node_drain, "node_of", plane.node_of)
    monkeypatch.setattr(node_drain, "POLL_S", 0.0)
    return await node_drain._wait(plane, "fra-1", CORDONED_BY, timeout_s, told.append)  # type: ignore[arg-type]


async def test_a_control_plane_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    away = MeshError(Reason.UNREACHABLE, "no answer")
    plane = Plane(node(1, CORDONED_BY), away, away, node(0, CORDONED_BY))
    assert (await waited(plane, monkeypatch, 60, told)).done
    assert told[1:] == ["draining fra-1: the control plane does not answer"] * 2
    with pytest.raises(MeshError) as late:
        await waited(Plane(away), monkeypatch, 0, [])
    assert late.value.reason is Reason.DEADLINE_EXCEEDED
    assert "stays cordoned" in late.value.message
    assert "does not answer (UNREACHABLE)" in late.value.message


async def test_what_is_no_matter_of_waiting_ends_it(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MeshError) as refused:
        await waited(Plane(MeshError(Reason.IDENTITY_REVOKED, "gone")), monkeypatch, 60, [])
    assert refused.value.reason is Reason.IDENTITY_REVOKED


async def test_silence_is_no_leaving_while_the_board_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node_drain, "GONE_AFTER_S", 0.0)
    assert (await waited(Plane(admin_pb2.NodeView()), monkeypatch, 0, [])).gone
    monkeypatch.setattr(node_drain, "GONE_AFTER_S", 0.001)
    with pytest.raises(MeshError) as late:
        await waited(Plane(admin_pb2.NodeView(), board_connected=False), monkeypatch, 0.01, [])
    assert late.value.reason is Reason.DEADLINE_EXCEEDED
