"""Placement: where may this request go, and where is it best off? Filter, score, reserve.

Kubernetes' words, and one rule that is ours: policy only ever filters, it is never a score.

The static filters (mesh/core/filters.py) depend on records alone. Their outcome is remembered for each
question until a record changes, so that Cedar and a thousand nodes are not asked again for every
request. The dynamic filters depend on the moment: exclusions, the freshness of what crosses a border
(I4), readiness.

Scoring looks at a rotating window of feasible nodes, not at all of them: the power of a few choices
gives nearly the balance of looking at everybody (M. Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001; kube-scheduler's percentageOfNodesToScore rests on the same), at a
cost that does not grow with the mesh. With no more feasible nodes than the window holds, the choice is
exact.

A search goes to a node of the caller's own authority, which asks the holders of the collection: there is
nothing to choose then, everybody permitted is asked (`fan_out`). It needs indexes, not engines, so an
engine that is not ready refuses nobody.

Every decision explains itself: who is ranked and permitted by which policies, who was refused and why.
If nothing is permitted, or on request, that is every node; otherwise those that were looked at.

Pure: snapshot, statuses, time and ids are arguments. What remembers (Placer, Reservations) belongs to
one process and is never shared.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from mesh.core.bounded import Bounded
from mesh.core.decision import (
    MAX_FAN_OUT,
    MAX_RANKED,
    MAX_REFUSED,
    Decision,
    Ranked,
    Refused,
    sentence,
)
from mesh.core.errors import MeshError, Reason
from mesh.core.filters import Eligible, Feasible, Question, filter_by_records
from mesh.core.permits import PERMIT_TTL_S
from mesh.core.policy import PolicyEngine
from mesh.core.reservations import Reservations
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Candidate, Snapshot
from mesh.core.targets import Offer, Permitted, permitted_targets
from mesh.core.types import Action, NodeStatus, Principal, RequestContext, SpiffeId

__all__ = [
    "Decision",
    "Offer",
    "Permitted",
    "Placer",
    "Ranked",
    "Refused",
    "Reservations",
    "permitted_targets",
]

# Feasible nodes to score. Two would nearly do; sixteen also fill the ranked list with good alternatives.
WINDOW = 16
QUESTIONS_REMEMBERED = 256
_DAY_S = 86_400
# What the placer knows of itself where nobody has reported it.
_OURSELVES = NodeStatus(ready=True, in_flight=0, queued=0, capacity=1)

_Outcome = tuple[list[tuple[float, str, Feasible]], list[Refused]]


class Placer:
    """Decides, and remembers what it can: one per process."""

    def __init__(
        self, engine: PolicyEngine | None = None, window: int = WINDOW, permit_ttl_s: float = PERMIT_TTL_S
    ) -> None:
        self._engine = engine or PolicyEngine()
        self._window = window
        self._permit_ttl_s = permit_ttl_s
        self._snapshot: Snapshot | None = None
        self._names_clients = False
        self._eligible: Bounded[tuple[object, ...], Eligible] = Bounded(QUESTIONS_REMEMBERED)

    def place(
        self,
        snapshot: Snapshot,
        statuses: Mapping[SpiffeId, NodeStatus],
        *,
        principal: Principal,
        action: Action,
        context: RequestContext,
        model: str = "",
        excluded: AbstractSet[SpiffeId] = frozenset(),
        placer: SpiffeId,
        now: float,
        decision_id: str,
        reservations: Reservations | None = None,
        explain: bool = False,
    ) -> Decision:
        """Where this request may go, best first. A refusal is an answer, not an error.

        A search (then `model` is the collection) may go to nodes of the caller's own trust domain only.
        `statuses` holds what nodes last said, the placer's own entry included. The chosen node is
        reserved in `reservations`, unless everybody is to be explained: explaining promises nothing.
        Raises TENANT_MISMATCH, IDENTITY_REVOKED or COUNTRY_UNKNOWN when the caller itself will not do.
        """
        _check_caller(snapshot, principal, context)
        question = Question(principal, action, context, model, placer)
        eligible = self._by_records(snapshot, question, now)
        limit = len(eligible.feasible) if explain else self._window
        scored, refused = _look(snapshot, statuses, question, eligible, excluded, reservations, now, limit)
        scored.sort(key=_score_then_name)
        ranked = tuple(
            Ranked(f.node, score, f.location, f.permitted_by)
            for score, _, f in scored[: MAX_REFUSED if explain else MAX_RANKED]
        )
        if ranked and reservations is not None and not explain:
            reservations.reserve(ranked[0].node, decision_id, now)
        return self._decision(snapshot, eligible, ranked, refused, placer, now, decision_id)

    def fan_out(
        self,
        snapshot: Snapshot,
        statuses: Mapping[SpiffeId, NodeStatus],
        *,
        principal: Principal,
        context: RequestContext,
        spec: CollectionSpec,
        placer: SpiffeId,
        now: float,
        decision_id: str,
    ) -> Decision:
        """Which holders of the collection may be asked this caller's question: all that are permitted.

        `placer` is the node that asks on the caller's behalf; it may be one of them, and needs no status.
        Only nodes that hold the collection by name are considered; another index than `spec` says is
        COLLECTION_MISMATCH. At most MAX_FAN_OUT are ranked, the least busy of each authority: one that
        registers any number of nodes must not crowd out the others. Raises like `place`.
        """
        _check_caller(snapshot, principal, context)
        question = Question(principal, Action.SEARCH, context, spec.name, placer, spec)
        eligible = self._by_records(snapshot, question, now)
        known = {placer: _OURSELVES, **statuses}
        scored, refused = _look(
            snapshot, known, question, eligible, frozenset(), None, now, len(eligible.feasible)
        )
        scored.sort(key=_score_then_name)
        ranked = tuple(Ranked(f.node, score, f.location, f.permitted_by) for score, _, f in scored)
        asked = _in_turns(ranked, MAX_FAN_OUT)
        refused += [
            Refused(each.node, Reason.NODE_EXCLUDED, f"more than {MAX_FAN_OUT} nodes", (), each.location)
            for each in ranked
            if each.node not in asked
        ]
        ranked = tuple(each for each in ranked if each.node in asked)
        return self._decision(snapshot, eligible, ranked, refused, placer, now, decision_id)

    def judge_here(
        self,
        snapshot: Snapshot,
        node: SpiffeId,
        *,
        principal: Principal,
        action: Action,
        context: RequestContext,
        model: str = "",
        now: float,
        decision_id: str,
    ) -> Decision:
        """What the receiving node decides by itself, from its own records, about itself (I2).

        The same filters as in `place`, for one candidate. Readiness and load are the node's own to know
        and are not judged. Raises like `place`.
        """
        _check_caller(snapshot, principal, context)
        question = Question(principal, action, context, model, None)
        if node not in snapshot.candidates:
            unknown = Refused(node, Reason.NODE_UNKNOWN, "its authority has stated no facts about this node")
            nobody = Eligible((), (unknown,), 1, 1, {})
            return self._decision(snapshot, nobody, (), [], node, now, decision_id)
        eligible = self._by_records(snapshot, question, now, only=node)
        ranked: tuple[Ranked, ...] = ()
        refused: list[Refused] = []
        for feasible in eligible.feasible:
            stale = _stale(snapshot, question, feasible, now, {})
            if stale:
                refused.append(Refused(node, Reason.RECORDS_STALE, sentence(stale), (), feasible.location))
            else:
                ranked = (Ranked(node, 0.0, feasible.location, feasible.permitted_by),)
        return self._decision(snapshot, eligible, ranked, refused, node, now, decision_id)

    def _by_records(
        self, snapshot: Snapshot, question: Question, now: float, only: SpiffeId | None = None
    ) -> Eligible:
        """The static outcome, remembered until records, question or day change."""
        self._adopt(snapshot)
        caller = question.principal.id
        day = int(now // _DAY_S)
        key = (
            caller if self._names_clients else (caller.trust_domain, caller.tenant),
            question.action,
            question.context.digest,
            question.model,
            question.placer,
            question.collection and question.collection.digest,
            only,
            day,
        )
        eligible = self._eligible.get(key)
        if eligible is None:
            candidates = _considered(snapshot, question) if only is None else [snapshot.candidates[only]]
            on = datetime.datetime.fromtimestamp(day * _DAY_S, datetime.UTC).date()
            eligible = filter_by_records(snapshot, self._engine, question, candidates, on)
            self._eligible.put(key, eligible)
        return eligible

    def _adopt(self, snapshot: Snapshot) -> None:
        """Forgets static outcomes if a record on which they rest has changed.

        Authorities sign their heads every few seconds, and each time there is a new snapshot with the
        same policies, groups, nodes and revocations: that alone must not cost the memory.
        """
        before = self._snapshot
        if before is snapshot:
            return
        if before is None or not (
            before.policies == snapshot.policies
            and before.groups == snapshot.groups
            and before.revocations == snapshot.revocations
            and before.candidates == snapshot.candidates
            and before.collections == snapshot.collections
        ):
            self._eligible.clear()
            engine = self._engine
            self._names_clients = any(engine.names_clients(snapshot, td) for td in snapshot.policies)
        self._snapshot = snapshot

    def _decision(
        self,
        snapshot: Snapshot,
        eligible: Eligible,
        ranked: tuple[Ranked, ...],
        refused: list[Refused],
        decided_by: SpiffeId,
        now: float,
        decision_id: str,
    ) -> Decision:
        """Refusals of the moment come first: they name the nodes that would otherwise qualify."""
        return Decision(
            id=decision_id,
            permitted=bool(ranked),
            ranked=ranked,
            refused=(*refused, *eligible.refused)[:MAX_REFUSED] if refused else eligible.refused,
            refused_total=len(refused) + eligible.refused_total,
            considered=eligible.considered,
            policy_digests=eligible.policy_digests,
            snapshot_version=snapshot.version,
            decided_at=now,
            expires_at=now + self._permit_ttl_s,
            decided_by=decided_by,
        )


def _considered(snapshot: Snapshot, question: Question) -> list[Candidate]:
    """Everybody; for a search the nodes that could ask for the caller, or those that could be asked."""
    everybody = list(snapshot.candidates.values())
    if question.collection is not None:
        return [c for c in everybody if c.record.holds(question.collection.name)]
    if question.action is Action.SEARCH:
        return [c for c in everybody if c.id.trust_domain == question.principal.id.trust_domain]
    return everybody


def _check_caller(snapshot: Snapshot, principal: Principal, context: RequestContext) -> None:
    if context.tenant and context.tenant != principal.tenant:
        raise MeshError(
            Reason.TENANT_MISMATCH, "expected the tenant of the caller's own certificate, or none"
        )
    if snapshot.is_revoked(principal.id):
        raise MeshError(Reason.IDENTITY_REVOKED, "the caller's authority has revoked it")


def _score_then_name(entry: tuple[float, str, Feasible]) -> tuple[float, str]:
    return entry[0], entry[1]


def _look(
    snapshot: Snapshot,
    statuses: Mapping[SpiffeId, NodeStatus],
    question: Question,
    eligible: Eligible,
    excluded: AbstractSet[SpiffeId],
    reservations: Reservations | None,
    now: float,
    limit: int,
) -> _Outcome:
    """The dynamic filters and the score, from where the last look ended, until `limit` nodes pass."""
    scored: list[tuple[float, str, Feasible]] = []
    refused: list[Refused] = []
    stale: dict[str, str] = {}
    needs_no_engine = question.action is Action.SEARCH
    feasible = eligible.feasible
    position = eligible.cursor
    for _ in range(len(feasible)):
        candidate = feasible[position]
        position = position + 1 if position + 1 < len(feasible) else 0
        node = candidate.node
        status = statuses.get(node)
        if excluded and node in excluded:
            problem = (Reason.NODE_EXCLUDED, "the caller has excluded it")
        elif candidate.crosses_border and (why := _stale(snapshot, question, candidate, now, stale)):
            problem = (Reason.RECORDS_STALE, why)
        elif status is None or status.draining or not (status.ready or needs_no_engine):
            problem = (Reason.NODE_NOT_READY, _not_ready(status))
        elif (
            candidate.crosses_border
            and now - status.reported_at > snapshot.heads[node.trust_domain].max_age_s
        ):
            age = now - status.reported_at
            problem = (Reason.RECORDS_STALE, f"it last reported its status {age:.1f} s ago")
        else:
            # Empty reservations are false: then there is nothing to look up.
            reserved = reservations.count(node, now, status.reported_at) if reservations else 0
            load = (status.in_flight + status.queued + reserved) / (status.capacity or 1)
            scored.append((load, candidate.name, candidate))
            if len(scored) == limit:
                break
            continue
        reason, detail = problem
        refused.append(Refused(node, reason, sentence(detail), (), candidate.location))
    eligible.cursor = position
    return scored, refused


def _stale(
    snapshot: Snapshot, question: Question, candidate: Feasible, now: float, known: dict[str, str]
) -> str:
    """Why records are too old for this flow to cross the border, or "". Each authority is looked at once."""
    if not candidate.crosses_border:
        return ""
    for trust_domain in (question.principal.id.trust_domain, candidate.node.trust_domain):
        if trust_domain not in known:
            why = snapshot.stale_reason(trust_domain, now)
            known[trust_domain] = f"{trust_domain}: {why}" if why else ""
        if known[trust_domain]:
            return known[trust_domain]
    return ""


def _not_ready(status: NodeStatus | None) -> str:
    if status is None:
        return "it has reported no status"
    return "it is draining: it finishes what it has" if status.draining else "its engine is not ready"


def _in_turns(ranked: Sequence[Ranked], most: int) -> frozenset[SpiffeId]:
    """The first of every authority, then the second of every one, and so on."""
    taken: Counter[str] = Counter()
    turns = []
    for at, each in enumerate(ranked):
        turns.append((taken[each.node.trust_domain], at, each.node))
        taken[each.node.trust_domain] += 1
    return frozenset(node for _, _, node in sorted(turns)[:most])
