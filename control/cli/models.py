"""`meshctl models`: what the home nodes serve."""

from __future__ import annotations

from collections.abc import Mapping

from control.cli.output import Output, OutputOption, emit, table
from control.cli.session import ProfileOption, act, open_client
from mesh.core.types import Model, SpiffeId


def models(profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """List the models that the nodes named in the profile serve."""

    async def work() -> Mapping[SpiffeId, tuple[Model, ...]]:
        async with open_client(profile) as client:
            return await client.list_models()

    found = act(work(), output)
    rows = [
        (model.name, node.name, ", ".join(sorted(model.tasks)), str(model.context_tokens), model.digest[:19])
        for node, served in sorted(found.items())
        for model in served
    ]
    data = [
        {
            "node": str(node),
            "name": model.name,
            "digest": model.digest,
            "context_tokens": model.context_tokens,
            "tasks": sorted(model.tasks),
        }
        for node, served in sorted(found.items())
        for model in served
    ]
    emit(output, {"models": data}, table(("MODEL", "NODE", "TASKS", "CONTEXT", "DIGEST"), rows))
