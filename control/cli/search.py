"""`meshctl search`: the best passages over every node that may be asked."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any

import typer

from control.cli.context_options import (
    BasisOption,
    ClassOption,
    OnlyInOption,
    PurposeOption,
    RequireOption,
    context_of,
)
from control.cli.coverage_view import coverage_json, coverage_text, hit_json, hits_table, nobody_answered
from control.cli.decision_view import decision_json
from control.cli.output import Output, OutputOption, console, emit, emit_json
from control.cli.prompt import read_prompt
from control.cli.receipts import ReceiptOption, answered, keep, require_new
from control.cli.retrieval_options import (
    CollectionArgument,
    FilterOption,
    Level,
    QuestionArgument,
    filters_of,
)
from control.cli.session import ProfileOption, act, open_client
from mesh.core.errors import MeshError, Reason
from mesh.core.placement import Decision
from mesh.core.questions import DEFAULT_K, SEARCH_TIMEOUT_S, Partial, SearchDecided, SearchResult
from mesh.core.retrieval import SearchMode


def search(
    collection: CollectionArgument,
    question: QuestionArgument,
    data_class: ClassOption,
    purpose: PurposeOption,
    k: Annotated[int, typer.Option("-k", help="How many hits: 1 to 100.")] = DEFAULT_K,
    mode: Annotated[SearchMode, typer.Option("--mode", help="How to rank.")] = SearchMode.HYBRID,
    filters: FilterOption = None,
    level: Annotated[
        Level, typer.Option("--level", help="Show at most so much of each hit.")
    ] = Level.REFERENCE,
    partial: Annotated[
        bool, typer.Option("--partial", help="Show provisional hits as nodes answer.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Look at every chunk instead of the approximate index.")
    ] = False,
    transfer_basis: BasisOption = "",
    only_in: OnlyInOption = None,
    require: RequireOption = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for all of it.")] = SEARCH_TIMEOUT_S,
    receipt: ReceiptOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Search a collection on every node that may be asked. Exit code 3 if policies leave none.

    With --partial, --output json gives one event a line, the result last.
    """
    context = context_of(data_class, purpose, transfer_basis, only_in, require)
    query, fields = read_prompt(question), filters_of(filters)
    require_new(receipt)

    async def work() -> tuple[dict[str, Any], SearchResult]:
        decided: dict[str, Any] = {}
        decision: Decision | None = None
        async with (
            open_client(profile) as client,
            aclosing(
                client.search(
                    query,
                    collection,
                    context=context,
                    k=k,
                    mode=mode,
                    filters=fields,
                    level=level.value,
                    partial=partial,
                    timeout_s=timeout,
                    exact=exact,
                )
            ) as events,
        ):
            async for event in events:
                if isinstance(event, SearchDecided):
                    decision, decided = event.decision, decision_json(event.decision)
                elif isinstance(event, Partial):
                    _show_partial(event, output)
                else:
                    await keep(client, receipt, decision, answered(event.coverage))
                    return decided, event
        raise MeshError(Reason.INTERNAL, "the search ended without a result")

    decided, result = act(work(), output, "searching")
    emit(
        output,
        {
            "event": "result",
            "hits": [hit_json(hit) for hit in result.hits],
            "coverage": [coverage_json(node) for node in result.coverage],
            "complete": result.complete,
            "decision": decided,
        },
        hits_table(result.hits),
        "",
        *coverage_text(result.coverage, result.complete),
    )
    failure = nobody_answered(result.coverage)
    if failure is not None:
        raise failure


def _show_partial(event: Partial, output: Output) -> None:
    if output is Output.JSON:
        hits = [hit_json(hit) for hit in event.hits]
        emit_json({"event": "partial", "hits": hits, "node": coverage_json(event.node)})
        return
    console().print(f"so far, with {event.node.node.name} ({event.node.latency_ms:.0f} ms):")
    console().print(hits_table(event.hits))
    console().print("")
