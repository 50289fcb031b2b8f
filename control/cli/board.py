"""`meshctl board`: looking after the board, on the machine of a node.

It acts with a node's own files: its configuration for where the board is, its trust bundle for what to
believe. No control plane is asked, for this is for when there is none.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ConfigDict, TypeAdapter, ValidationError
from rich.console import RenderableType

from control.cli.output import Output, OutputOption, emit, following, table
from mesh.board_restore import Fate, Restored, read_memory, restore
from mesh.core.errors import MeshError, Reason
from mesh.core.snapshot import TrustBundle
from mesh.identity.bundle import load_bundle_file
from mesh.identity.source import BUNDLE_DIRECTORY
from mesh.identity.svid import load_svid
from mesh.settings import Address, Settings, load_settings
from mesh.store.configured import BOARD_SECRETS, BoardSettings, open_store

app = typer.Typer(help="Put records back on a board that has lost them (beside a node, offline).")

_WORDS = {
    Fate.PUT: "put back",
    Fate.REPLACED: "put in place of an older one",
    Fate.KEPT: "the board has a newer one",
    Fate.REFUSED: "refused",
    Fate.FAILED: "failed",
}


class _Identity(Settings):
    model_config = ConfigDict(extra="ignore")

    directory: Path


class _NodeFile(Settings):
    """What is needed here of mesh-node.yaml; the rest is the daemon's to judge."""

    model_config = ConfigDict(extra="ignore")

    state_directory: Path
    identity: _Identity
    board: BoardSettings


@app.callback()
def _noun() -> None:
    """So that `restore` stays a word of its own."""


@app.command("restore")
def restore_board(
    config: Annotated[
        Path, typer.Option("--config", help="The node's mesh-node.yaml.", dir_okay=False, metavar="FILE")
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A node's memory of the board; else that of the same node.", metavar="DIR"
        ),
    ] = None,
    board: Annotated[
        list[str] | None,
        typer.Option(
            "--board", help="Another etcd than the configured one. Repeatable.", metavar="HOST:PORT"
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put back what a rebuilt board lacks: every record that verifies, and never over a newer one."""
    settings = _read(config, board)
    folder = config.resolve().parent
    memory = read_memory(source or folder / settings.state_directory / "board")
    own = _own_bundle(folder / settings.identity.directory)

    async def work(tell: Callable[[str], None]) -> list[Restored]:
        store = open_store(settings.board.beside(folder))
        try:
            return await restore(
                store, own, memory, time.time, lambda done, of: tell(f"putting back: {done} of {of} records")
            )
        finally:
            await store.aclose()

    with following("reading the board", output) as tell:
        found = asyncio.run(work(tell))
    count = Counter(each.fate for each in found)
    emit(
        output,
        {"records": [_json(each) for each in found], "counts": {fate.value: count[fate] for fate in Fate}},
        *_text(found, count),
    )
    if count[Fate.FAILED]:
        failed = next(each for each in found if each.fate is Fate.FAILED)
        raise MeshError(
            failed.reason or Reason.STORE_UNAVAILABLE, f"{count[Fate.FAILED]} records were not put back"
        )


def _read(config: Path, endpoints: list[str] | None) -> _NodeFile:
    settings = load_settings(_NodeFile, config, os.environ, BOARD_SECRETS)
    if not endpoints:
        return settings
    try:
        checked = TypeAdapter(list[Address]).validate_python(endpoints)
    except ValidationError:
        raise typer.BadParameter("--board: expected host:port") from None
    return settings.model_copy(update={"board": settings.board.model_copy(update={"endpoints": checked})})


def _own_bundle(identity: Path) -> TrustBundle:
    """The authority's own roots, as they came to this node when it joined."""
    trust_domain = load_svid(identity).id.trust_domain
    return load_bundle_file(identity / BUNDLE_DIRECTORY / f"{trust_domain}.json")


def _json(each: Restored) -> dict[str, object]:
    return {
        "key": each.key,
        "generation": each.generation,
        "outcome": each.fate.value,
        "reason": each.reason.code if each.reason else "",
    }


def _text(found: list[Restored], count: Counter[Fate]) -> list[RenderableType]:
    rows = [
        (
            each.key,
            str(each.generation or "-"),
            _WORDS[each.fate] + (f": {each.reason.code}" if each.reason else ""),
        )
        for each in found
        if each.fate is not Fate.THERE
    ]
    there = f", {count[Fate.THERE]} were there" if count[Fate.THERE] else ""
    put = count[Fate.PUT] + count[Fate.REPLACED]
    said = f"{put} of {len(found)} records were put back{there}."
    return [table(("KEY", "GENERATION", "OUTCOME"), rows), said] if rows else [said]
