"""An authority's own table of what its policies should say, and whether they do.

A table names some nodes by their facts and some cases: who sends what kind of data, to which node, and
whether the policies should permit it (and by which policy). Running it asks this one authority's
policies only; whether a flow happens also depends on the other side's (I3).

Tables come as parsed documents (dicts and lists, as from YAML): reading files is the CLI's business.
They are read strictly; CONFIG_INVALID names the entry that is wrong. The form:

    authority: de.mesh.example
    day: 2026-03-01           # the day for which groups are looked up
    nodes:
      berlin: {authority: de.mesh.example, location: DE, operator_domicile: DE, controller: DE,
               admin_access: [DE], assurances: [C5]}
    cases:
      - name: a clinic at home
        from: spiffe://de.mesh.example/client/clinic-a
        action: infer
        classes: [special-category]
        purpose: care/triage
        to: berlin            # or the facts themselves
        expect: permit        # or deny
        by: de-everything-at-home    # optional: a policy that must be among those that decided
      - name: snippets of what is internal for a French firm
        from: spiffe://fr.mesh.example/client/firm-c
        action: release
        classes: [internal]   # of the documents
        level: snippet        # for the action release only, as are owner and collection
        owner: ward-1         # optional
        collection: papers    # optional
        purpose: drafting
        to: berlin            # the node that holds the documents
        expect: permit

A case about release asks for its level alone. What is released in fact is the highest level up to which
every one is permitted (mesh/core/release.py).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from mesh.core.policy import Disclosure, PolicyEngine, Verdict, validate_policy
from mesh.core.retrieval import parse_level
from mesh.core.snapshot import PolicyDocument, Snapshot
from mesh.core.types import Action, NodeFacts, Principal, RequestContext, SpiffeId, jurisdiction_of, node_id

T = TypeVar("T")

MAX_CASES = 10_000

_FACTS = {"authority", "location", "operator_domicile", "controller", "admin_access"}
_CASE = {"name", "from", "classes", "purpose", "to", "expect"}
_RELEASE = {"level", "owner", "collection"}


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation. `by` is "" if any policy will do; `release` is there for the action release only,
    and then the context's data classes are those of the documents."""

    name: str
    principal: Principal
    action: Action
    context: RequestContext
    node: SpiffeId
    facts: NodeFacts
    permit: bool
    by: str
    release: Disclosure | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table that was read."""

    authority: str
    on: datetime.date
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and what the policies said. `problem` is one sentence, "" if they said what was expected."""

    case: Case
    verdict: Verdict
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the policies say what was expected."""
        return not self.problem


def read_table(document: object) -> Table:
    """Reads a parsed document; raises CONFIG_INVALID naming the entry."""
    top = _mapping(document, "the table", {"authority", "day", "cases"}, {"nodes"})
    authority = _string(top["authority"], "authority")
    _guard("authority", lambda: jurisdiction_of(authority))
    known = _nodes(top.get("nodes", {}))
    cases = top["cases"]
    if not isinstance(cases, list) or not 1 <= len(cases) <= MAX_CASES:
        _invalid(f"cases: expected 1 to {MAX_CASES} of them")
    return Table(
        authority, _day(top["day"]), tuple(_case(c, f"cases[{i}]", known) for i, c in enumerate(cases))
    )


def read_nodes(document: object) -> dict[str, tuple[SpiffeId, NodeFacts]]:
    """The nodes of a table, by name; a document with nothing but `nodes` will do. Raises CONFIG_INVALID."""
    top = _mapping(document, "the nodes", {"nodes"}, {"authority", "day", "cases"})
    return _nodes(top["nodes"])


def run_table(table: Table, cedar: str, groups: Groups | None = None) -> tuple[Outcome, ...]:
    """Asks the policies every case, in order. Raises POLICY_MALFORMED or POLICY_TOO_LARGE."""
    validate_policy(cedar)
    snapshot = Snapshot(
        version=0,
        trust_domain=table.authority,
        policies={table.authority: PolicyDocument.of(cedar, 1)},
        groups={table.authority: groups} if groups is not None else {},
    )
    engine = PolicyEngine()
    return tuple(_outcome(case, _ask(engine, snapshot, table, case)) for case in table.cases)


def _ask(engine: PolicyEngine, snapshot: Snapshot, table: Table, case: Case) -> Verdict:
    if case.release is not None:
        (verdict,) = engine.judge_releases(
            snapshot,
            table.authority,
            case.principal,
            case.node,
            case.facts,
            case.context,
            [case.release],
            table.on,
        )
        return verdict
    return engine.judge(
        snapshot, table.authority, case.principal, case.action, case.node, case.facts, case.context, table.on
    )


def _outcome(case: Case, verdict: Verdict) -> Outcome:
    problem = ""
    if verdict.allowed != case.permit:
        expected, found = ("permit", "denied") if case.permit else ("deny", "permitted")
        problem = f"expected {expected}, but it is {found}: {verdict.reason or ', '.join(verdict.policies)}"
    elif case.by and case.by not in verdict.policies:
        problem = f"as expected, but not by {case.by}: by {', '.join(verdict.policies) or 'no policy at all'}"
    return Outcome(case, verdict, problem)


def _case(entry: object, where: str, known: Mapping[str, tuple[SpiffeId, NodeFacts]]) -> Case:
    fields = _mapping(entry, where, _CASE, {"action", "by", "transfer_basis", "tenant", *_RELEASE})
    target = fields["to"]
    if isinstance(target, dict):
        node, facts = _node(target, f"{where}.to", "unnamed")
    elif target in known:
        node, facts = known[target]
    else:
        _invalid(f"{where}.to: expected a name from nodes, or facts")
    if fields["expect"] not in ("permit", "deny"):
        _invalid(f"{where}.expect: expected permit or deny")
    classes = _strings(fields["classes"], f"{where}.classes")
    action = fields.get("action", "infer")
    if action not in set(Action):
        _invalid(f"{where}.action: expected one of {', '.join(Action)}")
    context = _guard(
        where,
        lambda: RequestContext.of(
            classes,
            _string(fields["purpose"], f"{where}.purpose"),
            transfer_basis=_string(fields.get("transfer_basis", ""), f"{where}.transfer_basis"),
            tenant=_string(fields.get("tenant", ""), f"{where}.tenant"),
        ),
    )
    sender = _guard(f"{where}.from", lambda: SpiffeId.parse(_string(fields["from"], f"{where}.from")))
    _guard(f"{where}.from", lambda: jurisdiction_of(sender.trust_domain))
    return Case(
        name=_string(fields["name"], f"{where}.name"),
        principal=Principal(sender),
        action=Action(action),
        context=context,
        node=node,
        facts=facts,
        permit=fields["expect"] == "permit",
        by=_string(fields.get("by", ""), f"{where}.by"),
        release=_release(fields, where, action, context),
    )


def _release(
    fields: Mapping[str, object], where: str, action: str, context: RequestContext
) -> Disclosure | None:
    if action != Action.RELEASE:
        if found := sorted(_RELEASE & fields.keys()):
            _invalid(f"{where}.{found[0]}: expected for the action release only")
        return None
    level = _guard(f"{where}.level", lambda: parse_level(_string(fields.get("level"), f"{where}.level")))
    return Disclosure(
        context.judged_classes,
        level.word,
        _string(fields.get("owner", ""), f"{where}.owner"),
        _string(fields.get("collection", ""), f"{where}.collection"),
    )


def _nodes(nodes: object) -> dict[str, tuple[SpiffeId, NodeFacts]]:
    if not isinstance(nodes, dict):
        _invalid("nodes: expected names with facts")
    return {name: _node(facts, f"nodes.{name}", _string(name, "nodes")) for name, facts in nodes.items()}


def _node(entry: object, where: str, name: str) -> tuple[SpiffeId, NodeFacts]:
    fields = _mapping(entry, where, _FACTS, {"assurances"})
    authority = _string(fields["authority"], f"{where}.authority")
    _guard(f"{where}.authority", lambda: jurisdiction_of(authority))
    facts = _guard(
        where,
        lambda: NodeFacts(
            location=_string(fields["location"], f"{where}.location"),
            operator_domicile=_string(fields["operator_domicile"], f"{where}.operator_domicile"),
            controller=_string(fields["controller"], f"{where}.controller"),
            admin_access=frozenset(_strings(fields["admin_access"], f"{where}.admin_access")),
            assurances=frozenset(_strings(fields.get("assurances", []), f"{where}.assurances")),
        ),
    )
    return _guard(where, lambda: node_id(authority, name)), facts


def _invalid(expected: str) -> NoReturn:
    raise MeshError(Reason.CONFIG_INVALID, expected)


def _guard(where: str, read: Callable[[], T]) -> T:
    """What `read` gives, its errors named after the entry."""
    try:
        return read()
    except MeshError as error:
        if error.reason is Reason.CONFIG_INVALID:
            raise
        _invalid(f"{where}: {error.message}")


def _mapping(value: object, where: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        _invalid(f"{where}: expected named entries")
    missing = sorted(required - value.keys())
    unknown = sorted(str(key) for key in value.keys() - required - optional)
    if missing or unknown:
        _invalid(
            f"{where}: missing: {', '.join(missing) or 'nothing'}; unknown: {', '.join(unknown) or 'nothing'}"
        )
    return value


def _string(value: object, where: str) -> str:
    # YAML 1.1 reads a bare NO (Norway) as false.
    if not isinstance(value, str):
        _invalid(f'{where}: expected a text (put it in quotes: "NO")')
    return value


def _strings(value: object, where: str) -> list[str]:
    if not isinstance(value, list):
        _invalid(f"{where}: expected a list")
    return [_string(item, where) for item in value]


def _day(value: object) -> datetime.date:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        return datetime.date.fromisoformat(_string(value, "day"))
    except ValueError:
        _invalid("day: expected a day such as 2026-03-01")
