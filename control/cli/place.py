"""`meshctl place`: asking where a request may go, without sending one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from control.cli.context_options import (
    BasisOption,
    ClassOption,
    ModelOption,
    OnlyInOption,
    PurposeOption,
    RequireOption,
    context_of,
)
from control.cli.decision_view import decision_json, decision_text
from control.cli.output import Output, OutputOption, emit
from control.cli.receipts import ReceiptOption, keep, require_new
from control.cli.session import ProfileOption, act, open_client
from mesh.core.placement import Decision
from mesh.core.types import Action
from mesh.sdk.events import PlacementRefused
from mesh.sdk.placers import refusal_message, refusal_of


class What(StrEnum):
    """The actions that can be placed."""

    INFER = "infer"
    EMBED = "embed"
    SEARCH = "search"


def place(
    data_class: ClassOption,
    purpose: PurposeOption,
    model: ModelOption = "",
    action: Annotated[
        What, typer.Option("--action", help="What is to be done; a search names its collection as the model.")
    ] = What.INFER,
    transfer_basis: BasisOption = "",
    only_in: OnlyInOption = None,
    require: RequireOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for every node why, also where it was not needed.")
    ] = False,
    receipt: ReceiptOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask where a request may go and why not elsewhere. Sends no payload. Exit code 3 if nowhere."""
    context = context_of(data_class, purpose, transfer_basis, only_in, require)

    require_new(receipt)

    async def work() -> Decision:
        async with open_client(profile) as client:
            placed = await client.place(context, action=Action(action), model=model, explain=explain)
            await keep(client, receipt, placed.decision)
            return placed.decision

    decision = act(work(), output)
    emit(output, decision_json(decision), *decision_text(decision))
    if not decision.permitted:
        reason = refusal_of(decision)
        raise PlacementRefused(reason, refusal_message(decision), {"decision": decision.id}, None, decision)
