"""What an authority's policies say: Cedar, asked once for each distinct question.

Rules kept here:

- Default deny (I4). No policies, policies that do not parse or fit the schema, a policy that fails
  while it is evaluated, a group that nobody defined: each denies, and the verdict says which it was.
- A request is judged for every class that its data carries, one question each, and all must be
  permitted: a permission for confidential data never lets special-category data ride along.
- Policies see only what the authority states about a node (NodeFacts), the caller's home and tenant,
  and the request's own words. They never see load, health or payload.
- Release is asked about documents, not about the request: their classes, their owner, the level. Without
  those there is nothing to judge, and that denies.
- Answers are remembered by what they depend on: the policies' and groups' digests, the day, the
  caller's home and tenant, the action, the words of the request and the node's attributes. The
  caller's or node's name is part of that only where a policy set names one (PolicyText.names_*).

Two keys (I3), that is whose policies must agree, is placement's business, not this module's.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cedarpy

from mesh.core.bounded import Bounded
from mesh.core.cedar_text import SCHEMA, PolicyText, read_policies
from mesh.core.decision import MAX_NAMED_POLICIES
from mesh.core.errors import MeshError
from mesh.core.jurisdictions import COUNTRIES, Groups
from mesh.core.snapshot import Snapshot
from mesh.core.types import Action, DataClass, NodeFacts, Principal, RequestContext, SpiffeId, jurisdiction_of

# Each entry is a verdict of a few hundred bytes; 20 attribute sets x 2 authorities x 100 contexts fit.
VERDICTS_REMEMBERED = 16_384
# 4 levels x 2 authorities x the kinds of documents of a node. Apart: they would crowd out the rest.
RELEASES_REMEMBERED = 16_384
POLICY_SETS_REMEMBERED = 64
COUNTRY_SETS_REMEMBERED = 8

_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One authority's answer about one node.

    `policies` are the @ids that determined it, the first 16 of them: the permits if allowed, the forbids
    if forbidden, none if nothing permitted it. `reason` is one sentence for people, "" if allowed.
    `missing` tells that the authority has published no policies.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    reason: str = ""
    missing: bool = False


class Disclosure(NamedTuple):
    """What might be released: documents of these classes (the implied ones included, sorted), of this
    owner and collection, at this level ("count" to "passage")."""

    classes: tuple[DataClass, ...]
    level: str
    owner: str
    collection: str


class _Question(NamedTuple):
    """One question to one authority, the node aside. `release` is there for the action release only."""

    trust_domain: str
    principal: Principal
    action: Action
    context: RequestContext
    classes: tuple[DataClass, ...]
    release: Disclosure | None = None


class _Ground(NamedTuple):
    """What an authority's answers rest on."""

    text: PolicyText
    groups: Groups


def validate_policy(cedar: str) -> tuple[str, ...]:
    """Reads a policy set as every node will read it; returns its policies' @ids in order.

    Raises POLICY_TOO_LARGE, or POLICY_MALFORMED naming the line or the policy.
    """
    return read_policies(cedar).ids


