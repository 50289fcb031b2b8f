"""`--receipt FILE`: keeping what the logs hold about the request that a command has just made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from mesh.client import MeshClient
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Decision
from mesh.core.retrieval import Coverage, Outcome
from mesh.core.types import SpiffeId
from mesh.identity.private_files import write_file

ReceiptOption = Annotated[
    Path | None,
    typer.Option(
        "--receipt",
        metavar="FILE",
        help="Keep a receipt of it, which `meshctl audit verify` can check offline.",
        dir_okay=False,
    ),
]
WAIT_S = 8.0


def require_new(file: Path | None) -> None:
    """CONFIG_INVALID if the file is there already: better before anything is sent than after it."""
    if file is not None and file.exists():
        raise MeshError(Reason.CONFIG_INVALID, f"{file.name} exists already and is not overwritten")


def answered(coverage: Iterable[Coverage]) -> list[SpiffeId]:
    """The nodes that answered a question: those that have something to show for it."""
    return [each.node for each in coverage if each.outcome is Outcome.ANSWERED]


async def keep(
    client: MeshClient,
    file: Path | None,
    decision: Decision | None,
    served_by: Iterable[SpiffeId] = (),
) -> None:
    """Fetches and writes it (mode 0600); says on stderr which ends it lacks."""
    if file is None or decision is None:
        return
    fetched = await client.receipt(decision, served_by, wait_s=WAIT_S)
    try:
        write_file(file, fetched.receipt.to_json())
    except OSError as error:
        raise MeshError(Reason.CONFIG_INVALID, f"{file.name} cannot be written: {error.strerror}") from None
    for node, why in fetched.missing.items():
        typer.echo(f"meshctl: the receipt lacks {node}: {why.reason.code}: {why.message}", err=True)
