"""`meshctl collection`: how this authority's documents are indexed, and which nodes hold any.

A collection's settings must be the same wherever its documents are to be searched together. They come
from a file (`collection show` writes one), from another authority's record, or from options; the
embedder's digest may be left out where this authority's nodes say, all alike, what they serve.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from control.cli.output import Output, OutputOption, emit, table
from control.cli.session import ProfileOption, Session, act, call, open_session
from mesh import codec
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import SpiffeId, Task
from mesh.settings import read_yaml
from sovereign.mesh.v1 import admin_pb2

EMBEDDER = "all-MiniLM-L6-v2"
DIMENSIONS = 384  # of EMBEDDER

app = typer.Typer(help="Say how documents are indexed, and see which nodes hold any.")

_SETTINGS = frozenset(f.name for f in fields(CollectionSpec))


@app.command()
def apply(
    file: Annotated[
        Path | None, typer.Argument(help="Settings, as `collection show` writes them.", dir_okay=False)
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The collection's name.")] = "",
    like: Annotated[
        str, typer.Option("--like", help="Take the settings that this authority publishes.", metavar="DOMAIN")
    ] = "",
    embedder: Annotated[str, typer.Option("--embedder", help="The embedding model.")] = EMBEDDER,
    embedder_digest: Annotated[
        str, typer.Option("--embedder-digest", help="sha256:<hex>; what the own nodes serve, if left out.")
    ] = "",
    dimensions: Annotated[int, typer.Option("--dimensions", help="Length of its vectors.")] = DIMENSIONS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; change nothing.")] = False,
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a collection's settings in force. Nodes that hold it with others must index it anew."""
    if (file is None) == (not name):
        raise typer.BadParameter("name either a file or a collection (--name)")
    stated: dict[str, Any] = _read(file) if file is not None else {"name": name}

    async def work() -> tuple[CollectionSpec, admin_pb2.ApplyCollectionResponse]:
        async with open_session(profile) as session:
            if file is None and like:
                stated.update(await _settings_of(session, name, like))
            for key, value in (("embedder", embedder), ("dimensions", dimensions)):
                stated.setdefault(key, value)
            if not stated.get("embedder_digest"):
                stated["embedder_digest"] = embedder_digest or await _digest(session, str(stated["embedder"]))
            spec = _spec(stated)
            request = admin_pb2.ApplyCollectionRequest(
                collection=codec.collection_to_pb(spec), dry_run=dry_run
            )
            return spec, await call(session.admin.ApplyCollection(request))

    spec, answer = act(work(), output, "applying")
    emit(
        output,
        {
            "dry_run": dry_run,
            "collection": asdict(spec),
            "digest": answer.digest,
            "generation": answer.generation,
            "changed": list(answer.changed),
        },
        f"{'checked' if dry_run else 'in force'}: {spec.name} {answer.digest} (record {answer.generation})",
        *_consequence(list(answer.changed)),
    )


@app.command("list")
def list_collections(profile: ProfileOption = None, output: OutputOption = Output.TEXT) -> None:
    """List the collections of every authority that this one knows."""

    async def work() -> list[admin_pb2.CollectionView]:
        async with open_session(profile) as session:
            return await _views(session)

    views = act(work(), output)
    rows = [
        (
            view.collection.name,
            view.trust_domain,
            view.collection.embedder,
            view.digest[:19],
            _names(view.nodes),
            _names(view.mismatched),
        )
        for view in views
    ]
    columns = ("COLLECTION", "AUTHORITY", "EMBEDDER", "SETTINGS", "HELD BY", "OTHERWISE INDEXED")
    emit(output, {"collections": [_json(view) for view in views]}, table(columns, rows))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The collection's name.")],
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", help="Whose settings; this authority's if left out.")
    ] = "",
    profile: ProfileOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show one collection: its settings, as a file for `collection apply`, and who holds it."""

    async def work() -> admin_pb2.CollectionView:
        async with open_session(profile) as session:
            return await _view(session, name, trust_domain or session.profile.trust_domain)

    view = act(work(), output)
    spec = codec.collection_from_pb(view.collection)
    emit(
        output,
        _json(view),
        f"# {view.trust_domain}: {view.digest}",
        f"# held by: {_names(view.nodes)}",
        f"# indexed otherwise, and so not searched: {_names(view.mismatched)}",
        # JSON's scalars are YAML's.
        *(f"{key}: {json.dumps(value)}" for key, value in asdict(spec).items()),
    )


def _read(file: Path) -> dict[str, Any]:
    found = read_yaml(file)
    if not isinstance(found, dict) or not found.keys() <= _SETTINGS:
        known = ", ".join(f.name for f in fields(CollectionSpec))
        raise MeshError(Reason.CONFIG_INVALID, f"{file}: expected settings among {known}")
    return dict(found)


def _spec(stated: dict[str, Any]) -> CollectionSpec:
    try:
        return CollectionSpec(**stated)
    except (TypeError, ValueError):
        raise MeshError(
            Reason.RECORD_MALFORMED, "a collection's settings: expected a text or a number where one belongs"
        ) from None


async def _digest(session: Session, embedder: str) -> str:
    """What the own nodes say they serve under this name, if they agree."""
    answer = await call(session.admin.ListNodes(admin_pb2.ListNodesRequest()))
    digests = set()
    for node in answer.nodes:
        if SpiffeId.parse(node.node).trust_domain != session.profile.trust_domain:
            continue
        for message in node.record.models:
            model = codec.model_from_pb(message)
            if model.name == embedder and Task.EMBED in model.tasks:
                digests.add(model.digest)
    if len(digests) == 1:
        return digests.pop()
    found = "differ in it" if digests else "serve none of that name"
    raise MeshError(
        Reason.CONFIG_INVALID, f"embedder: this authority's nodes {found}: state it with --embedder-digest"
    )


async def _settings_of(session: Session, name: str, trust_domain: str) -> dict[str, Any]:
    view = await _view(session, name, trust_domain)
    return asdict(codec.collection_from_pb(view.collection))


async def _view(session: Session, name: str, trust_domain: str) -> admin_pb2.CollectionView:
    for view in await _views(session):
        if (view.trust_domain, view.collection.name) == (trust_domain, name):
            return view
    raise MeshError(Reason.COLLECTION_UNKNOWN, f"{trust_domain} publishes no collection of this name")


async def _views(session: Session) -> list[admin_pb2.CollectionView]:
    answer = await call(session.admin.ListCollections(admin_pb2.ListCollectionsRequest()))
    return list(answer.collections)


def _json(view: admin_pb2.CollectionView) -> dict[str, Any]:
    return {
        "trust_domain": view.trust_domain,
        "collection": asdict(codec.collection_from_pb(view.collection)),
        "digest": view.digest,
        "nodes": list(view.nodes),
        "mismatched": list(view.mismatched),
    }


def _names(nodes: Any) -> str:
    """The nodes' names, with their authority's country, for people."""
    ids = [SpiffeId.parse(node) for node in nodes]
    return ", ".join(f"{i.name} ({i.trust_domain.split('.', 1)[0].upper()})" for i in ids) or "-"


def _consequence(changed: list[str]) -> tuple[str, ...]:
    if not changed:
        return ()
    return (
        f"changed: {', '.join(changed)}",
        "Nodes that hold it are not searched until they have indexed their documents anew.",
    )
