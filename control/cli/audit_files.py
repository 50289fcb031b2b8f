"""`meshctl audit export` and `report`: what is read out of decision logs into files of one's own.

Files are mode 0600, appear whole or not at all, and replace nothing without --force.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from control.cli.audit_bundle import export_bundle
from control.cli.audit_options import (
    CallerOption,
    ClassOption,
    ForceOption,
    FromCountryOption,
    IdOption,
    KindOption,
    LogOption,
    OutcomeOption,
    PurposeOption,
    ReadNodeOption,
    SinceOption,
    ToCountryOption,
    UntilOption,
    chosen,
)
from control.cli.audit_report_view import report_text
from control.cli.audit_sources import exported_line, leaves_of, open_sources
from control.cli.audit_view import CSV_COLUMNS, Trouble, csv_row, unreadable_text
from control.cli.output import Output, OutputOption, emit
from control.cli.session import ProfileOption, act
from mesh.core.audit_entries import Leaf, LoggedEntry
from mesh.core.audit_filter import EntryFilter, period_of
from mesh.core.audit_html import render
from mesh.core.audit_report import AuditReport
from mesh.core.errors import MeshError, Reason
from mesh.identity.private_files import write_file, writing_file


class Format(StrEnum):
    """What an export is made of."""

    JSONL = "jsonl"
    CSV = "csv"
    BUNDLE = "bundle"


def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write, mode 0600.", dir_okay=False)],
    log: LogOption = None,
    node: ReadNodeOption = None,
    format: Annotated[
        Format, typer.Option("--format", help="jsonl keeps entries whole; a bundle proves that it does.")
    ] = Format.JSONL,
    kind: KindOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    caller: CallerOption = "",
    data_class: ClassOption = "",
    purpose: PurposeOption = "",
    outcome: OutcomeOption = "",
    from_country: FromCountryOption = "",
    to_country: ToCountryOption = "",
    id: IdOption = "",
    force: ForceOption = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write entries to a file: JSON lines, which --log reads again, or CSV for spreadsheets.

    Entries that cannot be read are in a JSONL export of everything, as such; never in CSV. A bundle is a
    whole range of one running node's log, signed and witnessed, for audit verify: the smallest that has all
    entries from --from to before --to.
    """
    wanted = chosen(kind, since, until, caller, data_class, purpose, outcome, from_country, to_country, id)
    _require_new(out, force)
    if format is Format.BUNDLE:
        export_bundle(out, log, node, wanted, profile, output, replace=force)
        return

    async def work(write: Callable[[Leaf, LoggedEntry | None], None]) -> tuple[int, Trouble]:
        trouble, written = Trouble(), 0
        async with aclosing(leaves_of(open_sources(log, node, profile))) as leaves:
            async for leaf in leaves:
                entry = trouble.read(leaf)
                if entry is not None and wanted.matches(entry):
                    written += 1
                    write(leaf, entry)
                elif entry is None and wanted == EntryFilter():
                    write(leaf, None)
        return written, trouble

    with writing_file(out, replace=force) as file:
        write = _csv_writer(file) if format is Format.CSV else _lines_writer(file)
        written, trouble = act(work(write), output, "exporting")
    emit(
        output,
        {"file": str(out), "format": format.value, "entries": written, **trouble.json()},
        f"wrote {written:,} entries to {out}",
        *unreadable_text(trouble.found, trouble.total),
    )


def report(
    log: LogOption = None,
    node: ReadNodeOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="A page for people (HTML), mode 0600.", dir_okay=False)
    ] = None,
    force: ForceOption = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Sum a period up: which data went where, for what, by which policies, and what was refused.

    Evidence for a person to judge. --out writes a page with a picture, --output json a document.
    """
    now = time.time()
    summed = AuditReport(period_of(since, until, now))
    if out is not None:
        _require_new(out, force)

    async def work() -> dict[str, Any]:
        async with aclosing(leaves_of(open_sources(log, node, profile))) as leaves:
            async for leaf in leaves:
                summed.add(leaf)
        return summed.document(made_at=now)

    document = act(work(), output, "reading")
    if out is not None:
        write_file(out, render(document).encode(), replace=force)
    emit(output, document, *report_text(document), *([f"wrote {out}"] if out is not None else []))


def _require_new(out: Path, force: bool) -> None:
    """Before anything is read; the writing itself replaces nothing either."""
    if not force and (out.exists() or out.is_symlink()):
        raise MeshError(
            Reason.CONFIG_INVALID, f"{out.name} exists already and is not overwritten: see --force"
        )
    if not out.parent.is_dir():
        raise MeshError(Reason.NOT_FOUND, f"expected a folder for {out.name}")


def _lines_writer(file: BinaryIO) -> Callable[[Leaf, LoggedEntry | None], None]:
    def write(leaf: Leaf, entry: LoggedEntry | None) -> None:
        file.write(exported_line(leaf, readable=entry is not None))

    return write


def _csv_writer(file: BinaryIO) -> Callable[[Leaf, LoggedEntry | None], None]:
    def write_row(cells: list[str]) -> None:
        row = io.StringIO()
        csv.writer(row).writerow(cells)
        file.write(row.getvalue().encode())

    def write(leaf: Leaf, entry: LoggedEntry | None) -> None:
        if entry is not None:
            write_row(csv_row(entry))

    write_row(list(CSV_COLUMNS))
    return write
