"""`mesh-model`: a model's digest, and fetching the model of a digest. For operators, and for a Job.

Exit codes as meshctl's: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted. Credentials come by the
environment and are shown nowhere.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from mesh.console import emit_json, report, report_usage
from mesh.core.errors import MeshError, Reason
from mesh.telemetry.logs import describe
from node.engine.model_files import computed_digest, is_digest
from node.models.fetch import Watch, fetch
from node.models.progress import shown
from node.models.rules import Rules, readable, size_of
from node.models.sources import EXPECTED, source_of

PROGRAM = "mesh-model"
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name=PROGRAM,
    help="Models on this machine: what they are, by digest, and fetching one.",
    epilog="Credentials come by the environment: HF_TOKEN, AWS_*, MESH_MODEL_AUTHORIZATION. "
    "Exit codes: 0 done, 1 failed or refused, 2 wrong usage.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Output(StrEnum):
    """What stdout carries."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="text for people, json for programs (errors too).")
]


@app.command()
def digest(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model's folder.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the digest of a folder: what engine.model_digest and fetch --digest name."""
    if not folder.is_dir():
        raise MeshError(Reason.NOT_FOUND, f"{folder}: no such folder")
    with shown(output is Output.TEXT) as progress:
        found = computed_digest(folder, progress.verified)
    if output is Output.JSON:
        emit_json({"digest": found, "directory": str(folder)})
    else:
        print(found)


@app.command(name="fetch")
def fetch_model(
    source: Annotated[
        str, typer.Option("--from", metavar="SOURCE", envvar="MESH_MODEL_FROM", help=f"{EXPECTED}.")
    ],
    target: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where it is to be; not there yet.")],
    digest: Annotated[str, typer.Option(help="sha256:<64 hex> that it must have.")],
    max_bytes: Annotated[str, typer.Option(help="More is refused.")] = "1TiB",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Names to leave out, such as '*.bin'.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also files that can run programs when loaded.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring the model of this digest to a folder: verified before it appears there, or not at all."""
    if not is_digest(digest):
        raise MeshError(Reason.REQUEST_INVALID, "--digest: expected sha256:<64 lower-case hex digits>")
    try:
        rules = Rules(size_of(max_bytes), allow_pickle, tuple(exclude or ()))
    except ValueError as error:
        raise MeshError(Reason.REQUEST_INVALID, f"--max-bytes: {error}") from None
    with shown(output is Output.TEXT) as progress:
        watch = Watch(progress.total, progress.wrote, progress.verified)
        source_in = partial(source_of, source, rules, os.environ)
        result = fetch(source_in, target, digest, rules, watch)
    if output is Output.JSON:
        emit_json(
            {
                "digest": result.digest,
                "directory": str(target),
                "files": result.files,
                "bytes": result.bytes,
                "already": result.already,
            }
        )
    else:
        how = "was there already" if result.already else "fetched"
        print(f"{target}: {how}, {result.files} files, {readable(result.bytes)}, {result.digest}")


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises and never shows a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--output=json" in given or "-ojson" in given or _follows(given, ("--output", "-o"), "json")
    try:
        with _ends_on_sigterm():
            if app(args=given, prog_name=PROGRAM, standalone_mode=False) == EXIT_INTERRUPTED:
                raise KeyboardInterrupt  # typer's way of returning from one
    except MeshError as error:
        return report(PROGRAM, error, as_json=as_json)
    except typer.TyperException as error:
        return report_usage(PROGRAM, error.format_message(), as_json=as_json)
    except (typer.Abort, KeyboardInterrupt):
        report(PROGRAM, MeshError(Reason.CANCELLED, "interrupted; nothing is left"), as_json=as_json)
        return EXIT_INTERRUPTED
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        what = MeshError(Reason.INTERNAL, f"{name}{error.strerror or type(error).__name__}")
        return report(PROGRAM, what, as_json=as_json)
    except Exception as error:
        return report(PROGRAM, MeshError(Reason.INTERNAL, describe(error)), as_json=as_json)
    return 0


def main() -> None:
    """Entry point of the `mesh-model` script."""
    code = run()
    if code == EXIT_INTERRUPTED:
        os._exit(code)  # a thread may still wait for an object store; nobody waits for it
    sys.exit(code)


def _follows(given: Sequence[str], options: Sequence[str], value: str) -> bool:
    return any(name in options and word == value for name, word in pairwise(given))


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """What a Job that is stopped gets: swept up behind, as after Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
