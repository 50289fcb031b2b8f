"""`meshctl node drain`: cordon a node, then wait until nothing is under way on it.

A cordon keeps placements away, but a permit that was signed just before it holds for another minute. So
"nothing is running" alone is no answer: what was permitted may still come. A node therefore says by which
facts it goes, and from the ones that cordon it on it refuses whatever comes (NODE_CORDONED, before the first
byte of an answer, and the caller fails over). It is drained once it has said both: that it goes by this
cordon or a later one, and that nothing is running.

A node that says nothing at all has left the board: its lease has run out. That counts as drained, with a
note, because the one that is off cannot answer, and one that is on but cut off from the board cannot be told
from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from control.cli.node_listing import node_of
from control.cli.output import Output, OutputOption, emit, following
from control.cli.session import ProfileOption, Session, call, open_session
from mesh.core.errors import MeshError, Reason
from sovereign.mesh.v1 import admin_pb2

POLL_S = 0.25
# A node whose lease ran out while it was busy makes a new one with its next heartbeat.
GONE_AFTER_S = 2.0

# The control plane restarts, or is busy. The node is cordoned all the same: what it does is asked again.
_AWAY = frozenset({Reason.UNREACHABLE, Reason.NODE_LOST, Reason.DEADLINE_EXCEEDED, Reason.OVERLOADED})

_GONE = "it is gone from the board: stopped, or cut off from it and then still serving whoever reaches it"


@dataclass(frozen=True, slots=True)
class Draining:
    """How far a node is. `running` calls are under way; -1 where it has not heard of the cordon yet."""

    done: bool
    running: int
    gone: bool = False

    def words(self, name: str) -> str:
        """For people who wait."""
        if self.gone:
            return f"draining {name}: it says nothing"
        if self.running < 0:
            return f"draining {name}: it has not heard of the cordon yet"
        return f"draining {name}: {calls(self.running)} left"


def calls(count: int) -> str:
    """So many running calls, in words."""
    return "1 running call" if count == 1 else f"{count} running calls"


def progress_of(node: admin_pb2.NodeView, cordoned_by: int, silent_s: float) -> Draining:
    """How far the node is, by its latest status.

    `cordoned_by` is the generation of the facts that cordon it; `silent_s` how long it has said nothing.
    """
    if not node.HasField("status"):
        return Draining(silent_s >= GONE_AFTER_S, -1, gone=True)
    if node.status.facts_generation < cordoned_by:
        return Draining(False, -1)
    return Draining(node.status.running == 0, node.status.running)


def drain(
    name: Annotated[str, typer.Argument(help="The node's name.")],
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait.", min=0, max=86_400)] = 300.0,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cordon a node and wait until nothing is under way on it; running calls finish.

    When the time is up it stays cordoned, and the command fails with DEADLINE_EXCEEDED.
    """
    with following(f"draining {name}", output) as tell:
        found, generation = asyncio.run(_drain(name, timeout, profile, tell))
    words = f"{name} is cordoned and idle (record {generation})."
    note = ""
    if found.gone:
        note, words = _GONE, f"{name} is cordoned (record {generation}); {_GONE}."
    emit(output, {"node": name, "drained": True, "generation": generation, "note": note}, words)


async def _drain(
    name: str, timeout_s: float, profile: Path | None, tell: Callable[[str], None]
) -> tuple[Draining, int]:
    async with open_session(profile) as session:
        request = admin_pb2.UpdateNodeRequest(node=name, cordoned=True)
        generation = (await call(session.admin.UpdateNode(request))).generation
        return await _wait(session, name, generation, timeout_s, tell), generation


async def _wait(
    session: Session, name: str, generation: int, timeout_s: float, tell: Callable[[str], None]
) -> Draining:
    began = heard = time.monotonic()
    while True:
        found, away = Draining(False, -1), None
        try:
            node = await node_of(session, name)
            told = node.HasField("status") or not await _board_answers(session)
            now = time.monotonic()
            heard = now if told else heard
            found = progress_of(node, generation, now - heard)
        except MeshError as error:
            if error.reason not in _AWAY:
                raise
            away, heard = error, time.monotonic()  # of the node's silence that says nothing
        if found.done:
            return found
        if time.monotonic() - began >= timeout_s:
            raise _late(name, found, timeout_s, away)
        tell(f"draining {name}: the control plane does not answer" if away else found.words(name))
        await asyncio.sleep(POLL_S)  # the control plane has no stream


async def _board_answers(session: Session) -> bool:
    """Whether the control plane is told what is on the board: if not, it knows of nobody's leaving it."""
    return (await call(session.admin.GetStatus(admin_pb2.GetStatusRequest()))).board_connected


def _late(name: str, found: Draining, timeout_s: float, away: MeshError | None) -> MeshError:
    if away is not None:
        said = f"the control plane does not answer ({away.reason.code})"
    elif found.gone:
        said = "it has just fallen silent"
    elif found.running < 0:
        said = "it has not heard of it"
    else:
        said = f"{calls(found.running)} left"
    facts = {"node": name, "cordoned": "true"}
    if found.running >= 0:
        facts["running"] = str(found.running)
    return MeshError(
        Reason.DEADLINE_EXCEEDED,
        f"{name} stays cordoned and is not idle after {timeout_s:g} s: {said}",
        facts,
    )
