"""Every case that policies can tell apart, one example of each.

The space of nodes and requests is infinite, but policies sort it into finitely many kinds: see
mesh/core/policy_sight.py for why exchanging values that they cannot tell apart changes no answer. Here an
example of each kind is made:

- a text: each literal that is named, and for each combination of patterns a text that matches just
  these (mesh/core/wildcards.py);
- a country: each one that is named, and one for each combination of groups that the rest belong to;
- where attributes are compared with each other, as many different values of each kind as there are
  attributes that could differ, so that "equal" and "not equal" both occur;
- sets: every combination of members that has a key of its own; data classes all together where policies
  look at the set, and otherwise each class with those that it implies. Those suffice then: a request
  with more classes is permitted only if it is permitted for each of them alone.

Whatever values are made up are ones that a real certificate, request or record could carry, so that what
is found is real. A space that is too large is refused (POLICY_UNDECIDED), never cut.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import COUNTRIES
from mesh.core.policy import Disclosure
from mesh.core.policy_mentions import (
    ADMIN,
    ASSURANCES,
    AUTHORITY,
    BASIS,
    CLASSES,
    CLIENT,
    COLLECTION,
    CONTROLLER,
    COUNTRY_SLOTS,
    LOCATION,
    NODE,
    OPERATOR,
    OWNER,
    PURPOSE,
    TENANT,
    WITHIN,
    Slot,
)
from mesh.core.policy_sight import Sight
from mesh.core.policy_view import Asked, Key, Subject, View
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import (
    MAX_ASSURANCES,
    Action,
    DataClass,
    NodeFacts,
    Principal,
    RequestContext,
    SpiffeId,
    jurisdiction_of,
    node_id,
    with_implied,
)
from mesh.core.wildcards import Form, kinds

MAX_NODES = 60_000  # a few seconds to make, between two authorities
MAX_ASKED = 50_000
MAX_SETS = 4_096  # of countries that administer, and of assurances
_MAX_ADMIN_ACCESS = 32

_LOWER = frozenset(string.ascii_lowercase + string.digits)
_LABEL = Form(_LOWER | {"-"}, _LOWER, 63, empty=False)
_TOKEN = Form(_LOWER | frozenset("-./"), _LOWER, 128, empty=False)
_FORMS: Mapping[Slot, Form] = {
    TENANT: Form(_LABEL.inner, _LABEL.edge, 63, empty=True),  # an administrator may ask, and acts for nobody
    PURPOSE: _TOKEN,
    BASIS: Form(_TOKEN.inner, _TOKEN.edge, 128, empty=True, usual=("", "other")),
    OWNER: Form(None, None, 128, empty=True, usual=("", "other")),
    COLLECTION: _LABEL,
}


def authority_of(country: str, mesh: str) -> str:
    """The trust domain of that country's authority, in the mesh of another one's trust domain."""
    _, dot, rest = mesh.partition(".")
    return country.lower() + dot + rest


# --- texts


def texts(tests: Sight, slot: Slot) -> list[str]:
    """An example of every kind of text that this attribute can hold."""
    its = tests.of(slot)
    forms = _FORMS[slot]
    if not its.linked:
        found = kinds(_sorted(its.patterns), forms, its.literals, 1)
        made = [text for examples in found.values() for text in examples]
        return _unique([*made, *sorted(t for t in its.literals if forms.accepts(t))])
    # Attributes that meet must be able to hold the same text, and different ones.
    others = list(dict.fromkeys(_FORMS[s] for s in sorted(its.linked) if s in _FORMS and _FORMS[s] != forms))
    made = []
    for size in range(len(others) + 1):
        for chosen in itertools.combinations(others, size):
            form = forms
            for other in chosen:
                form = form.meet(other)
            for examples in kinds(_sorted(its.patterns), form, its.literals, len(its.linked)).values():
                made += examples
    return _unique([*made, *sorted(t for t in its.literals if forms.accepts(t))])


def _sorted(patterns: Iterable[tuple[str | None, ...]]) -> list[tuple[str | None, ...]]:
    return sorted(patterns, key=str)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


# --- requests


def class_sets(tests: Sight, classes: Iterable[DataClass]) -> list[frozenset[DataClass]]:
    """The sets of classes to ask about, implied ones included; each has one of `classes` in it."""
    wanted = frozenset(classes)
    if not tests.looks_at(CLASSES):
        return list(dict.fromkeys(frozenset(with_implied(frozenset({c}))) for c in sorted(wanted)))
    every = [
        frozenset(with_implied(frozenset(chosen)))
        for size in range(1, len(DataClass) + 1)
        for chosen in itertools.combinations(sorted(DataClass), size)
    ]
    return list(dict.fromkeys(each for each in every if each & wanted))


def callers(tests: Sight, trust_domain: str) -> list[Principal]:
    """A caller of every kind that this authority can certify: each one that is named, and any other."""
    named = tests.of(CLIENT).literals
    found = [c for name in sorted(named) if (c := _spiffe(name)) and c.trust_domain == trust_domain]
    last_words = {name.rpartition("/")[2] for name in named}
    fresh = next(name for i in itertools.count(1) if (name := f"any-{i}") not in last_words)
    made = [
        SpiffeId(trust_domain, f"/client/{tenant}/{fresh}" if tenant else f"/admin/{fresh}")
        for tenant in texts(tests, TENANT)
    ]
    return [Principal(caller) for caller in dict.fromkeys([*made, *found])]


def requests(
    tests: Sight,
    trust_domain: str,
    action: Action,
    classes: Iterable[DataClass],
    purposes: Sequence[str],
    levels: Sequence[ReleaseLevel],
) -> list[Asked]:
    """Every kind of request of this authority's clients. `purposes`: those to ask about, every kind of them
    if none; `levels`: for release, in ascending order."""
    disclosures: list[tuple[ReleaseLevel, str, str]] = []
    if action is Action.RELEASE:
        disclosures = list(itertools.product(levels, texts(tests, OWNER), texts(tests, COLLECTION)))
    dimensions = (
        callers(tests, trust_domain),
        class_sets(tests, classes),
        list(purposes) or texts(tests, PURPOSE),
        texts(tests, BASIS),
    )
    sizes = [len(dimension) for dimension in dimensions]
    _limit(MAX_ASKED, "kinds of requests", *sizes, max(1, len(disclosures)))
    found = []
    for caller, held, purpose, basis in itertools.product(*dimensions):
        # A tenant that is stated can only be the caller's own, which is seen in any case.
        context = RequestContext(held, purpose, basis)
        if action is not Action.RELEASE:
            found.append(Asked(caller, action, context))
        for level, owner, collection in disclosures:
            release = Disclosure(context.judged_classes, level.word, owner, collection)
            found.append(Asked(caller, action, context, release))
    return found


# --- nodes


def nodes(
    tests: Sight, views: Sequence[View], trust_domains: Sequence[str], others: str, known: frozenset[str]
) -> list[Subject]:
    """Every kind of node that could exist under these authorities.

    A country has one authority in a mesh. With `others`, the trust domain of somebody in it: under any
    authority but those of the countries in `known`.
    """
    authorities = [*trust_domains]
    if others:
        if tests.looks_at(AUTHORITY):
            apart = tests.also_naming({AUTHORITY: known})
            rest = [c for c in _countries(apart, views, AUTHORITY) if c not in known]
        else:
            rest = sorted(COUNTRIES - known)[:1]
        authorities += [authority_of(country, others) for country in rest]
        named = [identity for name in sorted(tests.of(NODE).literals) if (identity := _spiffe(name))]
        authorities += [n.trust_domain for n in named if _is_other(n.trust_domain, known)]
    authorities = _unique(authorities)
    locations = _countries(tests, views, LOCATION)
    operators = _countries(tests, views, OPERATOR)
    controllers = _countries(tests, views, CONTROLLER)
    administered = _admin_sets(tests, views)
    assured = _assurance_sets(tests, views)
    names = [name for td in authorities for name in _node_names(tests, td)]
    dimensions = (names, locations, operators, controllers, administered, assured)
    _limit(MAX_NODES, "kinds of nodes", *(len(dimension) for dimension in dimensions))
    found: dict[Key, Subject] = {}
    for name, location, operator, controller, admin, assurances in itertools.product(*dimensions):
        subject = Subject(name, NodeFacts(location, operator, controller, admin, assurances))
        # Whose it is counts beyond what policies see: it says whom to ask.
        found.setdefault((name.trust_domain, *(view.node_key(subject) for view in views)), subject)
    return _named_apart(found.values(), tests.of(NODE).literals)


def _named_apart(subjects: Iterable[Subject], named: frozenset[str]) -> list[Subject]:
    """The same, each node that is not named by a policy with a name of its own."""
    numbers = itertools.count(1)
    apart = []
    for node, facts in subjects:
        name = node
        while (
            str(node) not in named
            and str(name := node_id(node.trust_domain, f"any-{next(numbers)}")) in named
        ):
            pass
        apart.append(Subject(name, facts))
    return apart


def _is_other(trust_domain: str, known: frozenset[str]) -> bool:
    try:
        return jurisdiction_of(trust_domain) not in known
    except MeshError:
        return False


def _node_names(tests: Sight, trust_domain: str) -> list[SpiffeId]:
    named = tests.of(NODE).literals
    found = [n for name in sorted(named) if (n := _spiffe(name)) and n.trust_domain == trust_domain]
    fresh = next(
        each for i in itertools.count(1) if str(each := node_id(trust_domain, f"any-{i}")) not in named
    )
    return [fresh, *found]


def _countries(tests: Sight, views: Sequence[View], *slots: Slot) -> list[str]:
    """An example of every kind of country for these attributes, which are about the same countries;
    several where one is compared with other attributes."""
    linked = frozenset[Slot]().union(*(tests.of(slot).linked for slot in slots)) & COUNTRY_SLOTS
    # A set can hold one more that equals none of the others; how many more makes no difference.
    count = len(linked) + 1 if linked else 1
    kin = sorted(linked.union(slots))
    classes: dict[Key, list[str]] = {}
    for country in sorted(COUNTRIES):
        key = tuple(view.country_class(each, country, tests) for view in views for each in kin)
        examples = classes.setdefault(key, [])
        if len(examples) < count:
            examples.append(country)
    return [country for examples in classes.values() for country in examples]


def _admin_sets(tests: Sight, views: Sequence[View]) -> list[frozenset[str]]:
    """Every set of countries with a key of its own, the smallest example of each: grown one by one."""
    if not tests.looks_at(ADMIN) and not tests.looks_at(WITHIN):
        return [frozenset({sorted(COUNTRIES)[0]})]
    single = _countries(tests, views, ADMIN, WITHIN)

    def key(countries: frozenset[str]) -> Key:
        return tuple(view.admin_key(countries) for view in views)

    found = {key(frozenset({c})): frozenset({c}) for c in reversed(single)}
    grown = list(found.values())
    while grown:
        larger = []
        for countries, country in itertools.product(grown, single):
            together = countries | {country}
            if len(together) <= _MAX_ADMIN_ACCESS and key(together) not in found:
                found[key(together)] = together
                larger.append(together)
                _limit(MAX_SETS, "combinations of countries that administer a node", len(found))
        grown = larger
    return list(found.values())


def _assurance_sets(tests: Sight, views: Sequence[View]) -> list[frozenset[str]]:
    members = sorted(
        {a for a in tests.of(ASSURANCES).literals if _is_assurance(a)}.union(
            *(view.conditions(tests) for view in views)
        )
    )
    if tests.of(ASSURANCES).whole:
        members.append(next(a for i in itertools.count(1) if (a := f"other-{i}") not in members))
    if len(members) > MAX_ASSURANCES:
        _too_many(MAX_SETS, "combinations of assurances")
    _limit(MAX_SETS, "combinations of assurances", 2 ** len(members))
    return [
        frozenset(chosen)
        for size in range(len(members) + 1)
        for chosen in itertools.combinations(members, size)
    ]


def _is_assurance(text: str) -> bool:
    try:
        NodeFacts("DE", "DE", "DE", frozenset({"DE"}), frozenset({text}))
    except MeshError:
        return False
    return True


def _spiffe(text: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(text)
    except MeshError:
        return None


def _limit(limit: int, what: str, *counts: int) -> None:
    total = 1
    for count in counts:
        total *= count
    if total > limit:
        _too_many(limit, what)


def _too_many(limit: int, what: str) -> NoReturn:
    raise MeshError(
        Reason.POLICY_UNDECIDED,
        f"undecided, because the policies tell more than {limit} {what} apart: ask about less at a time",
    )
