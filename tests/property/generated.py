"""Small generated worlds: few countries, groups and names, so that they meet often."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mesh.core.jurisdictions import Groups
from mesh.core.retrieval import CollectionSpec
from mesh.core.snapshot import Candidate
from mesh.core.types import (
    Action,
    DataClass,
    HeldCollection,
    Model,
    NodeFacts,
    NodeRecord,
    Principal,
    RequestContext,
    SpiffeId,
    Task,
)
from tests.property import reference_policy as ref

# The same examples every time, and no verdict on how fast a busy machine is.
REPRODUCIBLE = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

COUNTRIES = ["DE", "FR", "US", "CA"]
TRUST_DOMAINS = [f"{c.lower()}.mesh.example" for c in COUNTRIES]
GROUPS = ["EU", "Adequate"]
ASSURANCES = ["C5", "EU-US-DPF"]
CLIENTS = [SpiffeId(td, f"/client/{name}") for td in TRUST_DOMAINS[:3] for name in ("t1/a", "t1/b", "t2")]
NODES = [SpiffeId(td, f"/node/n{i}") for td in TRUST_DOMAINS for i in range(3)]
DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(4)]
PAPERS = CollectionSpec("papers", "all-MiniLM-L6-v2", "sha256:" + "0" * 64, 384)
LIKE_PAPERS = replace(PAPERS, b=0.5)
MODELS = [Model(name, f"sha256:{name}", 2048, frozenset(Task)) for name in ("small", "large")]

countries = st.sampled_from(COUNTRIES)
groups_names = st.sampled_from(GROUPS)
assurances = st.frozensets(st.sampled_from(ASSURANCES))
days = st.sampled_from(DAYS)
clients = st.sampled_from(CLIENTS).map(Principal)
actions = st.sampled_from([Action.INFER, Action.EMBED, Action.SEARCH])


@st.composite
def groups(draw: st.DrawFn) -> Groups:
    """Two groups whose memberships begin, end and depend on assurances."""

    def membership() -> dict[str, object]:
        first, last = sorted([draw(days), draw(days)])
        fields: dict[str, object] = {"country": draw(countries), "from": first.isoformat()}
        if draw(st.booleans()):
            fields["until"] = last.isoformat()
        if draw(st.booleans()):
            fields["requires_assurance"] = draw(st.sampled_from(ASSURANCES))
        return fields

    listed = [
        {
            "name": name,
            "description": "",
            "source": "",
            "members": [membership() for _ in range(draw(st.integers(0, 4)))],
        }
        for name in GROUPS
    ]
    return Groups.from_json(json.dumps({"groups": listed}))


simple_conditions = st.one_of(
    st.lists(st.sampled_from(list(DataClass)).map(str), min_size=1, max_size=3).map(
        lambda c: ref.class_is(*c)
    ),
    st.sampled_from(list(DataClass)).map(lambda c: ref.carries(str(c))),
    st.sampled_from(["care", "research"]).map(ref.purpose_is),
    st.sampled_from(["", "scc"]).map(ref.basis_is),
    st.sampled_from(["t1", "t2"]).map(ref.tenant_is),
    countries.map(ref.client_in),
    groups_names.map(ref.client_in_group),
    countries.map(ref.stands_in),
    groups_names.map(ref.stands_in_group),
    countries.map(ref.controlled_from),
    groups_names.map(ref.operated_from_group),
    countries.map(ref.vouched_for_by),
    countries.map(ref.administered_from),
    groups_names.map(ref.administered_within),
    st.sampled_from(ASSURANCES).map(ref.assured),
    st.sampled_from(NODES).map(ref.node_is),
    st.sampled_from(CLIENTS).map(ref.client_is),
)
conditions = st.recursive(
    simple_conditions,
    lambda inner: st.one_of(
        inner.map(ref.negated),
        st.tuples(inner, inner).map(lambda two: ref.both(*two)),
        st.tuples(inner, inner).map(lambda two: ref.either(*two)),
    ),
    max_leaves=4,
)


@st.composite
def policy_sets(draw: st.DrawFn) -> tuple[ref.Policy, ...]:
    """One to six policies, more permits than forbids, so that something is permitted now and then."""
    count = draw(st.integers(1, 6))
    return tuple(
        ref.Policy(
            id=f"p{i}",
            effect=draw(st.sampled_from(["permit", "permit", "permit", "forbid"])),
            actions=tuple(draw(st.lists(actions.map(str), max_size=1))),
            conditions=tuple(draw(st.lists(conditions, max_size=2))),
        )
        for i in range(count)
    )


# Policies in which one fact decides: what notices when a memory confuses two questions.
pointed_policies = st.tuples(
    st.one_of(simple_conditions, simple_conditions.map(ref.negated)), st.lists(actions.map(str), max_size=1)
).map(lambda drawn: ref.Policy("p", "permit", tuple(drawn[1]), (drawn[0],)))


contexts = st.builds(
    RequestContext.of,
    st.lists(st.sampled_from(list(DataClass)).map(str), min_size=1, max_size=2),
    st.sampled_from(["care", "research"]),
    transfer_basis=st.sampled_from(["", "scc"]),
    allowed_jurisdictions=st.one_of(st.just([]), st.lists(countries, max_size=3)),
    required_assurances=st.one_of(st.just([]), st.lists(st.sampled_from(ASSURANCES), max_size=1)),
)

facts = st.builds(
    NodeFacts,
    location=countries,
    operator_domicile=countries,
    controller=countries,
    admin_access=st.frozensets(countries, min_size=1, max_size=2),
    assurances=assurances,
    cordoned=st.sampled_from([False, False, False, True]),
    dns_name=st.just("n"),
)

records = st.builds(
    lambda models, held: NodeRecord(
        ("h:1",), tuple(models), tuple(HeldCollection(spec.name, spec.digest) for spec in held)
    ),
    st.lists(st.sampled_from(MODELS), unique=True, min_size=1),
    st.sampled_from([(), (PAPERS,), (PAPERS,), (LIKE_PAPERS,)]),
)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Some of the nodes, each with facts and models of its own."""
    ids = draw(st.lists(st.sampled_from(NODES), unique=True, max_size=len(NODES)))
    return [Candidate(node, draw(facts), draw(records)) for node in ids]
