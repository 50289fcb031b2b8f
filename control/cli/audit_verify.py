"""`meshctl audit verify`: whether a receipt, a bundle or a copy of a log holds, by trust bundles alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.log_files import is_bundle, opened
from control.cli.output import Output, OutputOption, emit, progress
from mesh.attested import attested_by
from mesh.core.cosigned import WITNESSES, VerifiedCheckpoint, origin_of
from mesh.core.errors import MeshError, Reason
from mesh.core.log_range import VerifiedRange, verify_range
from mesh.core.merkle import Frontier, leaf_hash
from mesh.core.receipt import MAX_BYTES, Receipt, VerifiedEnd, verify_receipt
from mesh.core.receipt_story import Story, story_of, story_of_range
from mesh.core.snapshot import TrustBundle
from mesh.evidence.offline import read_entries
from mesh.identity.bundle import MAX_BUNDLE_BYTES, load_bundle
from mesh.identity.log_keys import verify_ed25519
from mesh.identity.private_files import read_file

_MAX_BUNDLES = 256

TrustOption = Annotated[
    list[Path],
    typer.Option("--trust", help="An authority's trust bundle, or a folder of them. May be given again."),
]


def verify(
    file: Annotated[
        Path, typer.Argument(help="A receipt, as --receipt writes it, or a bundle of audit export.")
    ],
    trust: TrustOption,
    witnesses: Annotated[
        int,
        typer.Option("--witnesses", min=0, max=64, help="Of so many other authorities must have cosigned."),
    ] = WITNESSES,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", file_okay=False, help="A copy of a node's log: whether it is the one of the file."
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Verify a receipt or a bundle offline, and say what it proves and what not. Exit code 1 if it fails.

    With --log, every entry of a copy of the log (the folder evidence/decisions of a node) is held against the
    file's checkpoint as well.
    """
    opener = attested_by(_bundles(trust))
    if is_bundle(file):
        with progress("reading the bundle", output), opened(file) as lines:
            found = verify_range(lines.readline, opener, verify_ed25519, witnesses)
        _tell("bundle", story_of_range(found), [found], _range_json(found), log, output)
        return
    read = Receipt.from_json(read_file(file, limit=MAX_BYTES))
    ends = verify_receipt(read, opener, verify_ed25519, witnesses)
    story = story_of(ends)
    document = {"decisions": list(story.decisions), "ends": [_end_json(end) for end in ends]}
    _tell("receipt", story, ends, document, log, output)


def _tell(
    what: str,
    story: Story,
    checkpoints: Sequence[VerifiedCheckpoint],
    document: dict[str, Any],
    log: Path | None,
    output: Output,
) -> None:
    checked: list[str] = []
    if log is not None:
        with progress("reading the log", output):
            checked.append(_same_log(log, checkpoints))
    emit(
        output,
        {
            "holds": True,
            **document,
            "proven": [*story.proven, *checked],
            "not_proven": list(story.not_proven),
        },
        f"The {what} holds. It proves:",
        *(f"  - {line}" for line in (*story.proven, *checked)),
        "It does not prove:",
        *(f"  - {line}" for line in story.not_proven),
    )


def _bundles(paths: Iterable[Path]) -> dict[str, TrustBundle]:
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not 1 <= len(files) <= _MAX_BUNDLES:
        raise MeshError(Reason.CONFIG_INVALID, f"--trust: expected 1 to {_MAX_BUNDLES} bundles")
    found = [load_bundle(read_file(file, limit=MAX_BUNDLE_BYTES)) for file in files]
    bundles = {bundle.trust_domain: bundle for bundle in found}
    if len(bundles) < len(found):
        raise MeshError(Reason.CONFIG_INVALID, "--trust: expected one bundle for each trust domain")
    return bundles


def _same_log(folder: Path, ends: Iterable[VerifiedCheckpoint]) -> str:
    """Whether the folder's entries are those that one of these checkpoints was signed for."""
    by_size: dict[int, list[VerifiedCheckpoint]] = {}
    for end in ends:
        by_size.setdefault(end.checkpoint.size, []).append(end)
    frontier = Frontier()
    for entry in _entries(folder, max(by_size)):
        frontier.append(leaf_hash(entry))
        for end in by_size.get(frontier.size, ()):
            if end.checkpoint.root == frontier.root():
                name = origin_of(end.node)
                return (
                    f"the copy in {folder.name} is the log of {name}, entry by entry, up to {frontier.size}"
                )
    raise MeshError(
        Reason.RECEIPT_INVALID,
        f"{folder.name}: expected the entries that one of the file's checkpoints was signed for;"
        " these are others, or fewer",
    )


def _entries(folder: Path, last: int) -> Iterator[bytes]:
    began = time.monotonic()
    for number, entry in enumerate(read_entries(folder)):
        if number >= last:
            return
        if number % 100_000 == 0 and time.monotonic() - began > 2:
            typer.echo(f"read {number:,} of {last:,} entries", err=True)
        yield entry


def _end_json(end: VerifiedEnd) -> dict[str, Any]:
    entries = [{"index": index, "entry": dict(entry)} for index, entry in end.entries]
    return {**_checkpoint_json(end), "entries": entries}


def _range_json(found: VerifiedRange) -> dict[str, Any]:
    first, last = found.times or (None, None)
    return {
        **_checkpoint_json(found),
        "first": found.first,
        "last": found.last,
        "entries": found.last - found.first + 1,
        "times": {"earliest": first, "latest": last},
    }


def _checkpoint_json(found: VerifiedCheckpoint) -> dict[str, Any]:
    return {
        "node": str(found.node),
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
        "witnesses": [{"node": str(each.witness), "at": each.at} for each in found.witnessed],
    }
