"""`meshctl chat`: one question to a model, placed, streamed, and failed over where permitted."""

from __future__ import annotations

import contextlib
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.context_options import (
    BasisOption,
    ClassOption,
    OnlyInOption,
    PurposeOption,
    RequireOption,
    TimeoutOption,
    context_of,
)
from control.cli.decision_view import decision_json, decision_text
from control.cli.output import Output, OutputOption, console, emit_json, harmless, progress
from control.cli.prompt import PromptArgument, read_prompt, read_text
from control.cli.receipts import ReceiptOption, keep, require_new
from control.cli.session import ProfileOption, act, open_client
from mesh.core.failover import Mode
from mesh.sdk import events
from mesh.sdk.requests import Message, Sampling


def chat(
    prompt: PromptArgument,
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name.")],
    data_class: ClassOption,
    purpose: PurposeOption,
    system: Annotated[
        Path | None, typer.Option("--system", help="File with a system message.", dir_okay=False)
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, max=8192)] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=2)] = 0.0,
    seed: Annotated[int | None, typer.Option("--seed", min=0)] = None,
    transfer_basis: BasisOption = "",
    only_in: OnlyInOption = None,
    require: RequireOption = None,
    timeout: TimeoutOption = 300.0,
    explain: Annotated[bool, typer.Option("--explain", help="Show the decision before the answer.")] = False,
    receipt: ReceiptOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask a model. The answer streams to stdout; --output json gives one event a line."""
    context = context_of(data_class, purpose, transfer_basis, only_in, require)
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)
    require_new(receipt)
    messages = [Message("user", read_prompt(prompt))]
    if system is not None:
        messages.insert(0, Message("system", read_text(system)))
    waiting = contextlib.ExitStack()

    async def work() -> None:
        show = _Show(time.monotonic(), explain)
        async with (
            open_client(profile) as client,
            aclosing(
                client.chat(model, messages, context=context, sampling=sampling, timeout_s=timeout)
            ) as stream,
        ):
            decision, served_by = None, []
            try:
                async for event in stream:
                    if isinstance(event, events.Placed):
                        decision = event.decision
                    elif isinstance(event, events.Started):
                        served_by.append(event.node)
                    if output is Output.JSON:
                        emit_json(event_json(event))
                        continue
                    if not isinstance(event, events.Placed | events.Started) or explain:
                        waiting.close()
                    show(event)
            except events.PlacementRefused as refusal:
                await keep(client, receipt, refusal.decision)
                raise
            # Of the last decision: what nodes served on earlier ones rests on those.
            await keep(client, receipt, decision, served_by)

    with waiting:
        waiting.enter_context(progress("waiting for the first token", output))
        act(work(), Output.JSON)  # the progress is shown here, until text comes


_TAKEN_OVER = {
    Mode.FRESH: "served by",
    Mode.RESUMED: "the text goes on from",
    Mode.RESTARTED: "discard the text above, it begins anew on",
}


class _Show:
    """Prints events for people; what is said about the answer goes apart from the answer."""

    def __init__(self, begun: float, explain: bool) -> None:
        self._begun = begun
        self._explain = explain
        self._first: float | None = None

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Token):
            if self._first is None and event.tokens:
                self._first = time.monotonic() - self._begun
            sys.stdout.write(harmless(event.text) if sys.stdout.isatty() else event.text)
            sys.stdout.flush()
        elif isinstance(event, events.Placed) and self._explain:
            for part in decision_text(event.decision):
                console().print(part)
        elif isinstance(event, events.FailedOver):
            lost = f"{event.from_node.name} is lost ({event.reason.code})"
            sys.stdout.write(f"\n[{lost}: {_TAKEN_OVER[event.mode]} {event.to_node}]\n")
        elif isinstance(event, events.Finished):
            sys.stdout.write("\n")
            if sys.stdout.isatty():
                first = f", first token after {self._first:.2f} s" if self._first is not None else ""
                summary = f"{event.node}, {event.completion_tokens} tokens, {event.reason}{first}"
                console().print(summary, style="dim")


def event_json(event: events.Event) -> dict[str, Any]:
    """An event for programs."""
    if isinstance(event, events.Placed):
        return {"event": "placed", "decision": decision_json(event.decision)}
    if isinstance(event, events.Started):
        return {
            "event": "started",
            "node": str(event.node),
            "decision": event.decision_id,
            "model_digest": event.model_digest,
        }
    if isinstance(event, events.Token):
        return {"event": "token", "text": event.text, "tokens": event.tokens}
    if isinstance(event, events.FailedOver):
        return {
            "event": "failed_over",
            "from": str(event.from_node),
            "to": str(event.to_node),
            "mode": event.mode,
            "reason": event.reason.code,
            "kept_tokens": event.kept_tokens,
            "discarded_tokens": event.discarded_tokens,
        }
    return {
        "event": "finished",
        "reason": event.reason,
        "node": str(event.node),
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
    }
