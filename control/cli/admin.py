"""`meshctl admin`: identities for further administrators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.cli.certificate import issue_profile
from control.cli.output import Output, OutputOption, emit
from control.cli.session import ProfileOption, act, open_session
from mesh.identity.svid import Svid

app = typer.Typer(help="Name further administrators.")


@app.callback()
def group() -> None:
    """Name further administrators."""


@app.command()
def issue(
    name: Annotated[str, typer.Argument(help="The administrator's name.")],
    out: Annotated[Path, typer.Option("--out", help="New directory for the profile.", metavar="DIR")],
    ttl: Annotated[int, typer.Option("--ttl", help="Life in seconds.", min=60, max=86_400)] = 86_400,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a key here, have it certified as an administrator, and write a profile."""

    async def work() -> Svid:
        async with open_session(profile) as session:
            return await issue_profile(session, f"/admin/{name}", ttl, out)

    svid = act(work(), output)
    emit(
        output,
        {"spiffe_id": str(svid.id), "serial": svid.serial, "not_after": svid.not_after, "profile": str(out)},
        f"{svid.id} may act through the profile {out}.",
    )
