"""`meshctl client`: identities for callers, and cutting identities off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.cli.certificate import issue_profile
from control.cli.output import Output, OutputOption, emit
from control.cli.session import ProfileOption, act, call, open_session
from mesh.core.types import SpiffeId
from mesh.identity.svid import Svid
from sovereign.mesh.v1 import admin_pb2

app = typer.Typer(help="Issue and revoke identities.")


@app.command()
def issue(
    name: Annotated[str, typer.Argument(help="The client's name.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whom it acts for.")],
    out: Annotated[Path, typer.Option("--out", help="New directory for its profile.", metavar="DIR")],
    ttl: Annotated[
        int, typer.Option("--ttl", help="Life in seconds; it renews itself at half.", min=60, max=86_400)
    ] = 86_400,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a key here, have it certified as a client, and write a profile for meshctl and the SDK."""

    async def work() -> Svid:
        async with open_session(profile) as session:
            return await issue_profile(session, f"/client/{tenant}/{name}", ttl, out)

    svid = act(work(), output)
    emit(
        output,
        {
            "spiffe_id": str(svid.id),
            "serial": svid.serial,
            "not_after": svid.not_after,
            "profile": str(out),
        },
        f"{svid.id} may act through the profile {out}.",
        f"Its certificate {svid.serial} renews itself.",
    )


@app.command()
def revoke(
    identity: Annotated[
        list[str], typer.Argument(help="SPIFFE ids, or paths such as /client/clinic/desk or /node/fra-1.")
    ],
    serial: Annotated[
        list[str] | None, typer.Option("--serial", help="A certificate's serial number, hex. Repeatable.")
    ] = None,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cut identities off, in force within a second: their calls under way end, too."""

    async def work() -> tuple[list[str], int]:
        async with open_session(profile) as session:
            ids = [str(_identity(text, session.profile.trust_domain)) for text in identity]
            request = admin_pb2.RevokeRequest(spiffe_ids=ids, serials=serial or [])
            answer = await call(session.admin.Revoke(request))
            return ids, answer.generation

    ids, generation = act(work(), output)
    emit(
        output,
        {"revoked": ids, "serials": serial or [], "generation": generation},
        f"Revoked (record {generation}): {', '.join([*ids, *(serial or [])])}",
    )


def _identity(text: str, trust_domain: str) -> SpiffeId:
    return SpiffeId.parse(text) if text.startswith("spiffe://") else SpiffeId(trust_domain, text)
