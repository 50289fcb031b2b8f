"""`meshctl top`: the nodes of the mesh as this authority sees them, again every second.

The control plane says what the board has of every node; each own node is asked for its last minute
(NodeAdmin), all at once and not for long: a node that hangs must not stop the table.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.live import Live

from control.cli.output import Output, OutputOption, console, emit_json, progress
from control.cli.session import ProfileOption, Session, call, open_session
from control.cli.top_view import Board, Sort, Told, board_json, board_of, board_text
from mesh.core.errors import MeshError, Reason
from mesh.core.types import SpiffeId
from mesh.identity.names import dns_name_of
from mesh.rpc.status import from_rpc_error
from sovereign.mesh.v1 import admin_pb2, node_admin_pb2, node_admin_pb2_grpc

NODE_TIMEOUT_S = 2.0
MAX_ASKED_AT_ONCE = 32
# Whoever watches for hours needs a new certificate now and then, which opening the profile gets.
SESSION_S = 600.0
# Lines that are not rows: what is above and below the table, and the cursor's.
_LINES_AROUND = 7


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every: Annotated[
        float, typer.Option("--every", help="Seconds between two looks.", min=0.2, max=3600)
    ] = 1.0,
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first.")] = Sort.LOAD,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Show so many nodes; as many as there is room for, if left out.", min=1),
    ] = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Watch the nodes: state, load, age of records, certificates; of own nodes also rates and times.

    Ends by Ctrl-C. With --output json, one object a look. What is no terminal gets one table.
    """
    once = once or (output is Output.TEXT and not sys.stdout.isatty())
    try:
        asyncio.run(_watch(profile, once, every, sort, limit, output))
    except KeyboardInterrupt:
        return


async def _watch(
    profile: Path | None, once: bool, every: float, sort: Sort, limit: int | None, output: Output
) -> None:
    screen = console()
    if once:
        with progress("asking", output):
            async with open_session(profile) as session:
                board = await _look(session, sort, limit)
        if output is Output.JSON:
            emit_json(board_json(board))
        else:
            screen.print(board_text(board, screen.size.width))
        return
    live = Live(console=screen, auto_refresh=False) if output is Output.TEXT else None
    last: Board | None = None
    if live is not None:
        live.start()
    try:
        while True:
            until = time.monotonic() + SESSION_S
            async with open_session(profile) as session:
                while time.monotonic() < until:
                    began, trouble = time.monotonic(), None
                    room = max(1, screen.size.height - _LINES_AROUND) if live is not None else None
                    try:
                        last = await _look(session, sort, limit if limit is not None else room)
                    except MeshError as error:
                        if last is None:
                            raise
                        trouble = error
                    _show(live, last, trouble)
                    await asyncio.sleep(max(0.0, every - (time.monotonic() - began)))
    finally:
        if live is not None:
            live.stop()


def _show(live: Live | None, board: Board, trouble: MeshError | None) -> None:
    if live is not None:
        why = f"{trouble.reason.code}: this is not newer" if trouble else ""
        live.update(board_text(board, live.console.size.width, why), refresh=True)
    elif trouble is not None:
        emit_json({"at": time.time(), "error": {"reason": trouble.reason.code, "message": trouble.message}})
    else:
        emit_json(board_json(board))


async def _look(session: Session, sort: Sort, limit: int | None) -> Board:
    """One look at everything; raises MeshError if the control plane does not answer."""
    status, listed = await asyncio.gather(
        call(session.admin.GetStatus(admin_pb2.GetStatusRequest())),
        call(session.admin.ListNodes(admin_pb2.ListNodesRequest())),
    )
    own = [
        (SpiffeId.parse(node.node), node.record.endpoints[0])
        for node in listed.nodes
        if node.HasField("status")
        and node.record.endpoints
        and node.node.startswith(f"spiffe://{session.profile.trust_domain}/node/")
    ]
    told = await _ask_all(session, own)
    return board_of(status, listed.nodes, told, time.time(), sort, limit)


async def _ask_all(session: Session, nodes: Sequence[tuple[SpiffeId, str]]) -> dict[str, Told]:
    turns = asyncio.Semaphore(MAX_ASKED_AT_ONCE)

    async def ask(node: SpiffeId, endpoint: str) -> Told:
        async with turns:
            return await _ask(session, node, endpoint)

    answers = await asyncio.gather(*(ask(node, endpoint) for node, endpoint in nodes))
    return {str(node): told for (node, _), told in zip(nodes, answers, strict=True)}


async def _ask(session: Session, node: SpiffeId, endpoint: str) -> Told:
    channel = session.pool.channel(endpoint, dns_name=dns_name_of(node), trust_domain=node.trust_domain)
    stub = node_admin_pb2_grpc.NodeAdminStub(channel)
    try:
        async with asyncio.timeout(NODE_TIMEOUT_S):
            return Told(await stub.GetLastMinute(node_admin_pb2.GetLastMinuteRequest()))
    except TimeoutError:
        return Told(silent=Reason.UNREACHABLE)
    except grpc.RpcError as error:
        return Told(silent=from_rpc_error(error).reason)
