"""The record store port.

A store keeps bytes under keys, numbers every change with one rising revision, and tells watchers.
It is not an authority (I5): it neither knows nor cares what the bytes say. The twin in memory.py
and etcd.py are held to one contract suite, tests/contract/test_record_store.py.

Failures raise MeshError: STORE_UNAVAILABLE when it is unknown whether the operation happened (never
retry a transaction blindly: read first), STORE_CONFLICT when an expectation did not hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and the revision of its last change."""

    key: str
    value: bytes
    revision: int


class WatchKind(Enum):
    """What a watch batch is."""

    LISTING = "listing"  # everything under the prefix as of `revision`; replaces what was known
    CHANGES = "changes"  # puts and deletions, in order
    PROGRESS = "progress"  # nothing changed up to `revision`; the store is alive
    DISCONNECTED = "disconnected"  # the store does not answer; the watch goes on by itself


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """One step of a watch. Whoever applies `puts` and then `deletes` has applied them in order: a store
    starts a new batch where a put follows a deletion."""

    kind: WatchKind
    revision: int = 0
    puts: tuple[Entry, ...] = ()
    deletes: tuple[str, ...] = ()


class Lease(Protocol):
    """Keeps the keys put under it alive until closed or until its owner dies for `ttl_s`.

    Renewed in the background. After a loss (the store forgot it), `lost` is true and keys must be
    put again under a new lease.
    """

    @property
    def lost(self) -> bool:
        """Whether the store no longer knows the lease."""
        ...

    async def aclose(self) -> None:
        """Revokes the lease; its keys vanish."""
        ...


class RecordStore(Protocol):
    """Where records lie. Keys are str below ``/sovereign/v1/``; values at most 256 KiB."""

    async def get(self, key: str) -> Entry | None:
        """The entry under this key, or None."""
        ...

    async def list(self, prefix: str) -> tuple[list[Entry], int]:
        """Every entry under the prefix, sorted by key, and the revision of that view."""
        ...

    async def put(
        self, key: str, value: bytes, *, expected_revision: int | None = None, lease: Lease | None = None
    ) -> int:
        """Puts and returns the new revision.

        `expected_revision` makes it a transaction: the key's revision must be exactly that (0: the
        key must not exist), else STORE_CONFLICT and nothing changes.
        """
        ...

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        """Deletes; whether there was anything to delete."""
        ...

    def watch(self, prefix: str) -> AsyncGenerator[WatchBatch]:
        """A LISTING first, then every change in order, none lost and none twice, until closed.

        Outlives restarts, leader changes and compactions: after a gap that cannot be replayed it
        yields a new LISTING.
        """
        ...

    async def lease(self, ttl_s: float) -> Lease:
        """A new lease that is renewed in the background."""
        ...

    async def aclose(self) -> None:
        """Ends watches and background work. Leases are left to run out; close them first to end them now."""
        ...
