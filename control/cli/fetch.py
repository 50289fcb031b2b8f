"""`meshctl fetch`: one passage, by the reference that a search gave."""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.context_options import (
    BasisOption,
    ClassOption,
    OnlyInOption,
    PurposeOption,
    RequireOption,
    context_of,
)
from control.cli.coverage_view import hit_json
from control.cli.output import Output, OutputOption, emit
from control.cli.retrieval_options import Level
from control.cli.session import ProfileOption, act, open_client
from mesh.core.questions import SEARCH_TIMEOUT_S
from mesh.core.retrieval import Hit, Reference


def fetch(
    reference: Annotated[str, typer.Argument(help="As a search printed it.", metavar="REFERENCE")],
    data_class: ClassOption,
    purpose: PurposeOption,
    level: Annotated[Level, typer.Option("--level", help="At most so much of it.")] = Level.PASSAGE,
    transfer_basis: BasisOption = "",
    only_in: OnlyInOption = None,
    require: RequireOption = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for all of it.")] = SEARCH_TIMEOUT_S,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Fetch one passage. Whether it may leave its node is decided anew; exit code 3 if it may not."""
    context = context_of(data_class, purpose, transfer_basis, only_in, require)
    wanted = Reference.parse(reference)

    async def work() -> Hit:
        async with open_client(profile) as client:
            return await client.fetch(wanted, context=context, level=level.value, timeout_s=timeout)

    hit = act(work(), output, "fetching")
    released = hit.released
    about = " ".join(part for part in (released.document, released.source) if part)
    parts = [part for part in (released.title, released.text) if part]
    said = f"{released.level.word} from {hit.reference.node}{': ' + about if about else ''}"
    emit(output, hit_json(hit), *parts, said)
