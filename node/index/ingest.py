"""Documents into an index: read, cut, embedded and stored, all at once.

    received files -> parsers -> documents -> embedder, in batches across documents -> index -> told

The embedder is by far the slowest, so all the rest is arranged around it: while it works on one batch
the next one waits, and what comes before and after runs beside it. Each place where something waits is
bounded, so a stream is read only as fast as its documents are stored.

Rules it keeps:
- a file is reported as stored when every document in it is durable and found, not before;
- what is held already, unchanged, is not embedded again, and a file of which all is held is not even
  sent again; deleting a document makes the index forget its file;
- a bad file or row is reported and the rest goes on; if the disk is full, what cannot be stored is
  reported, one by one, and what was stored stays;
- the sender's locks hold for whatever comes out of a parser (its files may have taken it over), and a
  document of another tenant is never replaced.

It knows nothing of callers and of gRPC; node/api/index.py does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mesh.core.errors import MeshError, Reason
from node.index.chunking import CountTokens
from node.index.documents import MetaDefaults
from node.index.embedding import TextEmbedder
from node.index.inbox import Inbox
from node.index.index import DocumentIndex
from node.index.parsing.limits import ParseLimits
from node.index.upload import FileParser, IngestSizes, Means, Teller, Upload

__all__ = ["IngestSizes", "Ingester", "Teller", "Upload"]

_RETRY_S = 5.0


class Ingester:
    """Takes documents for one node's indexes. `clock`: Unix seconds. Belongs to one event loop."""

    def __init__(
        self,
        embedder: TextEmbedder,
        parser: FileParser,
        count_tokens: CountTokens,
        inbox: Inbox,
        clock: Callable[[], float],
        *,
        limits: ParseLimits | None = None,
        sizes: IngestSizes | None = None,
    ) -> None:
        self._means = Means(
            embedder, parser, count_tokens, clock, limits or ParseLimits(), sizes or IngestSizes()
        )
        self._inbox = inbox
        self._uploads: Counter[str] = Counter()

    @asynccontextmanager
    async def upload(
        self, index: DocumentIndex, defaults: MetaDefaults, teller: Teller, tenant: str = ""
    ) -> AsyncIterator[Upload]:
        """An upload on behalf of a tenant; when the block ends, all its files are settled and told of.

        Whatever ends it early, what was told stays, and nothing else does. Raises OVERLOADED,
        INDEX_UNAVAILABLE.
        """
        sizes = self._means.sizes
        for under_way, most in (
            (self._uploads.total(), sizes.uploads),
            (self._uploads[tenant], sizes.uploads_per_tenant),
        ):
            if under_way >= most:
                raise MeshError(Reason.OVERLOADED, f"expected at most {most} uploads at once", {}, _RETRY_S)
        self._uploads[tenant] += 1
        try:
            tray = await asyncio.to_thread(self._inbox.tray)
            upload = Upload(self._means, index, defaults, teller, tray)
            try:
                async with asyncio.TaskGroup() as tasks:
                    upload.start(tasks)
                    yield upload
                    await upload.finish()
            except BaseExceptionGroup as group:
                raise _cause(group) from None
            finally:
                upload.release()
                await asyncio.to_thread(tray.clear)
        finally:
            self._uploads[tenant] -= 1
            self._uploads += Counter()  # forgets whoever has none


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several errors, one that nobody foresaw, if there is one: it must not hide behind another."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if not isinstance(error, MeshError)), leaves[0])
