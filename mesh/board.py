"""The board: watches the record store, verifies what it says, and keeps the snapshot in force.

The store is pushed to us, never polled; each entry is opened against the authority's own root (I5) and
put in force or refused with a reason, and what was in force before then stays (mesh/core/assembly.py
says for how long). Whatever is in force is also on disk, so that a node starts without the store and
goes on serving its own clients (I4).

Rules it keeps: what others see changes in one synchronous block, and subscribers are called in it, so
that nobody decides on half an update. Statuses are verified like everything else but do not make a new
snapshot. A generation is never signed twice, not even where the first attempt's fate is unknown.

It does not know what policies say, or who may reach whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from mesh.board_audience import Audience
from mesh.board_cache import HEADS, RECORDS, BoardCache, CachedBoard
from mesh.codec.records import status_from_payload
from mesh.core.assembly import DENIES_BY_PRESENCE, Held, RecordTable, StatusTable
from mesh.core.errors import MeshError, Reason
from mesh.core.records import CLOCK_TOLERANCE_S, ROOT, RecordKey, RecordType
from mesh.core.snapshot import Snapshot, TrustBundle
from mesh.core.types import NodeFacts, NodeStatus, SpiffeId
from mesh.identity.signing import Signer, open_envelope
from mesh.publisher import Publisher
from mesh.record_payload import read_payload
from mesh.store.base import Entry, Lease, RecordStore, WatchBatch, WatchKind

_log = logging.getLogger(__name__)

MAX_REFUSED = 1_000
MAX_WARNINGS = 100  # a minute
# How many entries are verified before others on the event loop get their turn: about 10 ms.
_CHUNK = 64

# Within a listing, what decides about the rest comes first.
_FIRST: Mapping[str, int] = {RecordType.REVOCATIONS: 0, RecordType.FEDERATION: 1}


class Board:
    """One participant's view of all records. `run` must be running for it to move.

    `own_bundle` is trusted for `trust_domain`, and nothing on the board can change that. `clock` gives
    Unix seconds. Without `cache_dir` nothing is kept on disk, and `seen` says which generations were
    seen before.
    """

    def __init__(
        self,
        store: RecordStore,
        trust_domain: str,
        own_bundle: TrustBundle,
        clock: Callable[[], float],
        cache_dir: Path | None = None,
        seen: Mapping[str, tuple[int, str]] | None = None,
    ) -> None:
        if own_bundle.trust_domain != trust_domain:
            raise MeshError(Reason.CONFIG_INVALID, f"the trust bundle is not that of {trust_domain}")
        self._store = store
        self._trust_domain = trust_domain
        self._own_bundle = own_bundle
        self._clock = clock
        self._records = RecordTable(own_bundle, seen)
        self._statuses = StatusTable()
        self._refused: dict[str, Reason] = {}
        self._audience = Audience()
        # Of the own trust domain's keys on the board: revision, and whether that is what is in force.
        self._on_board: dict[str, tuple[int, bool]] = {}
        self._doubted: dict[str, tuple[int, bool]] = {}  # the same as when the store went away, while it is
        self._publisher = Publisher(self, store, clock)
        self._look_again = False
        self._look_again_at = math.inf
        self._swept_at = 0.0
        self._warned = (0, 0)  # in which minute, how often
        self._connected = False
        self._cache = BoardCache(cache_dir, self._memory) if cache_dir else None
        version = self._load(self._cache) if self._cache else 0
        self._snapshot = self._records.snapshot(version + 1)

    # --- what others see ---------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """Everything in force now."""
        return self._snapshot

    @property
    def statuses(self) -> Mapping[SpiffeId, NodeStatus]:
        """Each node's last word on its load: a live view. While the store is away, the last known."""
        return self._statuses.current

    @property
    def connected(self) -> bool:
        """Whether the store answers and has been listed."""
        return self._connected

    @property
    def refused(self) -> Mapping[str, Reason]:
        """Why what lies under a key on the board is not believed; at most 1,000 keys."""
        return MappingProxyType(self._refused)

    @property
    def problems(self) -> Mapping[str, str]:
        """What an operator should look at, such as a full disk; by topic."""
        return self._cache.problems if self._cache else {}

    @property
    def facts(self) -> dict[SpiffeId, NodeFacts]:
        """What authorities state about their nodes, those that have not joined yet included."""
        held = ((key, held.payload) for key, held in self._records.items())
        return {key.node: payload for key, payload in held if isinstance(payload, NodeFacts)}

    def held(self, key: RecordKey) -> Held | None:
        """The record in force under this key, statuses excepted."""
        return self._records.get(key)

    def own(self) -> tuple[RecordKey, ...]:
        """The keys of the own trust domain that are in force, statuses excepted."""
        return tuple(key for key, _ in self._records.items() if key.trust_domain == self._trust_domain)

    def generation(self, key: RecordKey) -> int:
        """The highest generation ever seen under this key, 0 if none."""
        seen = self._records.seen.get(str(key), (0, ""))[0]
        return max(seen, self._statuses.generation(key))

    def subscribe(self, callback: Callable[[Snapshot], None]) -> Callable[[], None]:
        """Calls back, synchronously, with every new snapshot. Returns what ends it."""
        return self._audience.subscribe(callback)

    async def wait_for(self, predicate: Callable[[Snapshot], bool], timeout: float) -> Snapshot:
        """The first snapshot that the predicate accepts, asked now and after every change of any kind.

        Raises TimeoutError after `timeout` seconds.
        """
        return await self._audience.wait_for(predicate, self._snapshot, timeout)

    async def listed(self, timeout: float) -> bool:
        """Whether the store is listed, waiting so many seconds for it. Until then nobody's load is known: who
        places requests now would refuse what others could take."""
        with contextlib.suppress(TimeoutError):
            await self.wait_for(lambda _: self._connected, timeout)
        return self._connected

    # --- following the store -----------------------------------------------------------------------

    async def run(self) -> None:
        """Follows the store until cancelled, or until the store is closed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._keep_time())]
                if self._cache:
                    helpers += [tasks.create_task(self._cache.keep(name)) for name in (RECORDS, HEADS)]
                while await self._follow():
                    pass
                for helper in helpers:
                    helper.cancel()
        finally:
            self._connected = False
            if self._cache:
                self._cache.flush()

    async def _follow(self) -> bool:
        """Follows one watch; whether to begin another, because there is more to be believed now."""
        self._look_again = False
        async with contextlib.aclosing(self._store.watch(ROOT)) as batches:
            async for batch in batches:
                await self._take(batch)
                if self._look_again:
                    return True
        return False

    async def _take(self, batch: WatchBatch) -> None:
        if batch.kind is WatchKind.DISCONNECTED:
            self._connected, self._doubted = False, self._on_board.copy()
            self._audience.nudge(self._snapshot)
            return
        changed: set[RecordType] = set()
        if batch.kind is WatchKind.LISTING:
            present = {entry.key for entry in batch.puts}
            # What was published here while the listing was on its way is not in it, and is no older for that.
            # What is from before a break may be: a board restored from an old copy counts from there.
            self._on_board = {
                key: known
                for key, known in self._on_board.items()
                if known[0] > batch.revision and self._doubted.get(key) != known
            }
            self._refused = {key: reason for key, reason in self._refused.items() if key in present}
            self._statuses.keep({node for node in self.statuses if _status_key(node) in present})
        for count, entry in enumerate(sorted(batch.puts, key=self._rank)):
            if count % _CHUNK == _CHUNK - 1:
                await asyncio.sleep(0)
            changed |= self._put(entry)
        for key in batch.deletes:
            self._delete(key)
        if batch.kind is WatchKind.LISTING:
            # The own federation came first, so all of it has been judged by the federation of now.
            self._look_again = False
        back, self._connected, self._doubted = not self._connected, True, {}
        self._settle(changed, sweep=back or batch.kind is WatchKind.LISTING)

    def _rank(self, entry: Entry) -> tuple[bool, int]:
        trust_domain, _, rest = entry.key.removeprefix(ROOT).partition("/")
        return trust_domain != self._trust_domain, _FIRST.get(rest, 2)

    def _put(self, entry: Entry) -> set[RecordType]:
        """Puts an entry in force or refuses it; which types of record that changed."""
        if entry.revision < self._on_board.get(entry.key, (0, False))[0]:
            return set()  # the watch lags behind what was published here
        key: RecordKey | None = None
        try:
            key = RecordKey.parse(entry.key)
            changed = self._believe(key, entry.value, self._clock())
        except MeshError as error:
            self._refuse(entry, key, error)
            return set()
        self._refused.pop(entry.key, None)
        if key.trust_domain == self._trust_domain:
            self._on_board[entry.key] = (entry.revision, True)
        return {key.type} if changed else set()

    def _believe(self, key: RecordKey, envelope: bytes, now: float) -> bool:
        """Verifies and applies; whether anything changed. Raises MeshError and changes nothing."""
        held = self._records.get(key)
        if held is not None and held.envelope == envelope:
            return False
        if key.type is RecordType.STATUS and self._statuses.holds(key, envelope):
            return False
        bundles = self._records.bundles
        if key.trust_domain not in bundles:
            raise _NotFederated(Reason.RECORD_WRONG_SIGNER, "not of a trust domain that is federated here")
        statement = open_envelope(envelope, bundles, now)
        if key.type is RecordType.STATUS:
            if self._statuses.check(key, statement, self._records):
                status = status_from_payload(statement.payload, statement.not_before)
                self._statuses.accept(key, statement, status, envelope)
            return False
        if not self._records.check(key, statement):
            return False
        self._records.accept(key, Held(statement, read_payload(key, statement), envelope))
        self._follow_federation(bundles)
        if key.type is RecordType.REVOCATIONS and Reason.IDENTITY_REVOKED in self._refused.values():
            self._look_again = True
        return True

    def _follow_federation(self, before: Mapping[str, TrustBundle]) -> None:
        """Where the roots of a trust domain are others than before, what the old ones vouched for ends,
        and the board is read again for what the new ones vouch for."""
        after = self._records.bundles
        for trust_domain in before.keys() | after.keys():
            if before.get(trust_domain) != after.get(trust_domain):
                self._records.drop(trust_domain)
                self._look_again = True

    def _refuse(self, entry: Entry, named: RecordKey | None, error: MeshError) -> None:
        key = entry.key
        full = key not in self._refused and len(self._refused) >= MAX_REFUSED
        # The board may invent any number of keys; what lies in the place of something in force counts always.
        if named and named.trust_domain == self._trust_domain and (not full or self._records.get(named)):
            self._on_board[key] = (entry.revision, False)
        if error.reason is Reason.RECORD_NOT_YET_VALID:
            self._look_again_at = min(self._look_again_at, self._clock() + CLOCK_TOLERANCE_S)
        if full or self._refused.get(key) is error.reason:
            return
        self._refused[key] = error.reason
        # Others may share the board without being federated here: that is nothing to worry about. Nor is what
        # this process itself has said later, and has yet to publish.
        outdone = error.reason is Reason.RECORD_ROLLED_BACK and named and self._publisher.ahead(named)
        worrying = not isinstance(error, _NotFederated) and not outdone
        minute = int(self._clock() // 60)
        self._warned = (minute, self._warned[1] + worrying if self._warned[0] == minute else 0)
        # A board that puts and removes garbage over and over must not fill the log.
        level = logging.WARNING if worrying and self._warned[1] <= MAX_WARNINGS else logging.DEBUG
        _log.log(level, "a record on the board is refused: %s, under %.80r", error, key)

    def _delete(self, text: str) -> None:
        self._on_board.pop(text, None)
        self._refused.pop(text, None)
        with contextlib.suppress(MeshError):
            key = RecordKey.parse(text)
            if key.type is RecordType.STATUS:
                self._statuses.remove(key.node)

    def _settle(self, changed: set[RecordType], *, sweep: bool = False) -> None:
        """Makes what has changed visible, all at once."""
        before = self._records.bundles
        if self._records.expire(self._clock()):
            self._follow_federation(before)
            changed = {*RecordType}
        self._sweep(now=sweep or bool(changed - {RecordType.HEADS}))
        if changed:
            self._renew_snapshot(changed)
        self._audience.nudge(self._snapshot)

    def _sweep(self, *, now: bool) -> None:
        """Looks through all statuses: when records have changed, or else not more often than each second,
        because statuses themselves change that often."""
        time = self._clock()
        if now or time - self._swept_at >= 1.0:
            self._swept_at = time
            # Without the store no node can renew its status, and that says nothing about the node.
            self._statuses.sweep(time if self._connected else 0.0, self._records)

    def _renew_snapshot(self, changed: set[RecordType]) -> None:
        version = self._snapshot.version + 1
        if changed == {RecordType.HEADS}:
            self._snapshot = self._records.with_heads(self._snapshot, version)
        else:
            self._snapshot = self._records.snapshot(version)
        if self._cache:
            for file, behind in (
                (HEADS, RecordType.HEADS in changed),
                (RECORDS, changed != {RecordType.HEADS}),
            ):
                if behind:
                    self._cache.changed(file)
        self._audience.publish(self._snapshot)

    def tick(self) -> None:
        """Ends what has expired by the clock. `run` does this by itself."""
        # What was dated ahead may hold by now, and the store will not say so.
        if self._clock() >= self._look_again_at:
            self._look_again, self._look_again_at = True, math.inf
        self._settle(set())

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, max(0.01, self._records.next_expiry - self._clock())))
            if min(self._records.next_expiry, self._look_again_at) <= self._clock():
                self.tick()

    # --- publishing --------------------------------------------------------------------------------

    async def publish(
        self, signer: Signer, key: RecordKey, payload: bytes, ttl_s: float, lease: Lease | None = None
    ) -> int:
        """Signs a payload under the key's next generation, puts it on the board, and returns that.

        Raises RECORD_WRONG_SIGNER, STORE_UNAVAILABLE where its fate is unknown (publish again: it gets
        a later generation), and STORE_CONFLICT where somebody else has published under the key what was
        not in force here (look again), or where the lease is lost. What a node says of itself is in force
        here even if the store is away (I4).
        """
        return await self._publisher.publish(signer, key, payload, ttl_s, lease)

    def announce(self, signer: Signer, key: RecordKey, payload: bytes, ttl_s: float) -> None:
        """Puts a node's own record in force here alone: it needs no board to know itself (I4).

        Raises RECORD_WRONG_SIGNER for any key that its signer is not the subject of.
        """
        self._publisher.announce(signer, key, payload, ttl_s)

    def due(self, key: RecordKey, payload: bytes) -> bool:
        """Whether its signer should publish this payload: it is not in force under the key, more than
        half of its life is over, or the board has lost it."""
        return self._publisher.due(key, payload)

    async def restore(self) -> int:
        """Puts back what is in force of the own trust domain but missing on the board; how many.

        For a board that was wiped, or restored from an old copy. Anybody may: signatures are the authors'.
        """
        return await self._publisher.restore()

    def take(self, entry: Entry) -> None:
        """Takes one entry as if the watch had brought it: whoever reads or writes the store has it first."""
        self._settle(self._put(entry))

    def adopt(self, key: RecordKey, envelope: bytes) -> None:
        """Puts an envelope in force that is not known to be on the board; raises if it does not verify."""
        self._settle({key.type} if self._believe(key, envelope, self._clock()) else set())

    def board_revision(self, key: str) -> tuple[int, bool] | None:
        """Of an own key: its revision on the board (0: absent), and whether that is what is in force.

        None if that is unknown, because the store has not been listed.
        """
        return self._on_board.get(key, (0, False)) if self._connected else None

    def adopt_all(self, envelopes: Mapping[str, bytes]) -> dict[str, MeshError]:
        """The same for many, by key, what decides about the rest first; what is not believed, and why."""
        now = self._clock()
        refused, changed = self._believe_all(envelopes, lambda _: now)
        self._settle(changed)
        return refused

    # --- memory ------------------------------------------------------------------------------------

    def _load(self, cache: BoardCache) -> int:
        cached = cache.load()
        self._records = RecordTable(self._own_bundle, cached.seen)
        now = self._clock()
        # A revocation list that has expired since still denies (mesh/core/assembly.py): it is checked as
        # of when it was saved.
        saved_at = min(now, cached.saved_at)
        self._believe_all(cached.envelopes, lambda key: saved_at if key.type in DENIES_BY_PRESENCE else now)
        self._records.expire(now)
        return cached.version

    def _believe_all(
        self, envelopes: Mapping[str, bytes], as_of: Callable[[RecordKey], float]
    ) -> tuple[dict[str, MeshError], set[RecordType]]:
        refused: dict[str, MeshError] = {}
        changed: set[RecordType] = set()
        for entry in sorted((Entry(key, data, 0) for key, data in envelopes.items()), key=self._rank):
            try:
                key = RecordKey.parse(entry.key)
                if self._believe(key, entry.value, as_of(key)):
                    changed.add(key.type)
            except MeshError as error:
                refused[entry.key] = error
        return refused, changed

    def _memory(self, name: str) -> CachedBoard:
        envelopes = {
            str(key): held.envelope
            for key, held in self._records.items()
            if (key.type is RecordType.HEADS) == (name == HEADS)
        }
        seen = dict(self._records.seen) if name == RECORDS else {}
        return CachedBoard(self._snapshot.version, self._clock(), seen, envelopes)


class _NotFederated(MeshError):
    """A record of a trust domain whose roots are not accepted here."""


def _status_key(node: SpiffeId) -> str:
    return str(RecordKey(node.trust_domain, RecordType.STATUS, node.name))
