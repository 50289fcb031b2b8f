"""`meshctl embed`: texts to embeddings, where permitted."""

from __future__ import annotations

from typing import Annotated

import typer

from control.cli.context_options import (
    BasisOption,
    ClassOption,
    ModelOption,
    OnlyInOption,
    PurposeOption,
    RequireOption,
    TimeoutOption,
    context_of,
)
from control.cli.output import Output, OutputOption, emit, table
from control.cli.prompt import read_prompt
from control.cli.receipts import ReceiptOption, keep, require_new
from control.cli.session import ProfileOption, act, open_client
from mesh.sdk.events import Embeddings


def embed(
    text: Annotated[list[str], typer.Argument(help='Texts; "-" reads one from standard input.')],
    data_class: ClassOption,
    purpose: PurposeOption,
    model: ModelOption = "",
    transfer_basis: BasisOption = "",
    only_in: OnlyInOption = None,
    require: RequireOption = None,
    timeout: TimeoutOption = 60.0,
    receipt: ReceiptOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Embed texts. As text, shows the first numbers of each; --output json gives all."""
    context = context_of(data_class, purpose, transfer_basis, only_in, require)
    texts = [read_prompt(part) for part in text]
    require_new(receipt)

    async def work() -> Embeddings:
        async with open_client(profile) as client:
            found = await client.embed(texts, context=context, model=model, timeout_s=timeout)
            await keep(client, receipt, found.decision, [found.node])
            return found

    found = act(work(), output)
    rows = [
        (str(position), str(len(vector)), ", ".join(f"{x:.4f}" for x in vector[:4]) + ", ...")
        for position, vector in enumerate(found.vectors, 1)
    ]
    emit(
        output,
        {
            "node": str(found.node),
            "model_digest": found.model_digest,
            "decision": found.decision.id,
            "embeddings": found.vectors,
        },
        table(("TEXT", "DIMENSIONS", "BEGINS"), rows),
        f"by {found.node}",
    )
