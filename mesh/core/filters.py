"""The static filters of placement: what records alone say about sending this there.

In this order, and a node is refused for the first that it fails: may this placer speak for the flow;
is the node revoked; does anybody serve the model at all; the caller's narrowing; the policies of the
sender's authority; those of the receiver's (I3: both must allow, the same authority is asked once);
is the node cordoned; does it serve the model.

A search names a collection where a model would stand. Who asks on a client's behalf need not hold any of
it, so nothing is filtered by it, until the question is who holds it (`Question.collection`): then only
holders are candidates, and those whose index was made with other settings are refused, since their scores
would not compare.

The outcome holds as long as the records, the question and the day stay the same. Load, readiness and
freshness are of the moment and are judged in mesh/core/placement.py.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mesh.core.decision import MAX_REFUSED, Refused, sentence
from mesh.core.errors import MeshError, Reason
from mesh.core.permits import may_sign
from mesh.core.policy import PolicyEngine, Verdict
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Candidate, Snapshot
from mesh.core.types import TASK_OF, Action, Narrowing, Principal, RequestContext, SpiffeId, jurisdiction_of


class Question(NamedTuple):
    """What is to be placed. `model` is "" for any, and the collection's name where the action is search;
    `placer` is None where a node judges for itself; `collection` is there where its holders are sought."""

    principal: Principal
    action: Action
    context: RequestContext
    model: str
    placer: SpiffeId | None
    collection: CollectionSpec | None = None


class Feasible(NamedTuple):
    """A node that passed the static filters. `name` is its id as text, for breaking ties."""

    node: SpiffeId
    name: str
    location: str
    permitted_by: tuple[str, ...]
    crosses_border: bool


@dataclass(slots=True)
class Eligible:
    """The static outcome for one question. `cursor` is where the next look around begins."""

    feasible: tuple[Feasible, ...]
    refused: tuple[Refused, ...]
    refused_total: int
    considered: int
    policy_digests: Mapping[str, str]
    cursor: int = 0


class _Refusal(NamedTuple):
    """How far a node came, and why no further."""

    stage: int
    refused: Refused


def filter_by_records(
    snapshot: Snapshot,
    engine: PolicyEngine,
    question: Question,
    candidates: Iterable[Candidate],
    on: datetime.date,
) -> Eligible:
    """Applies every static filter to the candidates."""
    everybody = list(candidates)
    refusals: list[_Refusal] = []

    def refuse(stage: int, c: Candidate, reason: Reason, detail: str, policies: tuple[str, ...] = ()) -> None:
        refusals.append(_Refusal(stage, Refused(c.id, reason, sentence(detail), policies, c.facts.location)))

    task = TASK_OF.get(question.action)
    known_model = (
        not question.model
        or question.action is Action.SEARCH
        or any(c.record.serves(question.model, task) for c in everybody)
    )
    placed: list[Candidate] = []
    for candidate in everybody:
        problem = _before_policy(snapshot, question, candidate, known_model)
        if problem is None:
            placed.append(candidate)
        else:
            refuse(0, candidate, *problem)

    sender = question.principal.id.trust_domain
    allowed: list[tuple[Candidate, Verdict]] = []
    for candidate, verdict in _judged(snapshot, engine, question, sender, placed, on):
        if verdict.allowed:
            allowed.append((candidate, verdict))
        else:
            reason = Reason.POLICY_MISSING if verdict.missing else Reason.POLICY_SENDER_DENIES
            refuse(1, candidate, reason, verdict.reason, verdict.policies)

    feasible: list[Feasible] = []
    receiving = _receivers(snapshot, engine, question, [c for c, _ in allowed], on)
    for candidate, sent in allowed:
        received = receiving.get(candidate.id, sent)
        if not received.allowed:
            reason = Reason.POLICY_MISSING if received.missing else Reason.POLICY_RECEIVER_DENIES
            refuse(2, candidate, reason, received.reason, received.policies)
        elif candidate.facts.cordoned:
            refuse(
                3, candidate, Reason.NODE_CORDONED, "its authority has cordoned it: nothing new goes there"
            )
        elif task is not None and candidate.record.serves(question.model, task) is None:
            refuse(4, candidate, Reason.MODEL_NOT_SERVED, "it does not serve the model that is asked for")
        elif question.collection and (differs := _difference(snapshot, question.collection, candidate)):
            refuse(4, candidate, Reason.COLLECTION_MISMATCH, differs)
        else:
            permitted_by = sent.policies
            if received is not sent:
                permitted_by += tuple(p for p in received.policies if p not in sent.policies)
            feasible.append(
                Feasible(
                    candidate.id,
                    str(candidate.id),
                    candidate.facts.location,
                    permitted_by,
                    candidate.id.trust_domain != sender,
                )
            )

    # Who came furthest first: where the list must be cut, the nodes that nearly qualified stay.
    refusals.sort(key=lambda r: -r.stage)
    concerned = {sender, *(c.id.trust_domain for c in everybody)}
    return Eligible(
        feasible=tuple(sorted(feasible, key=lambda f: f.name)),
        refused=tuple(r.refused for r in refusals[:MAX_REFUSED]),
        refused_total=len(refusals),
        considered=len(everybody),
        policy_digests={
            td: snapshot.policies[td].digest for td in sorted(concerned & snapshot.policies.keys())
        },
    )


def _before_policy(
    snapshot: Snapshot, question: Question, candidate: Candidate, known_model: bool
) -> tuple[Reason, str] | None:
    """The first filter before policy that the candidate fails."""
    node = candidate.id
    caller = question.principal.id
    if question.placer is not None and not may_sign(question.placer, caller, node):
        return (
            Reason.PLACER_NOT_ENTITLED,
            f"only {caller.trust_domain} or {node.trust_domain} may place on it: ask a node of one of them",
        )
    if snapshot.is_revoked(node):
        return Reason.IDENTITY_REVOKED, "its authority has revoked it"
    try:
        jurisdiction_of(node.trust_domain)
    except MeshError as error:
        return error.reason, error.message
    if not known_model:
        return Reason.MODEL_NOT_SERVED, "no node of the mesh serves the model that is asked for"
    return _narrowed(question.context.narrowing, candidate)


def _difference(snapshot: Snapshot, spec: CollectionSpec, candidate: Candidate) -> str:
    """Why its index of the collection does not compare with ours; "" if it does. Names settings, never
    their values."""
    held = candidate.record.holds(spec.name)
    if held is None:
        return "it does not hold the collection"
    if held.digest == spec.digest:
        return ""
    theirs = snapshot.collections.get(candidate.id.trust_domain, {}).get(spec.name)
    if theirs is None or theirs.digest != held.digest:
        return "its index was made with other settings than ours, which its authority does not publish"
    return f"its index was made with other settings than ours: {', '.join(spec.difference(theirs))}"


def _narrowed(narrowing: Narrowing, candidate: Candidate) -> tuple[Reason, str] | None:
    allowed = narrowing.allowed_jurisdictions
    facts = candidate.facts
    if allowed and facts.location not in allowed:
        return (
            Reason.NARROWED_JURISDICTION,
            f"it stands in {facts.location}, and the caller allows only {', '.join(sorted(allowed))}",
        )
    lacking = narrowing.required_assurances - facts.assurances
    if lacking:
        return Reason.NARROWED_ASSURANCE, f"the caller requires {', '.join(sorted(lacking))}, which it lacks"
    return None


def _judged(
    snapshot: Snapshot,
    engine: PolicyEngine,
    question: Question,
    authority: str,
    candidates: Sequence[Candidate],
    on: datetime.date,
) -> list[tuple[Candidate, Verdict]]:
    verdicts = engine.judge_many(
        snapshot,
        authority,
        question.principal,
        question.action,
        [(c.id, c.facts) for c in candidates],
        question.context,
        on,
    )
    return list(zip(candidates, verdicts, strict=True))


def _receivers(
    snapshot: Snapshot,
    engine: PolicyEngine,
    question: Question,
    candidates: Sequence[Candidate],
    on: datetime.date,
) -> dict[SpiffeId, Verdict]:
    """What the authorities of foreign nodes say. The sender's own nodes are not in it: asked already."""
    by_authority: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.id.trust_domain != question.principal.id.trust_domain:
            by_authority.setdefault(candidate.id.trust_domain, []).append(candidate)
    return {
        candidate.id: verdict
        for authority, nodes in by_authority.items()
        for candidate, verdict in _judged(snapshot, engine, question, authority, nodes, on)
    }
