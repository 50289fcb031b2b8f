"""Assembly: from verified statements to the snapshot that decisions rest on.

`RecordTable` holds the records in force of every trust domain, `StatusTable` the nodes' own word on
their load, which changes every second and must not cost a new snapshot. Both are plain state: each
method takes what has been verified and decoded, and either applies it whole or raises MeshError and
changes nothing. Signatures are checked before (mesh/identity), bytes are read before (mesh/codec).

What takes a record out of force, and in which direction each errs (I4, I5):

- A newer generation replaces it. Nothing ever goes back: the highest generation of each key is
  remembered for good, also when the record itself is gone.
- A deletion on the board is nobody's signed word, so it is no more than silence: the record stays until
  it expires, and the authority's heads bound how long that may be relied on across a border. Otherwise
  whoever owns the board could cut a node off from its own clients, or un-revoke, by deleting. Only a
  status goes with its key, because its lease is how a node's absence is told.
- Expiry ends policies, facts, node records, federations and heads, and each of these denies by being
  absent. Two kinds deny by being present: a revocation list cuts off, a groups record replaces groups
  that may be wider. They stay in force when they expire, until replaced, but no longer count as
  current: heads that name them then make the trust domain stale, which denies what crosses a border.
- Revoking a signer ends what it signed, in the same way. An authority that replaces its signing key
  signs its records anew first and revokes the old certificate then.
- Dropping a trust domain from the federation ends all its records.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.records import ROOT, RecordKey, RecordType, Statement, check_generation, check_place
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Candidate, Heads, PolicyDocument, Revocations, Snapshot, TrustBundle
from mesh.core.types import NodeFacts, NodeRecord, NodeStatus, SpiffeId

Payload = (
    str | NodeFacts | NodeRecord | Revocations | Groups | Heads | CollectionSpec | tuple[TrustBundle, ...]
)

# A foreign authority can sign as many names as it likes; this is how many it is given room for.
MAX_KEYS_PER_TRUST_DOMAIN = 60_000

# In force even when expired or signed by somebody revoked since: without them, more would be allowed.
DENIES_BY_PRESENCE = frozenset({RecordType.REVOCATIONS, RecordType.GROUPS})


@dataclass(frozen=True, slots=True)
class Held:
    """A record in force, with the envelope that it came in."""

    statement: Statement
    payload: Payload
    envelope: bytes


class Generations:
    """The highest (generation, digest) ever accepted by key. It only grows."""

    def __init__(self, seen: Mapping[str, tuple[int, str]] | None = None) -> None:
        self._seen = dict(seen or {})
        self._keys = Counter(_trust_domain_of(key) for key in self._seen)
        self.seen: Mapping[str, tuple[int, str]] = MappingProxyType(self._seen)

    def check(self, statement: Statement) -> bool:
        """Whether the statement is news; raises RECORD_ROLLED_BACK, or RECORD_TOO_LARGE if it has no room."""
        trust_domain = _trust_domain_of(statement.key)
        if statement.key not in self._seen and self._keys[trust_domain] >= MAX_KEYS_PER_TRUST_DOMAIN:
            raise MeshError(
                Reason.RECORD_TOO_LARGE, f"a trust domain has at most {MAX_KEYS_PER_TRUST_DOMAIN} records"
            )
        return check_generation(self._seen, statement)

    def note(self, statement: Statement) -> None:
        """Remembers a statement that `check` passed."""
        if statement.key not in self._seen:
            self._keys[_trust_domain_of(statement.key)] += 1
        self._seen[statement.key] = (statement.generation, statement.digest)


def _trust_domain_of(key: str) -> str:
    return key.removeprefix(ROOT).partition("/")[0]


class RecordTable:
    """Every record in force but statuses. `seen` is what earlier runs saw; see Generations."""

    def __init__(self, own: TrustBundle, seen: Mapping[str, tuple[int, str]] | None = None) -> None:
        self._own = own
        self._generations = Generations(seen)
        self._held: dict[RecordKey, Held] = {}
        self._expiries: list[tuple[float, str]] = []
        # Kept along with every change: a large mesh must not be put together anew for a small one.
        self._current: dict[str, tuple[int, str]] = {}
        self._revocations: dict[str, Revocations] = {}
        self._candidates: dict[SpiffeId, Candidate] = {}
        self._collections: dict[str, dict[str, CollectionSpec]] = {}
        self._shown: dict[SpiffeId, Candidate] | None = None

    @property
    def seen(self) -> Mapping[str, tuple[int, str]]:
        """Highest generation and its digest, by key, of everything that was ever accepted."""
        return self._generations.seen

    @property
    def bundles(self) -> dict[str, TrustBundle]:
        """Whose records can be verified: the own trust domain's, and those that it federates with."""
        federation = self._held.get(RecordKey(self._own.trust_domain, RecordType.FEDERATION))
        federated = federation.payload if federation and isinstance(federation.payload, tuple) else ()
        return {bundle.trust_domain: bundle for bundle in (*federated, self._own)}

    def get(self, key: RecordKey) -> Held | None:
        """The record in force under this key."""
        return self._held.get(key)

    def items(self) -> tuple[tuple[RecordKey, Held], ...]:
        """Every record in force."""
        return tuple(self._held.items())

    def is_revoked(self, identity: SpiffeId, serial: str) -> bool:
        """Whether its own authority has cut this identity or certificate off."""
        revoked = self._revocations.get(identity.trust_domain)
        return revoked is not None and (identity in revoked.ids or serial in revoked.serials)

    def check(self, key: RecordKey, statement: Statement) -> bool:
        """Whether `accept` would change anything.

        Raises RECORD_WRONG_KEY, RECORD_WRONG_SIGNER, RECORD_ROLLED_BACK, IDENTITY_REVOKED or
        RECORD_TOO_LARGE.
        """
        check_place(statement, key)
        news = self._generations.check(statement)
        self.check_signer(statement)
        return news or key not in self._held

    def check_signer(self, statement: Statement) -> None:
        """Raises IDENTITY_REVOKED if its authority has cut the signer off."""
        if self.is_revoked(statement.signer, statement.signer_serial):
            raise MeshError(Reason.IDENTITY_REVOKED, "its signer has been revoked")

    def accept(self, key: RecordKey, held: Held) -> bool:
        """Puts a verified record in force; whether anything changed. Raises what `check` raises.

        The payload is what the statement's payload says, of the kind that belongs to the key's type.
        """
        if not self.check(key, held.statement):
            return False
        _check_payload(key, held.payload)
        self._generations.note(held.statement)
        self._set(key, held)
        self._expect_expiry(held.statement)
        if key.type is RecordType.REVOCATIONS:
            self._end_revoked(key.trust_domain)
        return True

    def drop(self, trust_domain: str) -> bool:
        """Ends every record of a trust domain that is no longer federated; whether there was one."""
        gone = [key for key in self._held if key.trust_domain == trust_domain]
        for key in gone:
            self._set(key, None)
        return bool(gone)

    def expire(self, now: float) -> bool:
        """Ends what has expired; whether anything changed. `now` in Unix seconds."""
        changed = False
        while self._expiries and self._expiries[0][0] <= now:
            _, text = heapq.heappop(self._expiries)
            key = RecordKey.parse(text)
            held = self._held.get(key)
            if held is None or held.statement.not_after > now:
                continue  # replaced since
            changed = True
            self._current.pop(text, None)
            if key.type not in DENIES_BY_PRESENCE:
                self._set(key, None)
        return changed

    @property
    def next_expiry(self) -> float:
        """When `expire` is due next, Unix seconds; infinity if nothing expires."""
        return self._expiries[0][0] if self._expiries else float("inf")

    def snapshot(self, version: int) -> Snapshot:
        """Everything in force, immutable. A node is a candidate once facts and node record are there."""
        policies: dict[str, PolicyDocument] = {}
        groups: dict[str, Groups] = {}
        for trust_domain in self.bundles:
            for kind in (RecordType.POLICY, RecordType.GROUPS):
                held = self._held.get(RecordKey(trust_domain, kind))
                match held.payload if held else None:
                    case str() as cedar if held:
                        policies[trust_domain] = PolicyDocument.of(cedar, held.statement.generation)
                    case Groups() as own_groups:
                        groups[trust_domain] = own_groups
        if self._shown is None:
            self._shown = dict(self._candidates)
        return Snapshot(
            version=version,
            trust_domain=self._own.trust_domain,
            bundles=self.bundles,
            policies=policies,
            candidates=self._shown,
            revocations=dict(self._revocations),
            heads=self._heads(),
            groups=groups,
            collections={name: dict(held) for name, held in self._collections.items()},
            generations=dict(self._current),
        )

    def with_heads(self, snapshot: Snapshot, version: int) -> Snapshot:
        """The same snapshot with the heads of now: they change every few seconds, and nothing else does."""
        return replace(snapshot, version=version, heads=self._heads())

    def _set(self, key: RecordKey, held: Held | None) -> None:
        if held is None:
            del self._held[key]
            self._current.pop(str(key), None)
        else:
            self._held[key] = held
            if key.type is not RecordType.HEADS:
                self._current[str(key)] = (held.statement.generation, held.statement.digest)
        if key.type is RecordType.REVOCATIONS:
            self._revocations.pop(key.trust_domain, None)
            if held and isinstance(held.payload, Revocations):
                self._revocations[key.trust_domain] = held.payload
        if key.type is RecordType.COLLECTION:
            self._collections.setdefault(key.trust_domain, {}).pop(key.name, None)
            if held and isinstance(held.payload, CollectionSpec):
                self._collections[key.trust_domain][key.name] = held.payload
        if key.type in (RecordType.FACTS, RecordType.NODE):
            self._shown = None
            facts = self._held.get(RecordKey(key.trust_domain, RecordType.FACTS, key.name))
            record = self._held.get(RecordKey(key.trust_domain, RecordType.NODE, key.name))
            self._candidates.pop(key.node, None)
            if facts and record:
                self._candidates[key.node] = _candidate(key.node, facts.payload, record.payload)

    def _heads(self) -> dict[str, Heads]:
        found = ((name, self._held.get(RecordKey(name, RecordType.HEADS))) for name in self.bundles)
        return {name: held.payload for name, held in found if held and isinstance(held.payload, Heads)}

    def _expect_expiry(self, statement: Statement) -> None:
        if len(self._expiries) > 1000 + 2 * len(self._held):
            # Heads come every few seconds; what was replaced long ago need not be waited for.
            self._expiries = [(held.statement.not_after, str(key)) for key, held in self._held.items()]
            heapq.heapify(self._expiries)
        heapq.heappush(self._expiries, (statement.not_after, statement.key))

    def _end_revoked(self, trust_domain: str) -> None:
        for key, held in tuple(self._held.items()):
            if key.trust_domain != trust_domain or key.type in DENIES_BY_PRESENCE:
                continue
            if self.is_revoked(held.statement.signer, held.statement.signer_serial):
                self._set(key, None)


