"""Tables of expectations: strict reading, and outcomes that say what went differently."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.expectations import read_table, run_table

CEDAR = """
@id("home") permit (principal, action, resource in Jurisdiction::"DE");
@id("no-us") forbid (principal, action, resource) when { resource.controller == Jurisdiction::"US" };
"""
TABLE: dict[str, Any] = {
    "authority": "de.mesh.example",
    "day": datetime.date(2026, 3, 1),
    "nodes": {
        "berlin": {
            "authority": "de.mesh.example",
            "location": "DE",
            "operator_domicile": "DE",
            "controller": "DE",
            "admin_access": ["DE"],
        }
    },
    "cases": [
        {
            "name": "at home",
            "from": "spiffe://de.mesh.example/client/a",
            "classes": ["public"],
            "purpose": "x",
            "to": "berlin",
            "expect": "permit",
        }
    ],
}


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    table = copy.deepcopy(TABLE)
    target: Any = table
    for step in path[:-1]:
        target = target[step]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return table


def release(field: str, value: object) -> dict[str, Any]:
    """A case about release, one entry of it changed."""
    table = copy.deepcopy(TABLE)
    table["cases"][0] |= {"action": "release", "level": "count", field: value}
    return table


def problem(table: dict[str, Any]) -> str:
    (outcome,) = run_table(read_table(table), CEDAR)
    assert outcome.passed is (not outcome.problem)
    return outcome.problem


def test_a_fulfilled_expectation() -> None:
    assert problem(TABLE) == ""
    assert problem(changed(["cases", 0, "by"], "home")) == ""
    assert problem(changed(["day"], "2026-03-01")) == ""


def test_an_expectation_that_fails_says_how() -> None:
    assert "expected deny, but it is permitted: home" in problem(changed(["cases", 0, "expect"], "deny"))
    us = changed(["nodes", "berlin", "controller"], "US")
    assert "expected permit, but it is denied: no-us" in problem(us)
    assert "not by other: by home" in problem(changed(["cases", 0, "by"], "other"))


def test_a_node_can_be_given_in_place() -> None:
    facts = {**TABLE["nodes"]["berlin"], "location": "FR", "assurances": ["C5"]}
    assert "denied" in problem(changed(["cases", 0, "to"], facts))


def test_release_is_asked_about_by_level_owner_and_collection() -> None:
    cedar = """@id("r") permit (principal, action == Action::"release", resource) when {
        context.level == "count" && context.owner == "ward-1" && context.collection == "papers"
        && context.dataClasses.contains("personal")
    };"""
    table = release("owner", "ward-1")
    table["cases"][0] |= {"collection": "papers", "classes": ["special-category"], "by": "r"}
    found = []
    for field, value in (("level", "count"), ("level", "passage"), ("owner", ""), ("collection", "letters")):
        one = copy.deepcopy(table)
        one["cases"][0][field] = value
        (outcome,) = run_table(read_table(one), cedar)
        found.append(outcome.passed)
    assert found == [True, False, False, False]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([], "the table: expected named entries"),
        (changed(["authority"], "mesh.example"), "authority"),
        (changed(["authority"], 7), "authority"),
        (changed(["day"], "tomorrow"), "day"),
        (changed(["day"], datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)), "day"),
        (changed(["cases"], []), "cases"),
        (changed(["more"], 1), "unknown: more"),
        (changed(["nodes"], []), "nodes"),
        (
            changed(["nodes", "berlin", "location"], False),
            'nodes.berlin.location: expected a text (put it in quotes: "NO")',
        ),
        (changed(["nodes", "berlin", "location"], "de"), "nodes.berlin"),
        (changed(["nodes", "berlin", "admin_access"], "DE"), "nodes.berlin.admin_access"),
        (changed(["nodes", "berlin", "owner"], "x"), "unknown: owner"),
        (changed(["cases", 0, "to"], "paris"), "cases[0].to"),
        (changed(["cases", 0, "from"], "alice"), "cases[0].from"),
        (changed(["cases", 0, "from"], "spiffe://mesh.example/client/a"), "cases[0].from"),
        (changed(["cases", 0, "classes"], ["secret"]), "cases[0]"),
        (changed(["cases", 0, "classes"], "public"), "cases[0].classes"),
        (changed(["cases", 0, "action"], "fly"), "cases[0].action"),
        (changed(["cases", 0, "expect"], True), "cases[0].expect"),
        (changed(["cases", 0, "purpose"], "NO GOOD"), "cases[0]"),
        (changed(["cases", 0, "name"], None), "missing: name"),
        (changed(["cases", 0, "level"], "count"), "cases[0].level: expected for the action release only"),
        (changed(["cases", 0, "owner"], "x"), "cases[0].owner: expected for the action release only"),
        (changed(["cases", 0, "action"], "release"), "cases[0].level"),
        (release("level", "everything"), "cases[0].level: level: expected count"),
        (release("collection", 7), "cases[0].collection"),
    ],
)
def test_read_strictly(table: object, says: str) -> None:
    with pytest.raises(MeshError) as caught:
        read_table(table)
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert says in caught.value.message


def test_policies_that_do_not_read_are_an_error() -> None:
    with pytest.raises(MeshError) as caught:
        run_table(read_table(TABLE), "permit")
    assert caught.value.reason is Reason.POLICY_MALFORMED
