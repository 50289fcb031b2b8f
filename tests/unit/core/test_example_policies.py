"""The example policies say what their tables expect, and withdrawing a country is one policy."""

from pathlib import Path

import pytest
import yaml

from mesh.core.expectations import read_table, run_table
from mesh.core.policy import validate_policy

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
    assert changed == ["confidential data to France"]
    refused = next(o for o in after if o.case.name == "confidential data to France")
    assert refused.verdict.policies == ("de-withdraws-france",)
