"""The example policies say what their tables expect, and withdrawing a country is one policy."""

from pathlib import Path

import pytest
import yaml

from mesh.core.expectations import read_table, run_table
from mesh.core.policy import PolicyEngine, validate_policy
from mesh.core.release import ReleasePolicy
from mesh.core.retrieval import ReleaseGroup
from mesh.core.types import DataClass, RequestContext
from tests.support.snapshots import DE, FR, NOW, US, client, example_policies, node, snapshot_of

FOLDER = Path(__file__).parents[3] / "examples" / "policies"


@pytest.mark.parametrize("country", ["de", "fr", "us"])
def test_tables_hold(country: str) -> None:
    table = read_table(yaml.safe_load((FOLDER / f"{country}.expect.yaml").read_text()))
    outcomes = run_table(table, (FOLDER / f"{country}.cedar").read_text())
    assert [f"{o.case.name}: {o.problem}" for o in outcomes if not o.passed] == []


@pytest.mark.parametrize("country", ["de", "fr", "us"])
def test_every_policy_matters_to_some_expectation(country: str) -> None:
    cedar = (FOLDER / f"{country}.cedar").read_text()
    table = read_table(yaml.safe_load((FOLDER / f"{country}.expect.yaml").read_text()))
    decided = {policy for o in run_table(table, cedar) for policy in o.verdict.policies}
    assert set(validate_policy(cedar)) - decided == set()


def test_france_is_withdrawn_by_the_one_policy_at_the_end_of_the_german_file() -> None:
    lines = (FOLDER / "de.cedar").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "de-withdraws-france" in line)
    withdrawn = "\n".join([*lines[:start], *(line.removeprefix("// ") for line in lines[start:])])
    table = read_table(yaml.safe_load((FOLDER / "de.expect.yaml").read_text()))
    before = run_table(table, "\n".join(lines))
    after = run_table(table, withdrawn)
    changed = [
        a.case.name for b, a in zip(before, after, strict=True) if b.verdict.allowed != a.verdict.allowed
    ]
    assert changed == [
        "confidential data to France",
        "a confidential question to France",
        "what France releases",
    ]
    refused = next(o for o in after if o.case.name == "confidential data to France")
    assert refused.verdict.policies == ("de-withdraws-france",)


NODES = {"berlin": node(DE, "berlin"), "paris": node(FR, "paris"), "ashburn": node(US, "ashburn")}


@pytest.mark.parametrize(
    ("holder", "asker", "purpose", "levels"),
    [
        # public, internal, confidential, personal, special-category
        ("berlin", DE, "research", "passage passage passage passage snippet"),
        ("berlin", DE, "care/triage", "passage passage passage passage passage"),
        ("berlin", FR, "care/triage", "passage snippet snippet reference count"),
        ("berlin", US, "research", "passage count nothing nothing nothing"),
        ("paris", FR, "drafting", "passage passage snippet snippet count"),
        ("paris", FR, "audit/yearly", "passage passage passage snippet count"),
        ("paris", DE, "drafting", "passage reference reference nothing nothing"),
        ("paris", US, "drafting", "snippet nothing nothing nothing nothing"),
        ("ashburn", US, "drafting", "passage passage passage passage passage"),
        ("ashburn", DE, "drafting", "passage reference nothing nothing nothing"),
        ("ashburn", FR, "drafting", "passage reference nothing nothing nothing"),
    ],
)
def test_i3_what_three_askers_get_from_three_nodes(
    holder: str, asker: str, purpose: str, levels: str
) -> None:
    """Both keys together, as docs/policies.md has them in a table."""
    found = ReleasePolicy(PolicyEngine()).levels(
        snapshot_of(NODES.values(), example_policies()),
        NODES[holder].id,
        client("somebody", asker),
        RequestContext.of(["public"], purpose),
        "papers",
        {i: ReleaseGroup("", "", frozenset({each})) for i, each in enumerate(DataClass)},
        NOW,
    )
    assert " ".join(found[i].word for i in range(len(DataClass))) == levels
