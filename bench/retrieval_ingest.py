"""How fast documents are taken in, against the embedder alone on the very same chunks.

    python -m bench.retrieval_ingest [--full]

A node process takes text files of ten passages each over TLS: parsed in a sandboxed process, cut, embedded
with the real model, stored durably, found. In turn with it, an embedder with the node's settings embeds
the chunks of the next files in this process, in batches as the node makes them. Both on an idle machine's
cores; while one works the other waits. 1,500 chunks by default, `--full` takes 10,000.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from bench import corpus, retrieval_data
from bench.report import Row
from bench.retrieval_mesh import plan_holder
from mesh.core.documents import DocumentInfo, FileStored
from mesh.core.types import DataClass
from mesh.sdk.documents import FileDone, IndexClient
from mesh.sdk.files import files_under
from mesh.sdk.placers import Server
from node.config import RetrievalSettings
from node.index.chunking import chunk
from node.index.documents import DocumentMeta, ParsedDocument
from node.index.embedding import LocalEmbedder
from node.index.parsing.formats import paragraphs
from node.index.tokens import TokenCounter
from node.index.upload import IngestSizes
from tests.support.node_process import end, mesh_on_etcd

_PASSAGES = 10  # of a file
_ROUND = 250  # chunks, about


async def ingest_rows(texts: list[str], chunks: int) -> list[Row]:
    """The rate of a node over the embedder's own."""
    with tempfile.TemporaryDirectory(dir=corpus.FOLDER) as folder:
        rounds = _files(Path(folder) / "files", texts, chunks)
        own, node = await _rates(Path(folder), rounds)
    return [
        Row(
            f"ingest of {chunks:,} chunks, over the embedder alone", node / own, "x", 0.9, own, at_least=True
        ),
        Row("ingest", node, "chunks/s"),
    ]


def _files(folder: Path, texts: list[str], chunks: int) -> list[tuple[Path, list[str]]]:
    """Folders of files, a round each, and the chunks that will come out of them."""
    count = TokenCounter()
    made: list[tuple[Path, list[str]]] = []
    places = iter(range(0, len(texts), _PASSAGES))
    while sum(len(cut) for _, cut in made) < chunks:
        place = folder / f"round-{len(made)}"
        cut: list[str] = []
        place.mkdir(parents=True)
        while len(cut) < min(_ROUND, chunks):
            start = next(places)
            text = "\n\n".join(texts[start : start + _PASSAGES])
            (place / f"{start}.txt").write_text(text)
            document = ParsedDocument(
                DocumentMeta("a", classes=frozenset({DataClass.PUBLIC})), tuple(paragraphs(text))
            )
            cut += [each.text for each in chunk(document, count, 254)]
        made.append((place, cut))
    return made


async def _rates(folder: Path, rounds: list[tuple[Path, list[str]]]) -> tuple[float, float]:
    """Chunks a second: the embedder's own, the node's. The first round only warms both up."""
    spec = await retrieval_data.spec("taken-in")
    embedder = LocalEmbedder(retrieval_data.EMBEDDER, RetrievalSettings().threads)
    own = [0.0, 0.0]
    node = [0.0, 0.0]
    async with mesh_on_etcd(folder, "DE") as (mesh, etcd):
        await mesh["DE"].publish_collection(spec)
        process = await plan_holder(mesh, etcd, folder, "DE", "de-1")
        process.start()
        try:
            await process.ready()
            admin = mesh["DE"].caller("/admin/bench")
            async with IndexClient(admin.source, Server(process.id, process.endpoint)) as client:
                await client.create(spec.name)
                for number, (place, cut) in enumerate(rounds):
                    counts = number > 0 or len(rounds) == 1
                    began = time.perf_counter()
                    for start in range(0, len(cut), IngestSizes().batch):
                        await embedder.embed(cut[start : start + IngestSizes().batch])
                    if counts:
                        own[0], own[1] = own[0] + len(cut), own[1] + time.perf_counter() - began
                    began = time.perf_counter()
                    stored = await _send(client, spec.name, place)
                    if counts:
                        node[0], node[1] = node[0] + stored, node[1] + time.perf_counter() - began
                    if stored != len(cut):
                        raise RuntimeError(f"expected {len(cut)} chunks, not {stored}")
        finally:
            end(process)
            await embedder.aclose()
    return own[0] / own[1], node[0] / node[1]


async def _send(client: IndexClient, collection: str, place: Path) -> int:
    """Chunks stored."""
    stored = 0
    files, _ = files_under([place])
    async with aclosing(client.ingest(collection, files, DocumentInfo(classes=("public",)))) as events:
        async for event in events:
            if isinstance(event, FileDone):
                if not isinstance(event.outcome, FileStored):
                    raise RuntimeError(f"a file was not stored: {event.outcome.reason}")
                stored += event.outcome.chunks
    return stored


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="10,000 chunks instead of 1,500")
    chunks = 10_000 if parser.parse_args().full else 1_500
    for row in asyncio.run(ingest_rows(corpus.corpus(retrieval_data.WHOLE).texts, chunks)):
        print(row.what, round(row.value, 3), row.unit, row.aim, row.reached, row.against or "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
