"""The text embedder port: what turns chunks and questions into vectors.

Everything in one collection is embedded by the same model, which the collection's record names by its
digest; a node with another cannot join it. Three kinds:

- `LocalEmbedder`: all-MiniLM-L6-v2 on onnxruntime in this process, the default. A question overtakes the
  chunks that are being ingested.
- `EngineEmbedder`: whatever embedding model the node's engine serves, such as a larger one on a GPU.
- `ScriptedEmbedder`: for tests of everything around it; texts with words in common are near each other.

It knows nothing of documents, and keeps no text.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import queue
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from mesh.core.errors import MeshError, Reason
from mesh.core.types import Task
from node.engine.base import Engine
from node.engine.embedder import Embedder, embedder_digest

# A question waits for one such batch at most; larger ones are hardly faster.
_BATCH = 16
_CHUNKS, _QUESTION, _END = 1, 0, 2
_WORD = re.compile(r"\w+")


class TextEmbedder(Protocol):
    """Unit vectors of `dimensions` floats. Errors are MeshError INDEX_UNAVAILABLE or ENGINE_*."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        ...

    async def digest(self) -> str:
        """ "sha256:<hex>" over the model's files."""
        ...

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """One vector per text, in order. A `question` goes before what waits."""
        ...

    async def aclose(self) -> None:
        """Ends what it started."""
        ...


class LocalEmbedder:
    """all-MiniLM-L6-v2 in a thread of this process; loaded, and exported into `folder`, when first used."""

    name = "all-MiniLM-L6-v2"
    dimensions = Embedder.dimensions

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._folder = folder
        self._embedder = Embedder(folder, threads)
        self._work: queue.PriorityQueue[tuple[int, int, _Job | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._thread: threading.Thread | None = None
        self._digest = ""

    async def digest(self) -> str:
        """Over the files of the model's package, read once."""
        if self._digest:
            return self._digest

        def read() -> str:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return embedder_digest(self._folder / "digests.json")

        try:
            self._digest = await asyncio.to_thread(read)
        except OSError as error:
            raise _unavailable(error) from None
        return self._digest

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """One vector per text; texts are cut at the model's 256 tokens."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="embedder", daemon=True)
            self._thread.start()
        # Alike lengths together: a batch is as long as its longest text.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        jobs: list[tuple[list[int], Future[list[list[float]]]]] = []
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            job = _Job([texts[at] for at in places], Future())
            self._work.put((_QUESTION if question else _CHUNKS, next(self._order), job))
            jobs.append((places, job.done))
        vectors: list[list[float]] = [[]] * len(texts)
        try:
            for places, done in jobs:
                found: list[list[float]] = await asyncio.wrap_future(done)
                for at, vector in zip(places, found, strict=True):
                    vectors[at] = vector
        finally:
            for _, done in jobs:
                done.cancel()
        return vectors

    def _run(self) -> None:
        while True:
            job = self._work.get()[2]
            if job is None:
                return
            if job.done.set_running_or_notify_cancel():
                job.do(self._embedder.embed)

    async def aclose(self) -> None:
        """Ends the thread after the batch at hand; what waits is not done."""
        if self._thread is None:
            return
        self._work.put((_QUESTION - 1, next(self._order), None))
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        while not self._work.empty():
            job = self._work.get_nowait()[2]
            if job is not None:
                job.done.cancel()


class _Job:
    """A batch and where its vectors go."""

    def __init__(self, texts: list[str], done: Future[list[list[float]]]) -> None:
        self.texts, self.done = texts, done

    def do(self, embed: Callable[[Sequence[str]], list[list[float]]]) -> None:
        """Runs it. What goes wrong is told without the texts: messages of the tokenizer may quote them."""
        try:
            self.done.set_result(embed(self.texts))
        except Exception as error:
            self.done.set_exception(_unavailable(error))


class EngineEmbedder:
    """The embedding model that the engine serves under `model`, or its first one if that is empty."""

    def __init__(self, engine: Engine, model: str, dimensions: int) -> None:
        self._engine, self._model = engine, model
        self.dimensions = dimensions

    @property
    def name(self) -> str:
        """The model's name."""
        return self._served()[0]

    async def digest(self) -> str:
        """As the engine states it; ENGINE_UNAVAILABLE until it is ready."""
        return self._served()[1]

    def _served(self) -> tuple[str, str]:
        for model in self._engine.models:
            if Task.EMBED in model.tasks and self._model in ("", model.name):
                return model.name, model.digest
        raise MeshError(Reason.ENGINE_UNAVAILABLE, "the engine serves no such embedding model yet", {}, 1.0)

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """One vector per text. The engine orders its own work."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), 64):
            found = await self._engine.embed(self._served()[0], texts[start : start + 64])
            if any(len(vector) != self.dimensions for vector in found):
                raise MeshError(Reason.EMBEDDER_MISMATCH, f"expected vectors of {self.dimensions} floats")
            vectors.extend(found)
        return vectors

    async def aclose(self) -> None:
        """Nothing: the engine is not this one's to end."""


class ScriptedEmbedder:
    """The sum of one fixed direction per word. Deterministic, needs no model."""

    def __init__(self, dimensions: int = 32, name: str = "scripted") -> None:
        self.name, self.dimensions = name, dimensions

    async def digest(self) -> str:
        """Over its name and size."""
        return "sha256:" + hashlib.sha256(f"{self.name}/{self.dimensions}".encode()).hexdigest()

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """One vector per text."""
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        total = [1e-3] * self.dimensions
        for word in _WORD.findall(text.lower()):
            stream = hashlib.shake_256(word.encode()).digest(2 * self.dimensions)
            for at in range(self.dimensions):
                total[at] += int.from_bytes(stream[2 * at : 2 * at + 2], "big") / 32767.5 - 1
        norm = math.sqrt(sum(x * x for x in total))
        return [x / norm for x in total]

    async def aclose(self) -> None:
        """Nothing to end."""


def _unavailable(error: Exception) -> MeshError:
    return MeshError(Reason.INDEX_UNAVAILABLE, f"the embedder failed ({type(error).__name__})")