class PolicyEngine:
    """Judges nodes by policies, and remembers. It outlives snapshots: every key is a digest or a fact."""

    def __init__(self) -> None:
        self._verdicts: Bounded[tuple[object, ...], Verdict] = Bounded(VERDICTS_REMEMBERED)
        self._releases: Bounded[tuple[object, ...], Verdict] = Bounded(RELEASES_REMEMBERED)
        self._texts: Bounded[str, PolicyText | str] = Bounded(POLICY_SETS_REMEMBERED)
        self._countries: Bounded[tuple[str, datetime.date], cedarpy.Entities] = Bounded(
            COUNTRY_SETS_REMEMBERED
        )

    def judge(
        self,
        snapshot: Snapshot,
        trust_domain: str,
        principal: Principal,
        action: Action,
        node: SpiffeId,
        facts: NodeFacts,
        context: RequestContext,
        on: datetime.date,
    ) -> Verdict:
        """What the policies of `trust_domain` say about sending this to that node on that day."""
        return self.judge_many(snapshot, trust_domain, principal, action, [(node, facts)], context, on)[0]

    def judge_many(
        self,
        snapshot: Snapshot,
        trust_domain: str,
        principal: Principal,
        action: Action,
        nodes: Sequence[tuple[SpiffeId, NodeFacts]],
        context: RequestContext,
        on: datetime.date,
    ) -> list[Verdict]:
        """The same for many nodes; Cedar is asked once, about the distinct ones not asked before."""
        ground = self._ground(snapshot, trust_domain)
        if isinstance(ground, Verdict):
            return [ground] * len(nodes)
        if action is Action.RELEASE:
            unnamed = "what may be released is judged for each document, by the node that holds it"
            return [Verdict(False, (), unnamed)] * len(nodes)
        question = _Question(trust_domain, principal, action, context, context.judged_classes)
        text = ground.text
        shared = (*_shared(ground, question, on), action, question.classes)
        # What may make one node's answer differ from another's; a thousand nodes have a few dozen.
        kinds = [(n.trust_domain, f.attributes, n if text.names_nodes else None) for n, f in nodes]
        subjects = dict(zip(kinds, nodes, strict=True))
        verdicts: dict[object, Verdict] = {}
        unknown = []
        for kind in subjects:
            remembered = self._verdicts.get((*shared, *kind))
            if remembered is None:
                unknown.append(kind)
            else:
                verdicts[kind] = remembered
        if unknown:
            answers = self._ask(ground, [question], [subjects[kind] for kind in unknown], on)
            for kind, answer in zip(unknown, answers, strict=True):
                verdicts[kind] = self._verdicts.put((*shared, *kind), answer)
        return [verdicts[kind] for kind in kinds]

    def judge_releases(
        self,
        snapshot: Snapshot,
        trust_domain: str,
        principal: Principal,
        node: SpiffeId,
        facts: NodeFacts,
        context: RequestContext,
        disclosures: Sequence[Disclosure],
        on: datetime.date,
    ) -> list[Verdict]:
        """What the policies of `trust_domain` say about each of these leaving that node for this caller.

        Cedar is asked once, about those not asked before.
        """
        ground = self._ground(snapshot, trust_domain)
        if isinstance(ground, Verdict):
            return [ground] * len(disclosures)
        text = ground.text
        asked = [each if text.names_owners else each._replace(owner="") for each in disclosures]
        question = _Question(trust_domain, principal, Action.RELEASE, context, ())
        shared = (
            *_shared(ground, question, on),
            node.trust_domain,
            facts.attributes,
            node if text.names_nodes else None,
        )
        verdicts = {each: self._releases.get((*shared, each)) for each in asked}
        unknown = [each for each, verdict in verdicts.items() if verdict is None]
        if unknown:
            questions = [question._replace(classes=each.classes, release=each) for each in unknown]
            answers = self._ask(ground, questions, [(node, facts)], on)
            for each, answer in zip(unknown, answers, strict=True):
                verdicts[each] = self._releases.put((*shared, each), answer)
        return [verdict for each in asked if (verdict := verdicts[each]) is not None]

    def judge_each(
        self,
        snapshot: Snapshot,
        trust_domain: str,
        principal: Principal,
        requests: Sequence[tuple[Action, RequestContext, Disclosure | None]],
        nodes: Sequence[tuple[SpiffeId, NodeFacts]],
        on: datetime.date,
    ) -> list[list[Verdict]]:
        """What the policies of `trust_domain` say about each request of this caller (one list each) and
        each node, in one batch. Nothing is remembered: for those who ask about everything once.

        For the action release the disclosure says what is judged, for the others there is none.
        """
        ground = self._ground(snapshot, trust_domain)
        if isinstance(ground, Verdict):
            return [[ground] * len(nodes) for _ in requests]
        questions = [
            _Question(
                trust_domain,
                principal,
                action,
                context,
                context.judged_classes if release is None else release.classes,
                release,
            )
            for action, context, release in requests
        ]
        verdicts = self._ask(ground, questions, nodes, on)
        return [verdicts[i :: len(questions)] for i in range(len(questions))]

    def names_clients(self, snapshot: Snapshot, trust_domain: str) -> bool:
        """Whether this authority's policies name single clients, so that answers depend on the name."""
        text = self._text(snapshot, trust_domain)
        return isinstance(text, PolicyText) and text.names_clients

    def names_nodes(self, snapshot: Snapshot, trust_domain: str) -> bool:
        """The same for single nodes."""
        text = self._text(snapshot, trust_domain)
        return isinstance(text, PolicyText) and text.names_nodes

    def _ground(self, snapshot: Snapshot, trust_domain: str) -> _Ground | Verdict:
        text = self._text(snapshot, trust_domain)
        if isinstance(text, Verdict):
            return text
        groups = snapshot.groups.get(trust_domain) or Groups.shipped()
        undefined = sorted(text.groups - groups.names())
        if undefined:
            why = f"the policies of {trust_domain} name the group {undefined[0]}, which it does not define"
            return Verdict(False, (), why)
        return _Ground(text, groups)

    def _text(self, snapshot: Snapshot, trust_domain: str) -> PolicyText | Verdict:
        document = snapshot.policies.get(trust_domain)
        if document is None:
            return Verdict(False, (), f"{trust_domain} has published no policies", missing=True)
        text = self._texts.get(document.digest)
        if text is None:
            try:
                text = self._texts.put(document.digest, read_policies(document.cedar))
            except MeshError as error:
                text = self._texts.put(document.digest, error.message)
        if isinstance(text, str):
            return Verdict(False, (), f"the policies of {trust_domain} cannot be read: {text}")
        return text

    def _ask(
        self,
        ground: _Ground,
        questions: Sequence[_Question],
        nodes: Sequence[tuple[SpiffeId, NodeFacts]],
        on: datetime.date,
    ) -> list[Verdict]:
        """One Cedar batch: every node x every question (of one caller) x every class judged in it."""
        text, groups = ground
        entities = [_client_entity(questions[0].principal)]
        entities += [_node_entity(node, facts, groups, on) for node, facts in nodes]
        handle = self._country_entities(groups, on).with_added_json_str(json.dumps(entities), SCHEMA)
        contexts = [[_context(question, c) for c in question.classes] for question in questions]
        requests = [
            {
                "principal": {"type": "Client", "id": str(question.principal.id)},
                "action": {"type": "Action", "id": str(question.action)},
                "resource": {"type": "Node", "id": str(node)},
                "context": context,
            }
            for node, _ in nodes
            for question, of_classes in zip(questions, contexts, strict=True)
            for context in of_classes
        ]
        results = iter(cedarpy.is_authorized_batch(requests, text.policy_set, handle, SCHEMA))
        return [
            _verdict(text, question, [next(results) for _ in question.classes])
            for _ in nodes
            for question in questions
        ]

    def _country_entities(self, groups: Groups, on: datetime.date) -> cedarpy.Entities:
        key = (groups.digest, on)
        handle = self._countries.get(key)
        if handle is None:
            entities = [_entity("Group", name) for name in sorted(groups.names())]
            entities += [
                _entity(
                    "Jurisdiction", country, parents=_refs("Group", groups.groups_of(country, _NOTHING, on))
                )
                for country in sorted(COUNTRIES)
            ]
            handle = self._countries.put(key, cedarpy.Entities.from_json_str(json.dumps(entities), SCHEMA))
        return handle


