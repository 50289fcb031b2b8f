"""The indexes that bench_retrieval.py asks: three of 33,000 chunks and one of 100,000 of the same.

    python -m bench.retrieval_data --build NAME     (one of them; bench_retrieval.py runs it)

Texts are real (bench/corpus.py), and so is every sixtieth vector. The others are derived, since embedding
100,000 chunks takes longer than all benchmarks together: each is a mix of the real vector that is nearest
in the corpus and of one of that one's neighbours, plus noise, of unit length. That keeps the clusters that
text has, on which the effort of an approximate index depends, and the size of everything. Quality is
measured elsewhere, on real vectors (bench/cranfield.py).

Made by the node's own code: Library and DocumentIndex with the default store, flushed and optimized. Kept
in .bench/retrieval/, by what is in them; whoever uses one takes a copy.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpus import FOLDER, Corpus, corpus
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import DataClass
from node.index.documents import DocumentMeta
from node.index.embedding import LocalEmbedder
from node.index.index import NewChunk, NewDocument
from node.index.library import Library
from node.index.stores import StoreSettings

EMBEDDER = FOLDER / "embedder"
WHOLE, SHARD = 100_000, 33_000
SHARDS = ("shard-0", "shard-1", "shard-2")
INDEXES = (*SHARDS, "whole")
_EVERY = 60  # of so many texts, one is embedded
_NEIGHBOURS = 8
_CHUNKS_OF_DOCUMENT = 8
_OWNERS = ("archive", "desk", "laboratory", "registry")  # as many release groups
_VERSION = 1


async def spec(name: str) -> CollectionSpec:
    """The collection, for the default embedder."""
    embedder = LocalEmbedder(EMBEDDER)
    return CollectionSpec(name, embedder.name, await embedder.digest(), embedder.dimensions)


def collection_of(name: str) -> str:
    """The three are of one collection, which nodes are asked together; the whole is one of its own."""
    return "whole" if name == "whole" else "manuals"


def ensure(names: tuple[str, ...] = INDEXES) -> tuple[Corpus, dict[str, Path]]:
    """The texts, and the `retrieval` folder of each node, ready to be copied; made if they are not there."""
    texts = corpus(WHOLE)
    vectors(texts)
    folders = {name: FOLDER / f"{name}-{texts.key}-{_VERSION}" for name in names}
    missing = [name for name, folder in folders.items() if not folder.exists()]
    building = [
        subprocess.Popen([sys.executable, "-m", "bench.retrieval_data", "--build", name])
        for name in sorted(missing, reverse=True)  # the largest first
    ]
    if any([process.wait() for process in building]):
        raise RuntimeError("an index could not be made")
    return texts, folders


def vectors(texts: Corpus) -> Any:
    """float32 [texts, dimensions], of unit length."""
    kept = FOLDER / f"vectors-{texts.key}-{_VERSION}.npy"
    if not kept.exists():
        made = _derived(_embedded(texts.texts[::_EVERY]), len(texts.texts))
        aside = kept.with_suffix(".aside.npy")
        np.save(aside, made)
        aside.replace(kept)
    return np.load(kept, mmap_mode="r")


def _embedded(texts: list[str]) -> Any:
    print(f"embedding {len(texts)} texts …", flush=True)

    async def embed() -> list[list[float]]:
        embedder = LocalEmbedder(EMBEDDER, threads=2)
        try:
            return await embedder.embed(texts)
        finally:
            await embedder.aclose()

    return np.array(asyncio.run(embed()), np.float32)


def _derived(real: Any, count: int) -> Any:
    chance = np.random.default_rng(3)
    likeness = real @ real.T
    near = np.argsort(-likeness, axis=1)[:, 1 : _NEIGHBOURS + 1]
    own = np.minimum((np.arange(count) + _EVERY // 2) // _EVERY, len(real) - 1)
    other = near[own, chance.integers(0, _NEIGHBOURS, count)]
    share = chance.uniform(0.5, 0.9, (count, 1)).astype(np.float32)
    noise = chance.standard_normal((count, real.shape[1]), np.float32) / np.float32(np.sqrt(real.shape[1]))
    mixed = share * real[own] + (1 - share) * real[other] + np.float32(0.5) * noise
    mixed[::_EVERY] = real
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def _documents(texts: Corpus, name: str) -> list[NewDocument]:
    """Documents of 8 chunks; the shards take them in turn."""
    rows = vectors(texts)
    documents = []
    for number, start in enumerate(range(0, len(texts.texts), _CHUNKS_OF_DOCUMENT)):
        if name != "whole" and SHARDS[number % len(SHARDS)] != name:
            continue
        places = range(start, min(start + _CHUNKS_OF_DOCUMENT, len(texts.texts)))
        owner = _OWNERS[number // len(SHARDS) % len(_OWNERS)]
        meta = DocumentMeta(id=f"d{number}", classes=frozenset({DataClass.PUBLIC}), owner=owner)
        digest = "sha256:" + hashlib.sha256(texts.texts[start].encode()).hexdigest()
        chunks = [NewChunk(texts.texts[place], rows[place]) for place in places]
        documents.append(NewDocument(meta, digest, chunks))
    return documents if name == "whole" else documents[: SHARD // _CHUNKS_OF_DOCUMENT]


def build(name: str) -> None:
    """Makes one of the indexes, in a folder that takes its name when it is whole."""
    began = time.monotonic()
    texts = corpus(WHOLE)
    folder = FOLDER / f"{name}-{texts.key}-{_VERSION}"
    aside = FOLDER / f".{folder.name}-{time.time_ns()}"
    collection = collection_of(name)
    wanted = asyncio.run(spec(collection))
    library = Library(
        aside / "indexes", lambda: {collection: wanted}, LocalEmbedder(EMBEDDER), StoreSettings(), time.time
    )
    index = asyncio.run(library.create(collection))
    documents = _documents(texts, name)
    for start in range(0, len(documents), 64):
        index.put_many(documents[start : start + 64])
    written = time.monotonic() - began
    index.tend()  # flushes, and begins to optimize as a node would
    for thread in [each for each in threading.enumerate() if each.name == "index-optimize"]:
        thread.join()
    library.close()
    aside.rename(folder)
    print(f"{name}: {written:.0f} s to write, {time.monotonic() - began:.0f} s in all", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", choices=INDEXES, required=True)
    build(parser.parse_args().build)
    return 0


if __name__ == "__main__":
    sys.exit(main())
