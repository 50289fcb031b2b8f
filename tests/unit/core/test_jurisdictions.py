"""Countries and groups: what is known, from when on, and what is refused (I4)."""

import datetime
import json

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import MAX_GROUPS, MAX_GROUPS_BYTES, Groups, require_country

NONE: frozenset[str] = frozenset()
TODAY = datetime.date(2026, 3, 1)


def on(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


@pytest.mark.parametrize("code", ["DE", "FR", "US", "NO", "GB"])
def test_assigned_codes_pass(code: str) -> None:
    assert require_country(code) == code


@pytest.mark.parametrize("code", ["", "de", "De", "XX", "ZZ", "UK", "EU", "DEU", "D", "DE\n", "\uff24\uff25"])
def test_i4_everything_else_is_refused(code: str) -> None:
    with pytest.raises(MeshError, match="ISO 3166-1 alpha-2") as caught:
        require_country(code)
    assert caught.value.reason is Reason.COUNTRY_UNKNOWN


@pytest.mark.parametrize(
    ("group", "day", "count"),
    [
        ("EU", "1957-12-31", 0),
        ("EU", "1958-01-01", 6),
        ("EU", "1995-01-01", 15),
        ("EU", "2013-07-01", 28),
        ("EU", "2020-01-31", 28),
        ("EU", "2020-02-01", 27),
        ("EEA", "1993-12-31", 0),
        ("EEA", "2020-02-01", 30),
    ],
)
def test_groups_change_with_time(group: str, day: str, count: int) -> None:
    assert len(Groups.shipped().countries_in(group, on(day))) == count


def test_eea_is_the_eu_and_three_more() -> None:
    groups = Groups.shipped()
    extra = groups.countries_in("EEA", TODAY) - groups.countries_in("EU", TODAY)
    assert extra == {"IS", "LI", "NO"}


def test_adequacy_with_its_conditions() -> None:
    groups = Groups.shipped()
    unconditional = {"AD", "AR", "BR", "CH", "FO", "GB", "GG", "IL", "IM", "JE", "JP", "KR", "NZ", "UY"}
    assert groups.countries_in("GDPR-adequate", TODAY) == unconditional
    assert groups.groups_of("US", NONE, TODAY) == NONE
    assert groups.groups_of("US", frozenset({"EU-US-DPF"}), TODAY) == {"GDPR-adequate"}
    assert groups.groups_of("US", frozenset({"EU-US-DPF"}), on("2023-07-09")) == NONE
    assert groups.groups_of("CA", frozenset({"EU-US-DPF"}), TODAY) == NONE
    assert groups.groups_of("CA", frozenset({"PIPEDA-COMMERCIAL"}), TODAY) == {"GDPR-adequate"}
    assert groups.conditions() == {"EU-US-DPF", "PIPEDA-COMMERCIAL"}


def test_an_adequacy_decision_ends_by_itself() -> None:
    groups = Groups.shipped()
    assert "GDPR-adequate" in groups.groups_of("GB", NONE, on("2031-12-27"))
    assert groups.groups_of("GB", NONE, on("2031-12-28")) == NONE


def test_every_fact_has_a_source() -> None:
    for group in Groups.shipped().groups:
        assert group.source.startswith("https://")
        for member in group.members:
            if group.name == "GDPR-adequate":
                assert member.decision
                assert member.source.startswith("https://eur-lex.europa.eu/")


def test_json_round_trip_keeps_the_digest() -> None:
    shipped = Groups.shipped()
    again = Groups.from_json(shipped.to_json())
    assert again == shipped
    assert again.digest == shipped.digest


def test_an_unknown_group_is_empty() -> None:
    assert Groups.shipped().countries_in("NATO", TODAY) == NONE


def group(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {"name": "G", "description": "", "source": "", "members": []}
    return {**fields, **changes}


def member(**changes: object) -> dict[str, object]:
    return group(members=[{"country": "DE", "from": "2020-01-01", **changes}])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "{",
        '{"groups": []}',
        '{"groups": {}}',
        '{"groups": [], "groups": []}',
        "[" * 100_000,
        " " * (MAX_GROUPS_BYTES + 1),
        json.dumps({"groups": [group()], "more": 1}),
        json.dumps({"groups": [group(), group()]}),
        json.dumps({"groups": [group(name=f"G{i}") for i in range(MAX_GROUPS + 1)]}),
        json.dumps({"groups": [group(name="")]}),
        json.dumps({"groups": [group(name='G"')]}),
        json.dumps({"groups": [group(name=7)]}),
        json.dumps({"groups": [group(unknown=1)]}),
        json.dumps({"groups": [group(members={})]}),
        json.dumps({"groups": [group(members=[7])]}),
        json.dumps({"groups": [member(country="de")]}),
        json.dumps({"groups": [member(country="XX")]}),
        json.dumps({"groups": [member(country=None)]}),
        json.dumps({"groups": [member(**{"from": "2020-02-30"})]}),
        json.dumps({"groups": [member(**{"from": "20200101"})]}),
        json.dumps({"groups": [member(**{"from": 2020})]}),
        json.dumps({"groups": [member(until="2019-12-31")]}),
        json.dumps({"groups": [member(until=None)]}),
        json.dumps({"groups": [member(requires_assurance="")]}),
        json.dumps({"groups": [member(requires_assurance=["C5"])]}),
        json.dumps({"groups": [member(note="x" * 513)]}),
    ],
)
def test_i4_malformed_groups_are_refused(text: str) -> None:
    with pytest.raises(MeshError) as caught:
        Groups.from_json(text)
    assert caught.value.reason is Reason.GROUPS_MALFORMED