def _shared(ground: _Ground, question: _Question, on: datetime.date) -> tuple[object, ...]:
    """What an answer depends on besides the node, the action and what is asked about."""
    principal, context = question.principal, question.context
    return (
        question.trust_domain,  # two authorities may say the same; a refusal names who says it
        ground.text.digest,
        ground.groups.digest,
        on,
        principal.id if ground.text.names_clients else None,
        principal.jurisdiction,
        principal.tenant,
        context.purpose,
        context.transfer_basis,
        context.tenant,
    )


def _verdict(text: PolicyText, question: _Question, results: Iterable[cedarpy.AuthzResult]) -> Verdict:
    """All classes must be permitted; the first that is not explains the refusal."""
    if not question.classes:  # only documents can lack one
        return Verdict(False, (), "what has no data class is not judged: that refuses")
    permits: set[str] = set()
    for data_class, result in zip(question.classes, results, strict=True):
        diagnostics = result.diagnostics
        determining = tuple(sorted(text.id_of.get(name, name) for name in diagnostics.reasons))
        where = f"{question.trust_domain} {{}} {question.action} with {data_class} data there"
        if question.release is not None:
            where = (
                f"{question.trust_domain} {{}} release of {data_class} documents at {question.release.level}"
            )
        if diagnostics.errors:
            # Cedar skips a policy that fails. A forbid that is skipped would open what it closes.
            return Verdict(
                False, (), f"a policy of {question.trust_domain} failed while it was evaluated: that refuses"
            )
        if not result.allowed:
            if determining:
                named = ", ".join(determining[:MAX_NAMED_POLICIES])
                more = f" and {len(determining) - MAX_NAMED_POLICIES} more"
                named += more if len(determining) > MAX_NAMED_POLICIES else ""
                return Verdict(
                    False, determining[:MAX_NAMED_POLICIES], f"{named} of {where.format('forbids')}"
                )
            return Verdict(False, (), f"no policy of {where.format('permits')}")
        permits.update(determining)
    return Verdict(True, tuple(sorted(permits)[:MAX_NAMED_POLICIES]))


