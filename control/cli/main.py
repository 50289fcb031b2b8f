"""meshctl: the command line of the mesh. Assembles the nouns and turns every error into one line.

Each noun has a file of its own beside this one. Offline commands (authority init, trust export from
an authority's directory, policy test) touch no network; the others act through a profile.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Sequence

import typer

from control.cli import (
    admin,
    ask,
    audit,
    authority,
    board,
    chat,
    client,
    collection,
    embed,
    fetch,
    flow_map,
    index,
    models,
    node,
    place,
    policy,
    search,
    status,
    top,
    trust,
)
from control.cli.output import EXIT_FAILED, report, report_usage
from mesh.core.errors import MeshError, Reason
from mesh.telemetry.logs import describe

app = typer.Typer(
    name="meshctl",
    help="Run an authority of the mesh, and use the mesh.",
    epilog="A profile (--profile or MESHCTL_PROFILE) says who you are and whom to ask. "
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a policy.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(authority.app, name="authority")
app.add_typer(admin.app, name="admin")
app.add_typer(trust.app, name="trust")
app.add_typer(node.app, name="node")
app.add_typer(client.app, name="client")
app.add_typer(policy.app, name="policy")
app.add_typer(collection.app, name="collection")
app.add_typer(index.app, name="index")
app.add_typer(audit.app, name="audit")
app.add_typer(board.app, name="board")
app.command(name="place")(place.place)
app.command(name="chat")(chat.chat)
app.command(name="embed")(embed.embed)
app.command(name="search")(search.search)
app.command(name="ask")(ask.ask)
app.command(name="fetch")(fetch.fetch)
app.command(name="models")(models.models)
app.command(name="status")(status.status)
app.command(name="map")(flow_map.map_flows)
app.command(name="top")(top.top)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises and never shows a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = _wants_json(given)
    try:
        result = app(args=given, prog_name="meshctl", standalone_mode=False)
    except MeshError as error:
        return report(error, as_json=as_json)
    except typer.TyperException as error:
        return report_usage(error.format_message(), as_json=as_json)
    except (typer.Abort, KeyboardInterrupt, asyncio.CancelledError):
        return report(MeshError(Reason.CANCELLED, "interrupted"), as_json=as_json) and 130
    except BrokenPipeError:
        # Whoever read our output has gone; that is their way of saying "enough".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return report(MeshError(Reason.INTERNAL, f"{name}{error.strerror or 'I/O error'}"), as_json=as_json)
    except Exception as error:
        # A mistake of ours: where, in one line, and not what was being said (I1).
        return report(MeshError(Reason.INTERNAL, describe(error)), as_json=as_json)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the `meshctl` script."""
    sys.exit(run())


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether JSON was asked for, even if the arguments as a whole cannot be parsed."""
    following = dict(itertools.pairwise(arguments))
    return (
        "--output=json" in arguments
        or "-ojson" in arguments
        or "json" in (following.get("--output"), following.get("-o"))
    )


if __name__ == "__main__":
    main()