_PAYLOADS: Mapping[RecordType, type] = {
    RecordType.POLICY: str,
    RecordType.FACTS: NodeFacts,
    RecordType.NODE: NodeRecord,
    RecordType.REVOCATIONS: Revocations,
    RecordType.FEDERATION: tuple,
    RecordType.GROUPS: Groups,
    RecordType.HEADS: Heads,
    RecordType.COLLECTION: CollectionSpec,
}


def _check_payload(key: RecordKey, payload: Payload) -> None:
    if not isinstance(payload, _PAYLOADS[key.type]):
        raise TypeError(f"a {key.type} record does not hold a {type(payload).__name__}")
    if isinstance(payload, CollectionSpec) and payload.name != key.name:
        raise MeshError(Reason.RECORD_WRONG_KEY, "the collection is named differently from its key")
    if isinstance(payload, tuple) and any(bundle.trust_domain == key.trust_domain for bundle in payload):
        # Its own roots come from the machine's trust bundle and nowhere else (I5).
        raise MeshError(Reason.RECORD_MALFORMED, "a federation never names its own trust domain")


def _candidate(node: SpiffeId, facts: Payload, record: Payload) -> Candidate:
    if not isinstance(facts, NodeFacts) or not isinstance(record, NodeRecord):
        raise TypeError("a candidate is made of facts and a node record")
    return Candidate(node, facts, record)