def _context(question: _Question, data_class: DataClass) -> str:
    words: dict[str, object] = {
        "dataClass": str(data_class),
        "dataClasses": [str(c) for c in question.classes],
        "purpose": question.context.purpose,
        "transferBasis": question.context.transfer_basis,
        "tenant": question.context.tenant or question.principal.tenant,
    }
    if question.release is not None:
        _, words["level"], words["owner"], words["collection"] = question.release
    return json.dumps(words)


def _entity(
    kind: str, name: str, attrs: dict[str, Any] | None = None, parents: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    return {"uid": {"type": kind, "id": name}, "attrs": attrs or {}, "parents": parents or []}


def _refs(kind: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [{"type": kind, "id": name} for name in sorted(names)]


def _values(kind: str, names: Iterable[str]) -> list[dict[str, dict[str, str]]]:
    return [{"__entity": reference} for reference in _refs(kind, names)]


def _client_entity(principal: Principal) -> dict[str, Any]:
    home = principal.jurisdiction
    return _entity(
        "Client",
        str(principal.id),
        {"home": _values("Jurisdiction", [home])[0], "tenant": principal.tenant},
        _refs("Jurisdiction", [home]),
    )


def _node_entity(node: SpiffeId, facts: NodeFacts, groups: Groups, on: datetime.date) -> dict[str, Any]:
    # An assurance is stated for the node, not for those who administer it from elsewhere: groups that
    # hold only under a condition count for where the node stands, never for admin access.
    within = frozenset.intersection(*(groups.groups_of(c, _NOTHING, on) for c in facts.admin_access))
    return _entity(
        "Node",
        str(node),
        {
            "location": _values("Jurisdiction", [facts.location])[0],
            "operatorDomicile": _values("Jurisdiction", [facts.operator_domicile])[0],
            "controller": _values("Jurisdiction", [facts.controller])[0],
            "authority": _values("Jurisdiction", [jurisdiction_of(node.trust_domain)])[0],
            "adminAccess": _values("Jurisdiction", facts.admin_access),
            "adminAccessWithin": _values("Group", within),
            "assurances": sorted(facts.assurances),
        },
        _refs("Jurisdiction", [facts.location])
        + _refs("Group", groups.groups_of(facts.location, facts.assurances, on)),
    )
