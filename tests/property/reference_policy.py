"""What the mesh's policies mean, on one page: a deliberately dumb evaluator.

A policy here is a small tree. `cedar` writes it as Cedar text; `matches` says by plain Python whether it
applies. `permits` is the whole semantics: of one authority, over every class that the data carries.
Nothing here is fast, remembered or shared with mesh/core/policy.py.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.core.jurisdictions import Groups
from mesh.core.types import NodeFacts, RequestContext, SpiffeId


@dataclass(frozen=True)
class Request:
    """One question: everything that a policy may look at."""

    client: SpiffeId
    action: str
    node: SpiffeId
    facts: NodeFacts
    context: RequestContext
    groups: Groups
    on: datetime.date
    # For the action release: what `context.data_classes` are the classes of.
    level: str = ""
    owner: str = ""
    collection: str = ""


@dataclass(frozen=True)
class Condition:
    """Cedar text and its meaning for a request and one data class."""

    cedar: str
    holds: Callable[[Request, str], bool]


@dataclass(frozen=True)
class Policy:
    """`permit` or `forbid` for these actions (all, if none) when all conditions hold."""

    id: str
    effect: str
    actions: tuple[str, ...]
    conditions: tuple[Condition, ...]

    def cedar(self) -> str:
        listed = ", ".join(f'Action::"{a}"' for a in self.actions)
        scope = f"action in [{listed}]" if self.actions else "action"
        whens = "".join(f" when {{ {c.cedar} }}" for c in self.conditions)
        return f'@id("{self.id}") {self.effect} (principal, {scope}, resource){whens};'

    def matches(self, request: Request, data_class: str) -> bool:
        return (not self.actions or request.action in self.actions) and all(
            c.holds(request, data_class) for c in self.conditions
        )


def classes_of(context: RequestContext) -> list[str]:
    """Special-category data is personal data (GDPR Art. 9(1))."""
    named = {str(c) for c in context.data_classes}
    return sorted(named | ({"personal"} if "special-category" in named else set()))


def permits(policies: Sequence[Policy], request: Request) -> tuple[bool, set[str]]:
    """Whether these policies permit the request, and the ids that decide it."""
    permitting: set[str] = set()
    for data_class in classes_of(request.context):
        matching = [p for p in policies if p.matches(request, data_class)]
        forbids = {p.id for p in matching if p.effect == "forbid"}
        allows = {p.id for p in matching if p.effect == "permit"}
        if forbids or not allows:
            return False, forbids
        permitting |= allows
    return True, permitting


def home(identity: SpiffeId) -> str:
    return identity.trust_domain.split(".")[0].upper()


def belongs(r: Request, country: str, group: str, assurances: frozenset[str]) -> bool:
    """Whether a country is in a group on the day, for somebody with these assurances."""
    for g in r.groups.groups:
        for m in g.members:
            begun, ended = m.since <= r.on, m.until is not None and m.until < r.on
            condition = m.requires_assurance == "" or m.requires_assurance in assurances
            if g.name == group and m.country == country and begun and not ended and condition:
                return True
    return False


# --- conditions

NO_ASSURANCES: frozenset[str] = frozenset()


def class_is(*classes: str) -> Condition:
    listed = ", ".join(f'"{c}"' for c in classes)
    return Condition(f"[{listed}].contains(context.dataClass)", lambda r, c: c in classes)


def carries(data_class: str) -> Condition:
    return Condition(
        f'context.dataClasses.contains("{data_class}")', lambda r, c: data_class in classes_of(r.context)
    )


def purpose_is(purpose: str) -> Condition:
    return Condition(f'context.purpose == "{purpose}"', lambda r, c: r.context.purpose == purpose)


def basis_is(basis: str) -> Condition:
    return Condition(f'context.transferBasis == "{basis}"', lambda r, c: r.context.transfer_basis == basis)


def tenant_is(tenant: str) -> Condition:
    return Condition(
        f'principal.tenant == "{tenant}" && context.tenant == "{tenant}"',
        lambda r, c: r.client.tenant == tenant and (r.context.tenant or r.client.tenant) == tenant,
    )


def client_in(country: str) -> Condition:
    return Condition(f'principal in Jurisdiction::"{country}"', lambda r, c: home(r.client) == country)


def client_in_group(group: str) -> Condition:
    return Condition(
        f'principal in Group::"{group}"', lambda r, c: belongs(r, home(r.client), group, NO_ASSURANCES)
    )


def stands_in(country: str) -> Condition:
    return Condition(f'resource in Jurisdiction::"{country}"', lambda r, c: r.facts.location == country)


def stands_in_group(group: str) -> Condition:
    return Condition(
        f'resource in Group::"{group}"', lambda r, c: belongs(r, r.facts.location, group, r.facts.assurances)
    )


def controlled_from(country: str) -> Condition:
    return Condition(
        f'resource.controller == Jurisdiction::"{country}"', lambda r, c: r.facts.controller == country
    )


def operated_from_group(group: str) -> Condition:
    return Condition(
        f'resource.operatorDomicile in Group::"{group}"',
        lambda r, c: belongs(r, r.facts.operator_domicile, group, NO_ASSURANCES),
    )


def vouched_for_by(country: str) -> Condition:
    return Condition(f'resource.authority == Jurisdiction::"{country}"', lambda r, c: home(r.node) == country)


def administered_from(country: str) -> Condition:
    return Condition(
        f'resource.adminAccess.contains(Jurisdiction::"{country}")',
        lambda r, c: country in r.facts.admin_access,
    )


def administered_within(group: str) -> Condition:
    return Condition(
        f'resource.adminAccessWithin.contains(Group::"{group}")',
        lambda r, c: all(belongs(r, x, group, NO_ASSURANCES) for x in r.facts.admin_access),
    )


def assured(assurance: str) -> Condition:
    return Condition(
        f'resource.assurances.contains("{assurance}")', lambda r, c: assurance in r.facts.assurances
    )


def node_is(node: SpiffeId) -> Condition:
    return Condition(f'resource == Node::"{node}"', lambda r, c: r.node == node)


def client_is(client: SpiffeId) -> Condition:
    return Condition(f'principal == Client::"{client}"', lambda r, c: r.client == client)


def level_is(*levels: str) -> Condition:
    """For policies about release only, as are the next two."""
    listed = ", ".join(f'"{level}"' for level in levels)
    return Condition(f"[{listed}].contains(context.level)", lambda r, c: r.level in levels)


def owner_is(owner: str) -> Condition:
    return Condition(f'context.owner == "{owner}"', lambda r, c: r.owner == owner)


def collection_is(collection: str) -> Condition:
    return Condition(f'context.collection == "{collection}"', lambda r, c: r.collection == collection)


def negated(one: Condition) -> Condition:
    return Condition(f"!({one.cedar})", lambda r, c: not one.holds(r, c))


def both(one: Condition, other: Condition) -> Condition:
    return Condition(f"({one.cedar}) && ({other.cedar})", lambda r, c: one.holds(r, c) and other.holds(r, c))


def either(one: Condition, other: Condition) -> Condition:
    return Condition(f"({one.cedar}) || ({other.cedar})", lambda r, c: one.holds(r, c) or other.holds(r, c))
