"""What gauges read that both daemons have: the board, the own certificate, the log, the daemon itself.

Each function makes one `Read` (mesh/telemetry/instruments.py), which is called in the thread of whoever
scrapes: it looks at immutable values and at single fields, and copies what may change under it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from mesh.core.errors import Reason
from mesh.core.records import ROOT, RecordType
from mesh.core.snapshot import Snapshot
from mesh.core.types import NodeStatus, SpiffeId
from mesh.evidence.base import SignedCheckpoint
from mesh.telemetry import metrics
from mesh.telemetry.instruments import Read, Reading
from mesh.telemetry.labels import first
from mesh.telemetry.metrics import MAX_TRUST_DOMAINS, Metric

_Found = Iterator[tuple[Metric, Reading]]


class BoardSeen(Protocol):
    """The part of mesh/board.py that is read."""

    @property
    def connected(self) -> bool:
        """Whether the store answers and has been listed."""
        ...

    @property
    def snapshot(self) -> Snapshot:
        """Everything in force."""
        ...

    @property
    def statuses(self) -> Mapping[SpiffeId, NodeStatus]:
        """Each node's last word."""
        ...

    @property
    def refused(self) -> Mapping[str, Reason]:
        """What is not believed."""
        ...


class SvidSeen(Protocol):
    """The part of a certificate that is read. Unix seconds."""

    @property
    def not_before(self) -> float:
        """When it began."""
        ...

    @property
    def not_after(self) -> float:
        """When it ends."""
        ...


class SourceSeen(Protocol):
    """The part of mesh/identity/source.py that is read."""

    @property
    def svid(self) -> SvidSeen:
        """The current one."""
        ...

    @property
    def last_error(self) -> str:
        """Why the last try to renew failed; "" if it did not."""
        ...


class LogSeen(Protocol):
    """The part of an EvidenceLog that is read."""

    @property
    def size(self) -> int:
        """How many entries are durable."""
        ...

    @property
    def latest(self) -> SignedCheckpoint | None:
        """The newest checkpoint."""
        ...


def of_board(board: BoardSeen, clock: Callable[[], float]) -> Read:
    """Whether it is there, how old the authorities' words are, and how many records are in force."""

    counted: tuple[object, Counter[tuple[str, str]]] = (None, Counter())

    def read() -> _Found:
        nonlocal counted
        snapshot = board.snapshot
        if counted[0] is not snapshot.generations:  # a large mesh has thousands, and they change rarely
            counted = snapshot.generations, Counter(map(_domain_and_type, snapshot.generations))
        yield metrics.BOARD_CONNECTED, Reading(board.connected)
        own = snapshot.trust_domain
        others = {*snapshot.bundles, *snapshot.heads} - {own}
        shown = (own, *first(others, MAX_TRUST_DOMAINS - 1))
        now = clock()
        for trust_domain in shown:
            heads = snapshot.heads.get(trust_domain)
            if heads is not None:
                yield metrics.RECORD_AGE, Reading(max(0.0, now - heads.signed_at), (trust_domain,))
                yield metrics.RECORD_AGE_LIMIT, Reading(heads.max_age_s, (trust_domain,))
        counts = counted[1].copy()
        counts.update((node.trust_domain, RecordType.STATUS.value) for node in list(board.statuses))
        for (trust_domain, kind), count in sorted(counts.items()):
            if trust_domain in shown:
                yield metrics.RECORDS, Reading(count, (trust_domain, kind))
        for reason, count in Counter(list(board.refused.values())).items():
            yield metrics.RECORDS_REFUSED, Reading(count, (reason.code,))

    return read


def _domain_and_type(key: str) -> tuple[str, str]:
    """Of the key of a record in force, which was read and verified before."""
    trust_domain, kind, *_ = key.removeprefix(ROOT).split("/")
    return trust_domain, kind


def of_identity(source: SourceSeen) -> Read:
    """From when until when the certificate holds, and whether renewing it fails."""

    def read() -> _Found:
        svid = source.svid
        yield metrics.CERTIFICATE_NOT_BEFORE, Reading(svid.not_before)
        yield metrics.CERTIFICATE_EXPIRY, Reading(svid.not_after)
        yield metrics.CERTIFICATE_RENEWAL_FAILING, Reading(bool(source.last_error))

    return read


def of_log(log: LogSeen, monotonic: Callable[[], float]) -> Read:
    """How long the log is, and for how long, as far as scrapes see it, no checkpoint covers its end."""
    uncovered_since: float | None = None
    signed = -1

    def read() -> _Found:
        nonlocal uncovered_since, signed
        latest, size, now = log.latest, log.size, monotonic()
        covered = latest.size if latest is not None else 0
        if covered >= size:
            uncovered_since = None
        elif uncovered_since is None or covered != signed:
            uncovered_since = now
        signed = covered
        yield metrics.EVIDENCE_ENTRIES, Reading(size)
        yield (
            metrics.EVIDENCE_CHECKPOINT_AGE,
            Reading(now - uncovered_since if uncovered_since is not None else 0.0),
        )

    return read


def of_daemon(version: str, ready: Callable[[], bool], delay_s: Callable[[], float]) -> Read:
    """What runs, whether it takes calls, and how busy its event loop is."""

    def read() -> _Found:
        yield metrics.BUILD_INFO, Reading(1, (version or "unknown",))
        yield metrics.READY, Reading(ready())
        yield metrics.LOOP_DELAY, Reading(delay_s())

    return read
