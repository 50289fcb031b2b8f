"""Conditions of the kinds that a proof has to treat with care, each as Cedar and as plain Python: patterns,
attributes that meet each other, sets as a whole, choices. For tests of proofs and differences."""

from __future__ import annotations

import re

from tests.property.reference_policy import NO_ASSURANCES, Condition, belongs, classes_of, home


def purpose_like(pattern: str) -> Condition:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return Condition(
        f'context.purpose like "{pattern}"',
        lambda r, c: re.fullmatch(expression, r.context.purpose, re.S) is not None,
    )


def tenant(r: object) -> str:
    return r.context.tenant or r.client.tenant  # type: ignore[attr-defined, no-any-return]


def acts_for_like(pattern: str) -> Condition:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return Condition(
        f'context.tenant like "{pattern}"', lambda r, c: re.fullmatch(expression, tenant(r), re.S) is not None
    )


ACTS_FOR_ITSELF = Condition("context.tenant == principal.tenant", lambda r, c: tenant(r) == r.client.tenant)
ACTS_FOR_NOBODY = Condition('context.tenant == ""', lambda r, c: tenant(r) == "")
PURPOSE_IS_TENANT = Condition(
    "[context.purpose].contains(context.tenant)", lambda r, c: r.context.purpose == tenant(r)
)
PURPOSE_IS_CLASS = Condition("context.purpose == context.dataClass", lambda r, c: r.context.purpose == c)
VOUCHED_FOR_AT_HOME = Condition(
    "resource.authority == resource.location", lambda r, c: home(r.node) == r.facts.location
)
CONTROLLED_AT_HOME = Condition(
    "resource.controller == principal.home", lambda r, c: r.facts.controller == home(r.client)
)
STANDS_AT_HOME = Condition("resource in principal.home", lambda r, c: r.facts.location == home(r.client))
OPERATED_WHERE_CONTROLLED = Condition(
    "resource.operatorDomicile != resource.controller",
    lambda r, c: r.facts.operator_domicile != r.facts.controller,
)
ADMINISTERED_WHERE_IT_STANDS = Condition(
    "resource.adminAccess.contains(resource.location)", lambda r, c: r.facts.location in r.facts.admin_access
)
ADMINISTERED_FROM_THERE_ONLY = Condition(
    "resource.adminAccess == [resource.location]", lambda r, c: r.facts.admin_access == {r.facts.location}
)
ADMINISTERED_FROM_FEW = Condition(
    '[Jurisdiction::"DE", Jurisdiction::"FR"].containsAll(resource.adminAccess)',
    lambda r, c: r.facts.admin_access <= {"DE", "FR"},
)
WITHIN_SOMETHING = Condition(
    "!resource.adminAccessWithin.isEmpty()",
    lambda r, c: any(
        all(belongs(r, x, g.name, NO_ASSURANCES) for x in r.facts.admin_access) for g in r.groups.groups
    ),
)
HOME_IS_WITHIN = Condition(
    "principal in resource.adminAccessWithin",
    lambda r, c: any(
        belongs(r, home(r.client), g.name, NO_ASSURANCES)
        and all(belongs(r, x, g.name, NO_ASSURANCES) for x in r.facts.admin_access)
        for g in r.groups.groups
    ),
)
NO_ASSURANCES_AT_ALL = Condition("resource.assurances.isEmpty()", lambda r, c: not r.facts.assurances)
ONE_ASSURANCE_ONLY = Condition('resource.assurances == ["C5"]', lambda r, c: r.facts.assurances == {"C5"})
ANY_ASSURANCE = Condition(
    'resource.assurances.containsAny(["C5", "nobody has this one"])', lambda r, c: "C5" in r.facts.assurances
)
EVERY_ASSURANCE = Condition(
    'resource.assurances.containsAll(["C5", "EU-US-DPF"])',
    lambda r, c: r.facts.assurances >= {"C5", "EU-US-DPF"},
)
ONE_CLASS_ONLY = Condition(
    "context.dataClasses == [context.dataClass]", lambda r, c: classes_of(r.context) == [c]
)
CHOICE = Condition(
    'if context.purpose == "care" then resource.location == Jurisdiction::"DE"'
    ' else context.transferBasis == "scc"',
    lambda r, c: (
        r.facts.location == "DE" if r.context.purpose == "care" else r.context.transfer_basis == "scc"
    ),
)
CHOSEN_TEXT = Condition(
    '(if resource.controller == Jurisdiction::"US" then context.purpose else "care") == "care"',
    lambda r, c: r.facts.controller != "US" or r.context.purpose == "care",
)
ALWAYS_THERE = Condition("resource has location", lambda r, c: True)
PLACES = Condition(
    'resource is Node in Jurisdiction::"FR" || [Group::"EU"].contains(Group::"Adequate")',
    lambda r, c: r.facts.location == "FR",
)

OF_NODES = (
    VOUCHED_FOR_AT_HOME, CONTROLLED_AT_HOME, STANDS_AT_HOME, OPERATED_WHERE_CONTROLLED,
    ADMINISTERED_WHERE_IT_STANDS, ADMINISTERED_FROM_THERE_ONLY, ADMINISTERED_FROM_FEW, WITHIN_SOMETHING,
    HOME_IS_WITHIN, NO_ASSURANCES_AT_ALL, ONE_ASSURANCE_ONLY, ANY_ASSURANCE, EVERY_ASSURANCE, ALWAYS_THERE,
    PLACES,
)  # fmt: skip
OF_REQUESTS = (
    purpose_like("care*"), purpose_like("*r*e*"), purpose_like("*"), acts_for_like("t*"), acts_for_like("o*"),
    ACTS_FOR_ITSELF, ACTS_FOR_NOBODY, PURPOSE_IS_TENANT, CHOICE, CHOSEN_TEXT,
)  # fmt: skip
OF_CLASSES = (PURPOSE_IS_CLASS, ONE_CLASS_ONLY)
