"""The SDK for programs without an event loop: the same calls, blocking.

    with SyncMeshClient.from_profile("profile") as mesh:
        for event in mesh.chat("tiny", "Hello", context=context):
            ...

One thread runs the event loop of one MeshClient; any number of threads may call. An iterator that is
closed, or garbage collected, or whose `with` block is left, stops its generation.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mesh.client import Embeddings, Event, MeshClient, Messages, Placement, Sampling
from mesh.core.placement import Decision
from mesh.core.questions import AnswerEvent, SearchEvent
from mesh.core.retrieval import Hit, Reference
from mesh.core.types import Action, Model, RequestContext, SpiffeId
from mesh.sdk.receipts import Fetched

_T = TypeVar("_T")


class SyncMeshClient:
    """A blocking façade of MeshClient. Use as a context manager."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mesh-client", daemon=True)
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    def from_profile(cls, directory: Path | str, **options: Any) -> SyncMeshClient:
        """See MeshClient.from_profile."""
        return cls(MeshClient.from_profile(directory, **options))

    def __enter__(self) -> SyncMeshClient:
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the thread. Closing twice does no harm."""
        if self._thread.is_alive():
            try:
                self._run(self._client.aclose())
            finally:
                self._stop()

    def place(
        self,
        context: RequestContext,
        *,
        action: Action = Action.INFER,
        model: str = "",
        explain: bool = False,
    ) -> Placement:
        """See MeshClient.place."""
        return self._run(self._client.place(context, action=action, model=model, explain=explain))

    def chat(
        self,
        model: str,
        messages: Messages,
        *,
        context: RequestContext,
        sampling: Sampling | None = None,
        timeout_s: float = 300.0,
    ) -> Generator[Event, None, None]:
        """See MeshClient.chat."""
        return self._iterate(
            self._client.chat(model, messages, context=context, sampling=sampling, timeout_s=timeout_s)
        )

    def complete(
        self,
        model: str,
        prompt: str,
        *,
        context: RequestContext,
        sampling: Sampling | None = None,
        timeout_s: float = 300.0,
    ) -> Generator[Event, None, None]:
        """See MeshClient.complete."""
        return self._iterate(
            self._client.complete(model, prompt, context=context, sampling=sampling, timeout_s=timeout_s)
        )

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        context: RequestContext,
        model: str = "",
        timeout_s: float = 60.0,
    ) -> Embeddings:
        """See MeshClient.embed."""
        return self._run(self._client.embed(texts, context=context, model=model, timeout_s=timeout_s))

    def search(
        self, query: str, collection: str, *, context: RequestContext, **options: Any
    ) -> Generator[SearchEvent, None, None]:
        """See MeshClient.search; `options` are its own."""
        return self._iterate(self._client.search(query, collection, context=context, **options))

    def answer(
        self, question: str, collection: str, *, context: RequestContext, **options: Any
    ) -> Generator[AnswerEvent, None, None]:
        """See MeshClient.answer; `options` are its own."""
        return self._iterate(self._client.answer(question, collection, context=context, **options))

    def fetch(self, reference: Reference | str, *, context: RequestContext, **options: Any) -> Hit:
        """See MeshClient.fetch; `options` are its own."""
        return self._run(self._client.fetch(reference, context=context, **options))

    def receipt(
        self, decision: Decision, served_by: Iterable[SpiffeId] = (), *, wait_s: float = 5.0
    ) -> Fetched:
        """See MeshClient.receipt."""
        return self._run(self._client.receipt(decision, served_by, wait_s=wait_s))

    def list_models(self) -> dict[SpiffeId, tuple[Model, ...]]:
        """See MeshClient.list_models."""
        return self._run(self._client.list_models())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # such as a KeyboardInterrupt in this thread
            raise

    def _iterate(self, stream: AsyncGenerator[_T, None]) -> Generator[_T, None, None]:
        try:
            while (event := self._run(_next(stream))) is not None:
                yield event
        finally:
            if threading.current_thread() is self._thread:
                # Garbage collected in the loop's own thread, which must not wait for itself.
                self._closing.add(self._loop.create_task(stream.aclose()))
            elif self._thread.is_alive():
                self._run(stream.aclose())

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(stream: AsyncGenerator[_T, None]) -> _T | None:
    return await anext(stream, None)
