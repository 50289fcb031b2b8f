"""Reading an authority's Cedar text: bounds first, then syntax, then the schema, then our own rules.

A policy set comes from another party, signed but not trusted to be sane, and every node reads it. So:

- Bounds are checked on the text itself, before the parser sees it: Cedar's parser recurses, and a few
  hundred nested brackets end the process (seen with cedarpy 4.12 at 800 levels, and at 6,400 nested
  `if`). No parser error can be caught that late. What chains without brackets is bounded as well, so
  that the parsed form can be read everywhere that the text can.
- Strict validation against mesh/core/data/mesh.cedarschema; every policy carries a unique @id, by which
  decisions name it; no templates.
- What the schema cannot say: countries are assigned ISO codes, and strings compared with a data class
  or a release level are such. A slip of the pen in a forbid would open what it should close (I4).

Errors are POLICY_MALFORMED or POLICY_TOO_LARGE and name the line or the policy. Nothing is evaluated here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, NoReturn

import cedarpy

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import COUNTRIES
from mesh.core.retrieval import ReleaseLevel
from mesh.core.types import DataClass

MAX_POLICY_BYTES = 128 * 1024
MAX_NESTING = 32  # open brackets
MAX_PARTS = 200  # brackets, dots, "if", and operators that can be chained, in one policy

SCHEMA = cedarpy.Schema.from_str(
    resources.files("mesh.core").joinpath("data/mesh.cedarschema").read_text("utf-8")
)

# What strings may be compared with, by the word of the context: its name for people, and the strings.
_DATA_CLASSES = ("data class", frozenset(str(c) for c in DataClass))
_WORDS: Mapping[str, tuple[str, frozenset[str]]] = {
    "dataClass": _DATA_CLASSES,
    "dataClasses": _DATA_CLASSES,
    "level": ("release level", frozenset(level.word for level in list(ReleaseLevel)[1:])),
}

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
# Cedar's own lexical rules for strings and comments (a carriage return ends a comment, too).
_TOKENS = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*")|(?P<comment>//[^\r\n]*)|(?P<space>\s+)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<chain>\.|&&|\|\||[-+*])|(?P<end>;)|(?P<other>.)"""
)


@dataclass(frozen=True)
class PolicyText:
    """A policy set that was read.

    `id_of` maps Cedar's positional names to @ids. `names_clients` and `names_nodes` tell whether some
    policy names a single client or node, `names_owners` whether some policy looks at a document's owner;
    `groups` are the groups that the policies name.
    """

    digest: str
    ids: tuple[str, ...]
    policy_set: cedarpy.PolicySet
    id_of: Mapping[str, str]
    names_clients: bool
    names_nodes: bool
    names_owners: bool
    groups: frozenset[str]


def read_policies(cedar: str) -> PolicyText:
    """Reads a policy set; raises POLICY_TOO_LARGE, or POLICY_MALFORMED naming the line or policy."""
    encoded = cedar.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_POLICY_BYTES:
        raise MeshError(Reason.POLICY_TOO_LARGE, f"a policy set has at most {MAX_POLICY_BYTES // 1024} KiB")
    starts = _check_shape(cedar)
    try:
        policy_set = cedarpy.PolicySet.from_str(cedar)
        as_json = cedarpy.policies_to_json_str(cedar)
        document = json.loads(as_json)
    except ValueError as error:
        _malformed(f"{_where_it_fails(cedar, starts)}: {_short(error)}")
    if document["templates"]:
        _malformed("templates (?principal, ?resource) are not accepted: write out each policy")
    # Cedar numbers policies in the order of the text: policy0, policy1, ...
    policies = {f"policy{i}": document["staticPolicies"][f"policy{i}"] for i in range(len(policy_set))}
    id_of = _read_ids(policies, cedar, starts)
    result = cedarpy.validate_policies(cedar, SCHEMA)
    if not result.validation_passed:
        first = result.errors[0]
        _malformed(f"policy {id_of.get(first.policy_id, '?')}: {_short(first.error)}")
    entities: set[tuple[str, str]] = set()
    for name, policy in policies.items():
        entities |= _check_words(policy, id_of[name])
    kinds = {kind for kind, _ in entities}
    return PolicyText(
        digest="sha256:" + hashlib.sha256(encoded).hexdigest(),
        ids=tuple(id_of.values()),
        policy_set=policy_set,
        id_of=id_of,
        names_clients="Client" in kinds,
        names_nodes="Node" in kinds,
        # Whatever a policy does with it, it must name the attribute.
        names_owners='"owner"' in as_json,
        groups=frozenset(name for kind, name in entities if kind == "Group"),
    )


