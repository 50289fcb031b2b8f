"""The snapshot: everything verified that a decision may rest on, immutable.

mesh/board.py builds a new one on every change and persists it; everything that decides takes one as
an argument. It also answers the two questions that are about records themselves: is this identity
revoked, and are this authority's records fresh enough to cross a border on (I4).

Freshness follows the timestamp role of The Update Framework (TUF 1.0, section 2.1.4): the authority
signs, every few seconds, which generation of each of its records is current. A board that is down, or
that keeps answering with old records, therefore runs out of time by itself (I5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mesh.core.jurisdictions import Groups
from mesh.core.records import CLOCK_TOLERANCE_S
from mesh.core.retrieval import CollectionSpec
from mesh.core.types import NodeFacts, NodeRecord, SpiffeId


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The root certificates (DER) of one trust domain."""

    trust_domain: str
    roots: tuple[bytes, ...]
    sequence: int = 1


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """One authority's Cedar policies in force; `digest` is "sha256:<hex>" of the text."""

    cedar: str
    digest: str
    generation: int

    @classmethod
    def of(cls, cedar: str, generation: int) -> PolicyDocument:
        """The document with this text."""
        return cls(cedar, policy_digest(cedar), generation)


def policy_digest(cedar: str) -> str:
    """By what a policy set is named: "sha256:<hex>" of its text in UTF-8."""
    return "sha256:" + hashlib.sha256(cedar.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Revocations:
    """Whom an authority has cut off, by name and by certificate serial (lower-case hex)."""

    ids: frozenset[SpiffeId] = frozenset()
    serials: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Heads:
    """The authority's word on which generations are current. Times in Unix seconds."""

    signed_at: float
    max_age_s: float
    generations: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node with what its authority states (facts) and what it says itself (record)."""

    id: SpiffeId
    facts: NodeFacts
    record: NodeRecord


@dataclass(frozen=True)
class Snapshot:
    """All verified records, by trust domain. Built by mesh/board.py; never changed."""

    version: int
    trust_domain: str  # whose snapshot this is
    bundles: Mapping[str, TrustBundle] = field(default_factory=dict)
    policies: Mapping[str, PolicyDocument] = field(default_factory=dict)
    candidates: Mapping[SpiffeId, Candidate] = field(default_factory=dict)
    revocations: Mapping[str, Revocations] = field(default_factory=dict)
    heads: Mapping[str, Heads] = field(default_factory=dict)
    groups: Mapping[str, Groups] = field(default_factory=dict)
    # trust domain -> name -> how its authority has its documents indexed
    collections: Mapping[str, Mapping[str, CollectionSpec]] = field(default_factory=dict)
    # key -> (generation, digest) of every record in force
    generations: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def is_revoked(self, identity: SpiffeId, serial: str = "") -> bool:
        """Whether its own authority has cut this identity or certificate off."""
        revoked = self.revocations.get(identity.trust_domain)
        return revoked is not None and (identity in revoked.ids or serial in revoked.serials)

    def stale_reason(self, trust_domain: str, now: float) -> str:
        """Why this authority's records may not be used across a border; "" if they may."""
        heads = self.heads.get(trust_domain)
        if heads is None:
            return "its authority has not said which records are current"
        age = now - heads.signed_at
        if age < -CLOCK_TOLERANCE_S:
            return f"its authority's word is dated {-age:.0f} s ahead: compare the clocks"
        if age > heads.max_age_s:
            return f"its authority's word is {age:.1f} s old, more than {heads.max_age_s:g} s"
        return self._behind.get(trust_domain, "")

    @cached_property
    def _behind(self) -> Mapping[str, str]:
        """Per authority, the first record of which a newer generation is current. Looked up once: heads
        list every record of an authority, and every decision asks."""
        behind: dict[str, str] = {}
        for trust_domain, heads in self.heads.items():
            for key, generation in heads.generations.items():
                if self.generations.get(key, (0, ""))[0] < generation:
                    behind[trust_domain] = f"generation {generation} of {key} has not arrived"
                    break
        return behind
