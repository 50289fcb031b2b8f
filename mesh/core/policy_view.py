"""One authority's view of nodes and requests: what is alike to its policies has the same key.

A `View` is what some policies look at (mesh/core/policy_sight.py) together with the groups of countries
that their authority goes by, on one day. Its keys leave out whatever the policies cannot tell apart, so
that each distinct question is put to them once; which verdict a key stands for is asked of the engine,
never worked out here.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from mesh.core.jurisdictions import Groups
from mesh.core.policy import Disclosure
from mesh.core.policy_mentions import (
    ADMIN,
    ASSURANCES,
    AUTHORITY,
    BASIS,
    CLIENT,
    COLLECTION,
    CONTROLLER,
    LEVEL,
    LOCATION,
    NODE,
    OPERATOR,
    OWNER,
    PURPOSE,
    STANDS,
    TENANT,
    WITHIN,
    Slot,
)
from mesh.core.policy_sight import Sight
from mesh.core.types import Action, NodeFacts, Principal, RequestContext, SpiffeId, jurisdiction_of
from mesh.core.wildcards import matches

Key = tuple[object, ...]
_NOTHING: frozenset[str] = frozenset()


class Subject(NamedTuple):
    """A node, as policies see it."""

    node: SpiffeId
    facts: NodeFacts


class Asked(NamedTuple):
    """A request, the node aside. `release` is there for the action release only."""

    principal: Principal
    action: Action
    context: RequestContext
    release: Disclosure | None = None


class View:
    """What policies can tell apart, given the groups of their authority and the day."""

    def __init__(self, sight: Sight, groups: Groups, on: datetime.date) -> None:
        self.sight = sight
        self.groups = groups
        self.on = on
        self._texts: dict[tuple[Slot, str], Key] = {}
        self._groups: dict[tuple[str, frozenset[str]], frozenset[str]] = {}

    def node_key(self, subject: Subject) -> Key:
        """Nodes with the same key are alike."""
        node, facts = subject
        return (
            self._name(NODE, node),
            self._country(LOCATION, facts.location),
            self._country(OPERATOR, facts.operator_domicile),
            self._country(CONTROLLER, facts.controller),
            self._country(AUTHORITY, jurisdiction_of(node.trust_domain)),
            self.admin_key(facts.admin_access),
            self._assurances(facts.assurances),
            self._among(STANDS, self._groups_of(facts.location, facts.assurances)),
        )

    def asked_key(self, asked: Asked) -> Key:
        """Requests with the same key for the same action are alike."""
        principal, _, context, release = asked
        key: Key = (
            self._name(CLIENT, principal.id),
            context.judged_classes if release is None else release.classes,
            self._text(TENANT, principal.tenant),
            self._text(PURPOSE, context.purpose),
            self._text(BASIS, context.transfer_basis),
        )
        if release is None:
            return key
        return (
            *key,
            release.level if self.sight.looks_at(LEVEL) else "",
            self._text(OWNER, release.owner),
            self._text(COLLECTION, release.collection),
        )

    def admin_key(self, countries: frozenset[str]) -> Key:
        """The same for where nodes are administered from. Two sets' keys give that of their union."""
        seen: frozenset[object] = frozenset()
        within: frozenset[str] = frozenset()
        if self.sight.looks_at(ADMIN):
            seen = frozenset(self._country(ADMIN, country) for country in countries)
        if self.sight.looks_at(WITHIN):
            within = frozenset.intersection(
                *(self._among(WITHIN, self._groups_of(country, _NOTHING)) for country in countries)
            )
        return seen, within

    def country_class(self, slot: Slot, country: str, tests: Sight) -> Key:
        """Countries of one class can stand for each other, as far as these tests go."""
        named = country if country in tests.of(slot).literals else ""
        groups = self._among(slot, self._groups_of(country, _NOTHING), tests)
        if slot != LOCATION:
            return named, groups
        conditional = frozenset(
            (group.name, m.requires_assurance)
            for group in self.groups.groups
            for m in group.members
            if m.country == country
            and m.requires_assurance
            and m.holds(frozenset({m.requires_assurance}), self.on)
            if group.name in self._among(STANDS, frozenset({group.name}), tests)
        )
        stands = self._among(STANDS, self._groups_of(country, _NOTHING), tests)
        return named, groups, stands, conditional

    def conditions(self, tests: Sight) -> frozenset[str]:
        """The assurances on which it depends whether a node counts as standing in a group that is named."""
        return frozenset(
            m.requires_assurance
            for group in self.groups.groups
            if self._among(STANDS, frozenset({group.name}), tests)
            for m in group.members
            if m.requires_assurance and m.holds(frozenset({m.requires_assurance}), self.on)
        )

    def _name(self, slot: Slot, name: SpiffeId) -> str:
        text = str(name) if self.sight.looks_at(slot) else ""
        return text if text in self.sight.of(slot).literals else ""

    def _country(self, slot: Slot, country: str) -> object:
        if not self.sight.looks_at(slot):
            return None
        tests = self.sight.of(slot)
        if tests.linked:
            return country
        named = country if country in tests.literals else ""
        return named, self._among(slot, self._groups_of(country, _NOTHING))

    def _text(self, slot: Slot, text: str) -> object:
        if not self.sight.looks_at(slot):
            return None
        tests = self.sight.of(slot)
        if tests.linked:
            return text
        key = self._texts.get((slot, text))
        if key is None:
            named = text if text in tests.literals else ""
            key = (
                text in tests.literals,
                named,
                *(matches(p, text) for p in sorted(tests.patterns, key=str)),
            )
            self._texts[slot, text] = key
        return key

    def _assurances(self, assurances: frozenset[str]) -> object:
        if not self.sight.looks_at(ASSURANCES):
            return None
        tests = self.sight.of(ASSURANCES)
        named = assurances & tests.literals
        return named, tests.whole and named != assurances

    def _among(self, slot: Slot, groups: frozenset[str], tests: Sight | None = None) -> frozenset[str]:
        """Those of the groups that are looked at."""
        looked_at = (tests or self.sight).of(slot)
        return groups if looked_at.every_group else groups & looked_at.groups

    def _groups_of(self, country: str, assurances: frozenset[str]) -> frozenset[str]:
        known = self._groups.get((country, assurances))
        if known is None:
            known = self._groups[country, assurances] = self.groups.groups_of(country, assurances, self.on)
        return known
