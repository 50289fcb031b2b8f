"""`meshctl index`: a node's own documents: make an index, fill it, look at it, empty it, remove it.

Documents go from here to the one node that is named, and stay there.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from control.cli.consent import YesOption, require_consent
from control.cli.index_ingest import ingest
from control.cli.node_link import NodeOption, open_index
from control.cli.output import Output, OutputOption, console, emit, harmless, table
from control.cli.prompt import read_prompt
from control.cli.session import ProfileOption, act
from mesh.core.documents import HeldDocument, IndexReport

app = typer.Typer(help="Fill a node with documents, and see what it holds.")
app.command()(ingest)

CollectionArgument = Annotated[str, typer.Argument(help="The collection's name.")]


@app.command()
def create(
    collection: CollectionArgument,
    node: NodeOption,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make an empty index for a collection that your authority has published."""

    async def work() -> IndexReport:
        async with open_index(profile, node) as index:
            return await index.create(collection)

    made = act(work(), output, "making the index")
    emit(output, _json(made), f"{node} holds {made.collection} now, empty ({made.digest}).")


@app.command()
def status(
    node: NodeOption,
    collection: Annotated[str, typer.Argument(help="One collection; all if left out.")] = "",
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what a node holds, and how its indexes are."""

    async def work() -> tuple[IndexReport, ...]:
        async with open_index(profile, node) as index:
            return await index.status(collection)

    reports = act(work(), output)
    rows = [
        (
            report.collection,
            report.state + (f": {report.detail}" if report.detail else ""),
            f"{report.documents:,}",
            f"{report.chunks:,}",
            f"{report.behind:,}",
            _size(report.bytes),
            ", ".join(f"{name} {count:,}" for name, count in sorted(report.classes.items())) or "-",
        )
        for report in reports
    ]
    columns = ("COLLECTION", "STATE", "DOCUMENTS", "CHUNKS", "BEHIND", "ON DISK", "CHUNKS BY CLASS")
    emit(output, {"node": node, "indexes": [_json(report) for report in reports]}, table(columns, rows))


@app.command()
def delete(
    collection: CollectionArgument,
    node: NodeOption,
    yes: YesOption = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove a node's index with all its documents."""
    require_consent(f"Remove {collection} from {node}, with all documents?", yes)

    async def work() -> int:
        async with open_index(profile, node) as index:
            return await index.delete(collection)

    documents = act(work(), output, "removing")
    emit(
        output,
        {"node": node, "collection": collection, "documents": documents},
        f"{node} holds no {collection} any more; it had {documents:,} documents.",
    )


@app.command()
def rebuild(
    collection: CollectionArgument,
    node: NodeOption,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write the search index anew from the stored documents, while searches go on."""

    async def work() -> int:
        chunks = 0
        async with open_index(profile, node) as index:
            async for done, total in index.rebuild(collection):
                chunks = total
                if output is Output.TEXT and console().is_terminal:
                    typer.echo(f"\r{done:,} of {total:,} chunks", nl=False, err=True)
        return chunks

    chunks = act(work(), Output.JSON)  # it shows its own progress
    emit(
        output,
        {"node": node, "collection": collection, "chunks": chunks},
        f"{collection} on {node} is written anew: {chunks:,} chunks.",
    )


@app.command()
def documents(
    collection: CollectionArgument,
    node: NodeOption,
    after: Annotated[str, typer.Option("--after", help="Only ids after this one.")] = "",
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=1000)] = 100,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the documents that a node holds, by id."""

    async def work() -> tuple[tuple[HeldDocument, ...], bool]:
        async with open_index(profile, node) as index:
            return await index.documents(collection, after=after, limit=limit)

    held, more = act(work(), output)
    rows = [
        (
            document.info.id,
            document.info.title,
            ", ".join(document.info.classes),
            document.info.owner,
            document.info.tenant,
            document.info.retain_until,
            f"{document.chunks:,}",
        )
        for document in held
    ]
    columns = ("DOCUMENT", "TITLE", "CLASSES", "OWNER", "TENANT", "UNTIL", "CHUNKS")
    rest = (f"There are more: --after '{harmless(held[-1].info.id)}'",) if more and held else ()
    emit(
        output,
        {
            "documents": [
                {**asdict(document.info), "digest": document.digest, "chunks": document.chunks}
                for document in held
            ],
            "more": more,
        },
        table(columns, rows),
        *rest,
    )


@app.command()
def forget(
    collection: CollectionArgument,
    document: Annotated[
        list[str], typer.Argument(help='Ids of documents; "-" reads them from standard input, one a line.')
    ],
    node: NodeOption,
    yes: YesOption = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete documents, at once: no later answer has anything of them."""
    ids = [line for text in document for line in (read_prompt(text).splitlines() if text == "-" else [text])]
    ids = [each for each in ids if each]
    require_consent(f"Delete {len(ids):,} documents from {collection} on {node}?", yes)

    async def work() -> int:
        async with open_index(profile, node) as index:
            return await index.forget(collection, ids)

    deleted = act(work(), output, "deleting")
    emit(
        output,
        {"node": node, "collection": collection, "asked": len(ids), "deleted": deleted},
        f"{deleted:,} of {len(ids):,} documents were there, and are gone.",
    )


def _json(report: IndexReport) -> dict[str, Any]:
    return {**asdict(report), "classes": dict(report.classes)}


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