def _malformed(expected: str) -> NoReturn:
    raise MeshError(Reason.POLICY_MALFORMED, expected)


def _short(error: object) -> str:
    """Cedar's own words without the positional policy names, which nobody wrote."""
    return re.sub(r"for policy `policy\d+`, ", "", str(error))[:300]


def _line(cedar: str, position: int) -> int:
    return cedar.count("\n", 0, position) + 1


def _check_shape(cedar: str) -> list[int]:
    """Refuses what could exhaust the parser's stack; returns where each statement starts."""
    depth = parts = 0
    starts: list[int] = []
    between = True
    for token in _TOKENS.finditer(cedar):
        kind = token.lastgroup
        if kind in ("space", "comment"):
            continue
        if between:
            starts.append(token.start())
            parts = 0
        between = kind == "end"
        depth = max(0, depth + (kind == "open") - (kind == "close"))
        parts += kind in ("open", "chain") or token.group() == "if"
        if depth > MAX_NESTING:
            _malformed(f"line {_line(cedar, token.start())}: at most {MAX_NESTING} nested brackets")
        if parts > MAX_PARTS:
            _malformed(
                f"line {_line(cedar, token.start())}: at most {MAX_PARTS} brackets, dots and operators in one"
                " policy: split it into several"
            )
    if not starts:
        _malformed("expected at least one policy; to refuse everything, write a forbid")
    return starts


def _where_it_fails(cedar: str, starts: list[int]) -> str:
    """Cedar's errors carry no position: parse the statements one by one."""
    for start, end in zip(starts, [*starts[1:], len(cedar)], strict=True):
        try:
            cedarpy.PolicySet.from_str(cedar[start:end])
        except ValueError:
            return f"the policy that starts in line {_line(cedar, start)} does not parse"
    return "the policies do not parse"


def _read_ids(policies: Mapping[str, Any], cedar: str, starts: list[int]) -> dict[str, str]:
    ids: dict[str, str] = {}
    for start, (name, policy) in zip(starts, policies.items(), strict=True):
        where = f"the policy that starts in line {_line(cedar, start)}"
        annotation = policy.get("annotations", {}).get("id")
        if not annotation or not _ID.fullmatch(annotation):
            _malformed(f'{where}: expected @id("...") of 1 to 128 letters, digits, ".", "_", "/" and "-"')
        if annotation in ids.values():
            _malformed(f"{where}: its @id is that of an earlier policy")
        ids[name] = annotation
    return ids


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the policy's JSON, depth first."""
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            yield current
            stack.extend(current.values())
        elif isinstance(current, list):
            stack.extend(current)


def _check_words(policy: Any, policy_id: str) -> set[tuple[str, str]]:
    """The entities that the policy names, as (type, id); refuses unknown countries and data classes."""
    entities: set[tuple[str, str]] = set()
    for node in _objects(policy):
        if isinstance(node.get("type"), str) and isinstance(node.get("id"), str):
            entities.add((node["type"], node["id"]))
        for attribute, word in _compared(node):
            what, known = _WORDS[attribute]
            if word not in known:
                _malformed(f"policy {policy_id}: as a {what}, expected one of {', '.join(sorted(known))}")
    for kind, name in entities:
        if kind == "Jurisdiction" and name not in COUNTRIES:
            _malformed(
                f"policy {policy_id}: expected assigned ISO 3166-1 codes in upper case as jurisdictions"
            )
    return entities


def _compared(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """String literals that some operator sets against a word of the context that has a fixed vocabulary."""
    for arguments in node.values():
        if not isinstance(arguments, dict) or not {"left", "right"} <= arguments.keys():
            continue
        for one, other in ((arguments["left"], arguments["right"]), (arguments["right"], arguments["left"])):
            attribute = _accessed(one)
            if attribute in _WORDS:
                yield from ((attribute, literal) for literal in _literals(other))


def _accessed(expression: Any) -> str:
    """The attribute of the context that this expression is, or ""."""
    accessed = expression.get(".") if isinstance(expression, dict) else None
    if isinstance(accessed, dict) and accessed.get("left") == {"Var": "context"}:
        return str(accessed.get("attr"))
    return ""


def _literals(expression: Any) -> Iterator[str]:
    if isinstance(expression, dict):
        if isinstance(expression.get("Value"), str):
            yield expression["Value"]
        for element in expression.get("Set", ()):
            yield from _literals(element)
