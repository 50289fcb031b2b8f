"""Release: how much of which documents may leave this node, for this caller.

Rules kept here:

- A document with a tenant is for callers of that tenant, of the holder's own authority, and for nobody
  else. That is decided here, before any policy is asked, and no policy can widen it.
- Two keys (I3): the holder's authority and the asker's must both permit, for every class that the
  documents carry or imply. Where they are one and the same it is asked once.
- Levels are steps: a level is reached only if every level below it is permitted too, so a slip in a
  policy ("passage" without "snippet") opens less, not more.
- What is unknown, without a class, or across a border on stale records is not there at all (I4).

Documents are judged by release group (mesh/core/retrieval.py), not one by one: a node has some dozens of
groups. The whole outcome is remembered, so that a search asks for it again and again at little cost.

Pure. It knows nothing of indexes, budgets or texts, and does not judge whether the question may come here:
that is the action `search`, which the node judges first.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from mesh.core.bounded import Bounded
from mesh.core.policy import Disclosure, PolicyEngine, Verdict
from mesh.core.retrieval import ReleaseGroup, ReleaseLevel
from mesh.core.snapshot import Snapshot
from mesh.core.types import Principal, RequestContext, SpiffeId, with_implied

OUTCOMES_REMEMBERED = 1024
_DAY_S = 86_400
_STEPS = tuple(ReleaseLevel)[1:]


class ReleasePolicy:
    """Decides, and remembers: one per process. Use it from one thread."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self._outcomes: Bounded[tuple[object, ...], Mapping[ReleaseGroup, ReleaseLevel]] = Bounded(
            OUTCOMES_REMEMBERED
        )

    def levels(
        self,
        snapshot: Snapshot,
        node: SpiffeId,
        principal: Principal,
        context: RequestContext,
        collection: str,
        groups: Mapping[int, ReleaseGroup],
        now: float,
    ) -> dict[int, ReleaseLevel]:
        """The level of each group, by its number.

        `node` holds the documents, `principal` asks (the client, not the node that asks for it), `context`
        is the request's own: its purpose, transfer basis and tenant count, its data classes do not.
        `now` is Unix seconds.
        """
        if not groups:
            return {}
        if not _may_ask(snapshot, node, principal, now):
            return dict.fromkeys(groups, ReleaseLevel.NOTHING)
        asked = frozenset(groups.values())
        key = (*self._key(snapshot, node, principal, context, now), collection, asked)
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._judge(snapshot, node, principal, context, collection, asked, _day(now))
            self._outcomes.put(key, outcome)
        return {number: outcome[group] for number, group in groups.items()}

    def explain(
        self,
        snapshot: Snapshot,
        node: SpiffeId,
        principal: Principal,
        context: RequestContext,
        collection: str,
        group: ReleaseGroup,
        level: ReleaseLevel,
        now: float,
    ) -> Verdict:
        """Why documents of this group may be released at this level, or why not: the first refusal on the
        way up, or the policies of both authorities that permit the level itself."""
        if not _may_ask(snapshot, node, principal, now):
            return Verdict(False, (), "the records of one of the two authorities are missing or too old")
        if not may_see(group, node, principal):
            return Verdict(False, (), "it is for one tenant of its own authority")
        permitting: list[str] = []
        steps = [step for step in _STEPS if step <= level]
        for authority in _authorities(node, principal):
            verdicts = self._engine.judge_releases(
                snapshot,
                authority,
                principal,
                node,
                snapshot.candidates[node].facts,
                context,
                [_disclosure(group, step, collection) for step in steps],
                _day(now),
            )
            refusal = next((verdict for verdict in verdicts if not verdict.allowed), None)
            if refusal is not None:
                return refusal
            permitting += [name for name in verdicts[-1].policies if name not in permitting]
        return Verdict(True, tuple(permitting))

    def _key(
        self, snapshot: Snapshot, node: SpiffeId, principal: Principal, context: RequestContext, now: float
    ) -> tuple[object, ...]:
        """Everything that levels depend on, the documents aside."""
        authorities = _authorities(node, principal)
        named = any(self._engine.names_clients(snapshot, authority) for authority in authorities)
        grounds = tuple(
            (
                policies.digest if (policies := snapshot.policies.get(authority)) else None,
                groups.digest if (groups := snapshot.groups.get(authority)) else None,
            )
            for authority in authorities
        )
        return (
            grounds,
            int(now // _DAY_S),
            node,
            snapshot.candidates[node].facts.attributes,
            principal.id if named else (principal.id.trust_domain, principal.tenant),
            context.purpose,
            context.transfer_basis,
            context.tenant,
        )

    def _judge(
        self,
        snapshot: Snapshot,
        node: SpiffeId,
        principal: Principal,
        context: RequestContext,
        collection: str,
        groups: AbstractSet[ReleaseGroup],
        on: datetime.date,
    ) -> Mapping[ReleaseGroup, ReleaseLevel]:
        """One batch for each authority: every group that the caller may see, at every level."""
        seen = [group for group in groups if group.classes and may_see(group, node, principal)]
        asked = [_disclosure(group, step, collection) for group in seen for step in _STEPS]
        permitted = [True] * len(asked)
        for authority in _authorities(node, principal) if asked else ():
            verdicts = self._engine.judge_releases(
                snapshot, authority, principal, node, snapshot.candidates[node].facts, context, asked, on
            )
            permitted = [so_far and each.allowed for so_far, each in zip(permitted, verdicts, strict=True)]
        outcome = dict.fromkeys(groups, ReleaseLevel.NOTHING)
        for i, group in enumerate(seen):
            for step, allowed in zip(_STEPS, permitted[i * len(_STEPS) :], strict=False):
                if not allowed:
                    break
                outcome[group] = step
        return outcome


def may_see(group: ReleaseGroup, node: SpiffeId, principal: Principal) -> bool:
    """The hard rule about tenants: theirs alone, and only at home."""
    at_home = principal.id.trust_domain == node.trust_domain
    return not group.tenant or (at_home and principal.tenant == group.tenant)


def _may_ask(snapshot: Snapshot, node: SpiffeId, principal: Principal, now: float) -> bool:
    """Whether the records suffice to release anything to this caller at all."""
    if node not in snapshot.candidates:
        return False
    authorities = _authorities(node, principal)
    return len(authorities) == 1 or not any(snapshot.stale_reason(each, now) for each in authorities)


def _authorities(node: SpiffeId, principal: Principal) -> tuple[str, ...]:
    """Whose policies must agree: the holder's first."""
    return tuple(dict.fromkeys((node.trust_domain, principal.id.trust_domain)))


def _disclosure(group: ReleaseGroup, level: ReleaseLevel, collection: str) -> Disclosure:
    return Disclosure(with_implied(group.classes), level.word, group.owner, collection)


def _day(now: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(now // _DAY_S * _DAY_S, datetime.UTC).date()
