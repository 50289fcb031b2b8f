"""`meshctl node`: letting nodes join, looking at them, taking them out of service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.cli.enrol import enrol
from control.cli.node_drain import drain
from control.cli.node_listing import node_of, nodes_of
from control.cli.node_view import facts_lines, node_json, node_lines, node_rows
from control.cli.output import Output, OutputOption, emit, table
from control.cli.session import ProfileOption, act, call, open_session
from mesh import codec
from mesh.core.types import NodeFacts
from sovereign.mesh.v1 import admin_pb2

app = typer.Typer(help="Let nodes join, look at them, take them out of service.")

NameArgument = Annotated[str, typer.Argument(help="The node's name.")]


@app.command()
def token(
    name: NameArgument,
    location: Annotated[str, typer.Option("--location", help="Country where the machine stands.")],
    operator: Annotated[str, typer.Option("--operator", help="Country of the operator's domicile.")],
    controller: Annotated[
        str, typer.Option("--controller", help="Country of whoever ultimately controls the operator.")
    ],
    admin_access: Annotated[
        list[str], typer.Option("--admin-access", help="Country from where it is administered. Repeatable.")
    ],
    assurance: Annotated[
        list[str] | None, typer.Option("--assurance", help="Such as C5. Repeatable.")
    ] = None,
    ttl: Annotated[int, typer.Option("--ttl", help="Seconds until it expires.", min=60, max=86_400)] = 3600,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a one-time join token, and state what policies will judge the node by."""
    facts = NodeFacts(location, operator, controller, frozenset(admin_access), frozenset(assurance or ()))

    async def work() -> admin_pb2.CreateJoinTokenResponse:
        async with open_session(profile) as session:
            request = admin_pb2.CreateJoinTokenRequest(
                node=name, facts=codec.facts_to_pb(facts), ttl_seconds=ttl
            )
            return await call(session.admin.CreateJoinToken(request))

    made = act(work(), output)
    # Text mode prints the token alone, so that it can be piped to where it is needed.
    emit(output, {"node": name, "token": made.token, "expires_at": made.expires_at_ms / 1000}, made.token)


@app.command()
def enroll(
    token: Annotated[
        str,
        typer.Option(
            "--token", envvar="MESHCTL_JOIN_TOKEN", help="From `meshctl node token`. Better in the variable."
        ),
    ],
    control: Annotated[str, typer.Option("--control", help="Enrolment endpoint.", metavar="HOST:PORT")],
    trust_bundle: Annotated[
        Path, typer.Option("--trust-bundle", help="The authority's bundle.", dir_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="New directory for the identity.", metavar="DIR")],
    control_name: Annotated[str, typer.Option("--control-name", help="The control plane's name.")] = "main",
    output: OutputOption = Output.TEXT,
) -> None:
    """Run on the node's machine: make its key here and have it certified."""
    svid = act(enrol(token, control, control_name, trust_bundle, out), output, "enrolling")
    emit(
        output,
        {"spiffe_id": str(svid.id), "serial": svid.serial, "not_after": svid.not_after, "identity": str(out)},
        f"{svid.id} is enrolled; its identity is in {out}.",
        "Name that directory in mesh-node.yaml as identity.directory; the node renews it by itself.",
    )


@app.command("list")
def list_nodes(profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """List the nodes of every authority that this one knows."""

    async def work() -> list[admin_pb2.NodeView]:
        async with open_session(profile) as session:
            return await nodes_of(session)

    nodes = act(work(), output)
    columns = ("NODE", "AUTHORITY", "IN", "OPERATOR", "CONTROL", "STATE", "LOAD", "MODELS")
    emit(
        output,
        {"nodes": [node_json(n) for n in nodes]},
        table(columns, node_rows(nodes)),
    )


@app.command()
def describe(name: NameArgument, profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """Show all that is known of one node: who states what."""

    async def work() -> admin_pb2.NodeView:
        async with open_session(profile) as session:
            return await node_of(session, name)

    node = act(work(), output)
    emit(output, node_json(node), *node_lines(node))


@app.command()
def cordon(name: NameArgument, profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """Give a node no new requests; those under way finish."""
    _set_cordon(name, True, profile, output)


@app.command()
def uncordon(name: NameArgument, profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """Give a node requests again."""
    _set_cordon(name, False, profile, output)


app.command()(drain)


def _set_cordon(name: str, cordoned: bool, profile: Path | None, output: Output) -> None:
    async def work() -> admin_pb2.UpdateNodeResponse:
        async with open_session(profile) as session:
            return await call(
                session.admin.UpdateNode(admin_pb2.UpdateNodeRequest(node=name, cordoned=cordoned))
            )

    answer = act(work(), output)
    state = "cordoned" if cordoned else "in service"
    emit(
        output,
        {"node": name, "cordoned": cordoned, "generation": answer.generation},
        f"{name} is {state} (record {answer.generation}).",
        *facts_lines(answer.facts),
    )
