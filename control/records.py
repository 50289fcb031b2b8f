"""What an authority says on the board: its policy, facts, revocations, federation and collections.

Each change reads what is in force, changes it and publishes the next generation, one change at a time,
and only while the board answers: whoever does not know the list in force must not replace it.
control/heads.py keeps alive what is published here.

It knows neither callers nor requests; control/api asks who may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from control.heads import HeadsKeeper
from mesh import codec
from mesh.board import Board
from mesh.codec.records import MAX_REVOCATIONS
from mesh.core.errors import MeshError, Reason
from mesh.core.policy import validate_policy
from mesh.core.records import RecordKey, RecordType
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Revocations, TrustBundle, policy_digest
from mesh.core.types import NodeFacts, SpiffeId, jurisdiction_of
from mesh.identity.bundle import check_bundle

RETRY_HINT_S = 5.0
# As many as a node can say that it holds.
MAX_COLLECTIONS = 256


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy set that was checked, and published unless `generation` is what it was before."""

    generation: int
    digest: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CollectionChange:
    """Settings that were checked, and published unless `generation` is what it was before (0: never).

    `changed` names the settings that differ from those in force before.
    """

    generation: int
    changed: tuple[str, ...] = ()


class AuthorityRecords:
    """One authority's own records, published through the keeper of its heads."""

    def __init__(self, board: Board, trust_domain: str, keeper: HeadsKeeper) -> None:
        self._board = board
        self._trust_domain = trust_domain
        self._keeper = keeper

    @property
    def revocations(self) -> Revocations:
        """Who is cut off."""
        return self._board.snapshot.revocations.get(self._trust_domain, Revocations())

    @property
    def federation(self) -> tuple[TrustBundle, ...]:
        """Whose bundles are accepted, besides the own one."""
        held = self._board.held(self._key(RecordType.FEDERATION))
        return held.payload if held is not None and isinstance(held.payload, tuple) else ()

    def facts(self, name: str) -> NodeFacts:
        """What is stated about an own node; raises NOT_FOUND."""
        held = self._board.held(self._key(RecordType.FACTS, name))
        if held is None or not isinstance(held.payload, NodeFacts):
            raise MeshError(Reason.NOT_FOUND, f"no node {name} of {self._trust_domain} is known")
        return held.payload

    def require_board(self) -> None:
        """Raises STORE_UNAVAILABLE unless what is in force is known and can be changed."""
        if not self._board.connected:
            raise MeshError(
                Reason.STORE_UNAVAILABLE, "the board does not answer: nothing is changed", {}, RETRY_HINT_S
            )

    async def apply_policy(self, cedar: str, *, dry_run: bool = False) -> PolicyChange:
        """Checks a policy set and puts it in force. POLICY_MALFORMED or POLICY_TOO_LARGE change nothing."""
        ids = await asyncio.to_thread(validate_policy, cedar)
        digest = policy_digest(cedar)
        if dry_run:
            held = self._board.held(self._key(RecordType.POLICY))
            return PolicyChange(held.statement.generation if held else 0, digest, ids)
        generation = await self._publish(RecordType.POLICY, "", lambda: codec.policy_to_payload(cedar))
        return PolicyChange(generation, digest, ids)

    async def apply_collection(self, spec: CollectionSpec, *, dry_run: bool = False) -> CollectionChange:
        """Puts a collection's settings in force. REQUEST_TOO_LARGE if there are too many collections."""
        key = self._key(RecordType.COLLECTION, spec.name)
        changes: list[CollectionChange] = []

        def payload() -> bytes:
            changes.append(self._collection_change(key, spec))
            return codec.collection_to_payload(spec)

        if dry_run:
            payload()
            return changes[-1]
        generation = await self._publish(key.type, key.name, payload)
        return CollectionChange(generation, changes[-1].changed)

    def _collection_change(self, key: RecordKey, spec: CollectionSpec) -> CollectionChange:
        held = self._board.held(key)
        if held is not None and isinstance(held.payload, CollectionSpec):
            return CollectionChange(held.statement.generation, spec.difference(held.payload))
        if sum(own.type is key.type for own in self._board.own()) >= MAX_COLLECTIONS:
            raise MeshError(
                Reason.REQUEST_TOO_LARGE, f"an authority has at most {MAX_COLLECTIONS} collections"
            )
        return CollectionChange(0)

    async def state_facts(self, name: str, change: Callable[[], NodeFacts]) -> tuple[NodeFacts, int]:
        """States what `change` returns, which is called when no other change is under way."""
        stated: list[NodeFacts] = []

        def payload() -> bytes:
            stated.append(change())
            return codec.facts_to_payload(stated[-1])

        generation = await self._publish(RecordType.FACTS, name, payload)
        return stated[-1], generation

    async def revoke(self, ids: Iterable[SpiffeId], serials: Iterable[str]) -> int:
        """Cuts off these, besides those that are cut off already."""
        more = Revocations(frozenset(ids), frozenset(serials))

        def payload() -> bytes:
            old = self.revocations
            new = Revocations(old.ids | more.ids, old.serials | more.serials)
            if max(len(new.ids), len(new.serials)) > MAX_REVOCATIONS:
                raise MeshError(
                    Reason.REQUEST_TOO_LARGE,
                    f"at most {MAX_REVOCATIONS} names and serial numbers are revoked",
                )
            return codec.revocations_to_payload(new)

        return await self._publish(RecordType.REVOCATIONS, "", payload)

    async def accept(self, bundle: TrustBundle) -> int:
        """Accepts another authority's bundle, or its newer one. BUNDLE_INVALID changes nothing."""
        if bundle.trust_domain == self._trust_domain:
            raise MeshError(
                Reason.BUNDLE_INVALID, "expected another authority's bundle: the own one is no news"
            )
        check_bundle(bundle)
        try:
            country = jurisdiction_of(bundle.trust_domain)
        except MeshError as error:
            raise MeshError(Reason.BUNDLE_INVALID, f"the trust domain begins with: {error.message}") from None

        def payload() -> bytes:
            others = {b.trust_domain: b for b in self.federation}
            # Policies speak of jurisdictions: a second authority of one would pass for the first.
            beside = {*others, self._trust_domain} - {bundle.trust_domain}
            if any(td.split(".", 1)[0].upper() == country for td in beside):
                raise MeshError(
                    Reason.BUNDLE_INVALID, f"another authority speaks for {country} already: drop that first"
                )
            known = others.get(bundle.trust_domain)
            if known is not None and bundle.sequence < known.sequence:
                raise MeshError(
                    Reason.BUNDLE_INVALID,
                    f"sequence {bundle.sequence} is older than {known.sequence}, accepted before",
                )
            others[bundle.trust_domain] = bundle
            if len(others) > codec.MAX_BUNDLES:
                raise MeshError(Reason.REQUEST_TOO_LARGE, f"at most {codec.MAX_BUNDLES} bundles are accepted")
            return codec.federation_to_payload(others.values())

        return await self._publish(RecordType.FEDERATION, "", payload)

    async def drop(self, trust_domain: str) -> int:
        """Stops accepting another authority; NOT_FOUND if it was not accepted."""

        def payload() -> bytes:
            others = {b.trust_domain: b for b in self.federation}
            if others.pop(trust_domain, None) is None:
                raise MeshError(Reason.NOT_FOUND, f"{trust_domain} is not accepted here")
            return codec.federation_to_payload(others.values())

        return await self._publish(RecordType.FEDERATION, "", payload)

    async def _publish(self, kind: RecordType, name: str, payload: Callable[[], bytes]) -> int:
        async with self._keeper.changing:
            self.require_board()
            return await self._keeper.publish(self._key(kind, name), payload())

    def _key(self, kind: RecordType, name: str = "") -> RecordKey:
        return RecordKey(self._trust_domain, kind, name)