class StatusTable:
    """Each node's latest word on its load. A status that is gone means that the node is not ready."""

    def __init__(self) -> None:
        self._generations = Generations()
        self._statements: dict[SpiffeId, Statement] = {}
        self._envelopes: dict[SpiffeId, bytes] = {}
        self._current: dict[SpiffeId, NodeStatus] = {}
        self.current: Mapping[SpiffeId, NodeStatus] = MappingProxyType(self._current)

    def check(self, key: RecordKey, statement: Statement, records: RecordTable) -> bool:
        """Whether `accept` would change anything; raises like RecordTable.check."""
        check_place(statement, key)
        news = self._generations.check(statement)
        records.check_signer(statement)
        return news or key.node not in self._statements

    def holds(self, key: RecordKey, envelope: bytes) -> bool:
        """Whether this very envelope is what is held: a new listing brings most of them again."""
        return self._envelopes.get(key.node) == envelope

    def accept(self, key: RecordKey, statement: Statement, status: NodeStatus, envelope: bytes) -> None:
        """Takes a status that `check` passed."""
        self._envelopes[key.node] = envelope
        self._generations.note(statement)
        self._statements[key.node] = statement
        self._current[key.node] = status

    def generation(self, key: RecordKey) -> int:
        """The highest generation seen under this key, 0 if none."""
        return self._generations.seen.get(str(key), (0, ""))[0]

    def remove(self, node: SpiffeId) -> bool:
        """Forgets a node's status; whether there was one."""
        self._current.pop(node, None)
        self._envelopes.pop(node, None)
        return self._statements.pop(node, None) is not None

    def keep(self, nodes: Collection[SpiffeId]) -> bool:
        """Forgets every status but those of these nodes; whether there was one."""
        gone = [node for node in self._statements if node not in nodes]
        for node in gone:
            self.remove(node)
        return bool(gone)

    def sweep(self, now: float, records: RecordTable) -> bool:
        """Forgets what has expired, or whose signer or trust domain is no longer trusted."""
        bundles = records.bundles
        good = {
            node
            for node, statement in self._statements.items()
            if statement.not_after > now
            and node.trust_domain in bundles
            and not records.is_revoked(statement.signer, statement.signer_serial)
        }
        return self.keep(good)
