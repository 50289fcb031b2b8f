"""`meshctl index ingest`: files and folders into a node's index, with what becomes of each.

What a node has acknowledged stays, however the command ends; running it again sends what is missing or
has changed. So there is nothing to clean up after an interruption, and no state is kept here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from control.cli.consent import YesOption, require_consent
from control.cli.node_link import NodeOption, open_index
from control.cli.output import EXIT_FAILED, Output, OutputOption, emit, emit_json, report, table
from control.cli.session import ProfileOption, act
from mesh.core.documents import MAX_PAGE, DocumentInfo, FileSkipped, SkippedRow
from mesh.core.errors import MeshError, Reason
from mesh.sdk.documents import FileDone, IndexClient, SoFar
from mesh.sdk.files import LeftOut, SourceFile, files_under

EXIT_INTERRUPTED = 130
_LINE_EVERY_S = 10.0
_MAX_SHOWN = 200


@dataclass
class _Sum:
    """What has become of the files so far."""

    files: int = 0
    sent: int = 0
    bytes: int = 0
    documents: int = 0
    chunks: int = 0
    unchanged: int = 0
    stored_so_far: int = 0
    pruned: int = 0
    skipped: list[tuple[str, SkippedRow]] = field(default_factory=list)
    skipped_total: int = 0

    def add(self, done: FileDone) -> None:
        self.files += 1
        self.sent += done.sent
        self.bytes += done.file.bytes
        outcome = done.outcome
        if isinstance(outcome, FileSkipped):
            self._skip(done.file.name, SkippedRow(0, outcome.reason, outcome.detail))
            self.skipped_total += 1
            return
        self.documents += outcome.documents
        self.chunks += outcome.chunks
        self.unchanged += outcome.unchanged
        self.skipped_total += outcome.rows_total
        for row in outcome.rows:
            self._skip(done.file.name, row)

    def _skip(self, name: str, row: SkippedRow) -> None:
        if len(self.skipped) < 10 * _MAX_SHOWN:
            self.skipped.append((name, row))


def ingest(
    collection: Annotated[str, typer.Argument(help="The collection's name.")],
    path: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    node: NodeOption,
    data_class: Annotated[
        list[str] | None, typer.Option("--class", help="Data class, where a file names none. Repeatable.")
    ] = None,
    owner: Annotated[str, typer.Option("--owner", help="Who answers for the documents.")] = "",
    language: Annotated[str, typer.Option("--language", help="BCP 47, such as de.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Only callers of this tenant find them.")] = "",
    retain_until: Annotated[
        str, typer.Option("--retain-until", help="From this day on they are gone.", metavar="DATE")
    ] = "",
    source_prefix: Annotated[
        str, typer.Option("--source-prefix", help="Put before each file's name, such as wiki/.")
    ] = "",
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete documents of files that are gone from the folders.")
    ] = False,
    yes: YesOption = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> int:
    """Send documents to a node: what it does not have yet, and what has changed.

    Folders are walked (no links, no hidden files). Exit code 1 if something could not be stored.
    """
    files, left_out = files_under(path, source_prefix)
    if prune and any(each.unreadable for each in left_out):
        raise MeshError(
            Reason.NOT_FOUND, "--prune: some folders cannot be read, so nothing is known to be gone"
        )
    said = DocumentInfo(
        classes=tuple(data_class or ()),
        owner=owner,
        language=language,
        tenant=tenant,
        retain_until=retain_until,
    )
    total = _Sum()

    async def work() -> None:
        async with open_index(profile, node) as index:
            with _shown(files, output) as show:
                async with aclosing(index.ingest(collection, files, said)) as events:
                    async for event in events:
                        if isinstance(event, SoFar):
                            total.stored_so_far = event.documents
                        else:
                            total.add(event)
                        show(total)
            if prune:
                total.pruned = await _prune(
                    index, collection, {file.name for file in files}, _roots(path, source_prefix), yes
                )

    try:
        act(work(), Output.JSON)  # it shows its own progress
    except KeyboardInterrupt:
        stopped = MeshError(Reason.CANCELLED, _how_to_go_on(total, len(files)))
        report(stopped, as_json=output is Output.JSON)
        return EXIT_INTERRUPTED
    except MeshError as error:
        if not total.files:
            raise
        raise MeshError(
            error.reason, f"{error.message}; {_how_to_go_on(total, len(files))}", error.metadata
        ) from None
    _report(total, left_out, node, collection, output)
    return EXIT_FAILED if total.skipped_total else 0


def _how_to_go_on(total: _Sum, files: int) -> str:
    return f"{total.files:,} of {files:,} files are done and stay so: run the same command again to go on"


async def _prune(
    index: IndexClient, collection: str, there: set[str], roots: tuple[str, ...], yes: bool
) -> int:
    """Deletes documents that came from below one of the roots, from a file that is not there any more."""
    gone: list[str] = []
    after, more = "", True
    while more:
        page, more = await index.documents(collection, after=after, limit=MAX_PAGE)
        for document in page:
            if document.info.source.startswith(roots) and document.info.source not in there:
                gone.append(document.info.id)
            after = document.info.id
    if not gone:
        return 0
    require_consent(f"Delete {len(gone):,} documents of files that are gone?", yes)
    return await index.forget(collection, gone)


def _roots(paths: list[Path], prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{path.resolve().name}/" for path in paths if path.is_dir())


@contextmanager
def _shown(files: list[SourceFile], output: Output) -> Iterator[Any]:
    """Shows how far it is: a bar on a terminal, a line now and then elsewhere, nothing for programs."""
    size = sum(file.bytes for file in files)
    began = time.monotonic()
    if output is Output.JSON:
        yield lambda total: None
        return
    if not sys.stderr.isatty():
        last = began

        def line(total: _Sum) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_EVERY_S:
                last = time.monotonic()
                sys.stderr.write(f"{total.files} of {len(files)} files, {_rate(total, last - began)}\n")

        yield line
        return
    columns = (
        TextColumn("{task.fields[done]}/{task.fields[of]} files"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task: TaskID = bar.add_task("", total=max(1, size), done=0, of=len(files), rate="")

        def draw(total: _Sum) -> None:
            rate = _rate(total, time.monotonic() - began)
            bar.update(task, completed=total.bytes, done=total.files, rate=rate)

        yield draw


def _rate(total: _Sum, seconds: float) -> str:
    seconds = max(seconds, 0.001)
    documents = max(total.documents, total.stored_so_far)
    return f"{documents / seconds:.1f} documents/s, {total.bytes / seconds / 1e6:.2f} MB/s"


def _report(total: _Sum, left_out: list[LeftOut], node: str, collection: str, output: Output) -> None:
    data = {
        "node": node,
        "collection": collection,
        "files": total.files,
        "sent": total.sent,
        "documents": total.documents,
        "unchanged": total.unchanged,
        "chunks": total.chunks,
        "pruned": total.pruned,
        "skipped_total": total.skipped_total,
        "skipped": [{"file": name, **asdict(row)} for name, row in total.skipped],
        "left_out": [{"path": str(each.path), "why": each.why} for each in left_out],
    }
    if output is Output.JSON:
        emit_json(data)
        return
    lines: list[Any] = [
        f"{node} holds {total.documents:,} documents of {total.files:,} files in {collection}: "
        f"{total.chunks:,} chunks; {total.unchanged:,} documents were there already."
    ]
    if total.pruned:
        lines.append(f"{total.pruned:,} documents of files that are gone were deleted.")
    if left_out:
        kinds = sorted({each.why for each in left_out})
        lines.append(f"{len(left_out):,} paths were left out: {', '.join(kinds)}.")
    if total.skipped:
        rows = [
            (name, str(row.row or ""), row.reason, row.detail) for name, row in total.skipped[:_MAX_SHOWN]
        ]
        lines.append(table(("SKIPPED", "ROW", "REASON", "EXPECTED"), rows))
        if total.skipped_total > len(rows):
            lines.append(f"and {total.skipped_total - len(rows):,} more (--output json lists them)")
    emit(output, data, *lines)
