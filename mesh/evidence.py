"""The decision log: where every decision leaves its evidence (I7), and the one place where the Merkle
log will go.

Rules it keeps:
- `record` returns only when the entry is on disk. If it cannot be, it raises EVIDENCE_UNAVAILABLE and
  whoever decided must act as if nothing had been decided.
- One JSON object a line, written once, never changed. A line that was torn by a crash or a full disk was
  never acknowledged, and is cut off before the next one is written.
- Entries hold metadata only: who asked, what kind of data for what purpose, which policies by digest said
  what, who was refused and why, what was sent where. Never a payload, nor a permit's bytes.

Kinds of entry: "place" (where a request may go, or why nowhere), "serve" (whether this node lets it to its
engine; outcome "served" or "refused" with a reason), "search", "answer" and "fetch" (which nodes are asked
a client's question), "covered" (what became of each of them), "shard" (whether this node's index answers
another node, and how many release groups that sees at which level), "release" (how many chunks left an
index at which level), "cut" (a served request that may not go on). Of a question there is neither text nor
terms, of a document not even its id.

Writers share fsyncs (group commit): while one batch is being written, the next one gathers. It does
not know what decisions mean; mesh/core/placement.py makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mesh.core.decision import Decision
from mesh.core.errors import MeshError, Reason
from mesh.core.types import RequestContext

Entry = Mapping[str, object]

# Explained decisions can name every node of a large mesh; the log keeps as many as tell the story.
MAX_LOGGED_REFUSALS = 100


def decision_entry(decision: Decision) -> dict[str, object]:
    """A decision as the log keeps it."""
    return {
        "id": decision.id,
        "decided_by": str(decision.decided_by),
        "at": decision.decided_at,
        "permitted": decision.permitted,
        "ranked": [
            {
                "node": str(r.node),
                "location": r.location,
                "score": round(r.score, 4),
                "permitted_by": r.permitted_by,
            }
            for r in decision.ranked
        ],
        "refused": [
            {"node": str(r.node), "location": r.location, "reason": r.reason.code, "policies": r.policies}
            for r in decision.refused[:MAX_LOGGED_REFUSALS]
        ],
        "refused_total": decision.refused_total,
        "considered": decision.considered,
        "policies": dict(decision.policy_digests),
        "snapshot": decision.snapshot_version,
    }


def context_entry(context: RequestContext) -> dict[str, object]:
    """A request's statement about itself as the log keeps it; metadata by definition (I2)."""
    return {
        "data_classes": sorted(context.data_classes),
        "purpose": context.purpose,
        "transfer_basis": context.transfer_basis,
        "tenant": context.tenant,
        "allowed_jurisdictions": sorted(context.narrowing.allowed_jurisdictions),
        "required_assurances": sorted(context.narrowing.required_assurances),
        "digest": context.digest.hex(),
    }


class DecisionLog(Protocol):
    """Durable, append-only. Safe to use from many tasks of one event loop."""

    async def record(self, entry: Entry) -> None:
        """Returns once the entry is durable; EVIDENCE_UNAVAILABLE if it is not."""
        ...

    async def aclose(self) -> None:
        """Waits for what is being written and closes."""
        ...


class MemoryDecisionLog:
    """The in-memory twin. Set `full` to make it refuse, as a full disk would."""

    def __init__(self) -> None:
        self.entries: list[dict[str, object]] = []
        self.full = False

    async def record(self, entry: Entry) -> None:
        """Keeps the entry in `entries`, as it would be read back."""
        line = json.dumps(entry)
        if self.full:
            raise _unavailable()
        self.entries.append(json.loads(line))

    async def aclose(self) -> None:
        """Nothing to do."""


class FileDecisionLog:
    """One file of JSON lines, mode 0600. Use `open`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size  # up to here everything is whole and durable
        self._torn = False
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decision-log")

    @classmethod
    def open(cls, path: Path) -> FileDecisionLog:
        """Opens or makes the file, and cuts off a line that a crash left torn.

        EVIDENCE_UNAVAILABLE if it cannot be opened for writing.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unavailable() from error
        try:
            _cut_torn_line(descriptor)
            _sync_folder(path.parent)
        except OSError as error:
            os.close(descriptor)
            raise _unavailable() from error
        return cls(path, descriptor)

    async def record(self, entry: Entry) -> None:
        """Returns once the entry and all before it are on disk."""
        if self._descriptor < 0:
            raise _unavailable()
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        self._pending.append((line, durable))
        if self._committer is None:
            self._committer = loop.create_task(self._commit_batches())
        await durable

    async def _commit_batches(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                data = b"".join(line for line, _ in batch)
                try:
                    await loop.run_in_executor(self._thread, self._append, data)
                    failure = None
                except OSError:
                    failure = _unavailable
                for _, durable in batch:
                    if durable.done():
                        continue  # its caller went away; the entry is in the log all the same
                    if failure is None:
                        durable.set_result(None)
                    else:
                        durable.set_exception(failure())
        finally:
            self._committer = None

    def _append(self, data: bytes) -> None:
        """In the log's own thread: all of it durable, or none of it there."""
        if self._torn:
            os.ftruncate(self._descriptor, self._length)
            self._torn = False
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fdatasync(self._descriptor)
        except OSError:
            self._torn = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
                self._torn = False
            raise
        self._length += len(data)

    async def aclose(self) -> None:
        """Waits for what is being written and closes; later records are refused."""
        while self._committer is not None:
            await asyncio.wait([self._committer])
        self._thread.shutdown(wait=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _unavailable() -> MeshError:
    return MeshError(
        Reason.EVIDENCE_UNAVAILABLE, "the decision could not be recorded, so it was not taken (I7)", {}, 5.0
    )


def _cut_torn_line(descriptor: int) -> None:
    length = os.fstat(descriptor).st_size
    end = length
    while end > 0:
        start = max(0, end - 65536)
        chunk = os.pread(descriptor, end - start, start)
        newline = chunk.rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < length:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
