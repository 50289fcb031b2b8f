"""Countries, and the groups of countries that policies speak of.

A country is an assigned ISO 3166-1 alpha-2 code, in upper case. A group (EU, EEA, GDPR-adequate, ...)
is data: who belongs to it from which day until which day, on whose word (a source for each group or
membership), and under which condition. A condition is an assurance that a node must hold: Canada's
adequacy reaches commercial organisations only, that of the United States certified ones only.

Groups can be replaced by a signed record, so they are read strictly and with bounds; what cannot be
read leaves everything as it was (I4). This module does not know what any law says: it repeats the
data it was given, whose sources are named beside it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NoReturn

import pycountry

from mesh.core.errors import MeshError, Reason

MAX_GROUPS_BYTES = 128 * 1024
MAX_GROUPS = 64
MAX_MEMBERSHIPS = 512  # per group

_GROUP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_ASSURANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MAX_TEXT = 512

COUNTRIES: frozenset[str] = frozenset(country.alpha_2 for country in pycountry.countries)


def require_country(code: str) -> str:
    """Returns `code` if it is an assigned ISO 3166-1 alpha-2 code; raises COUNTRY_UNKNOWN (I4)."""
    if code not in COUNTRIES:
        raise MeshError(
            Reason.COUNTRY_UNKNOWN, "expected an assigned ISO 3166-1 alpha-2 code in upper case, such as DE"
        )
    return code


@dataclass(frozen=True, slots=True)
class Membership:
    """One country's time in a group: from `since` to `until`, both days included.

    `until` is None while no end is known. `requires_assurance` is what a node must hold for the
    membership to reach it; "" if it reaches every node there.
    """

    country: str
    since: datetime.date
    until: datetime.date | None = None
    requires_assurance: str = ""
    decision: str = ""
    source: str = ""
    note: str = ""

    def holds(self, assurances: frozenset[str], on: datetime.date) -> bool:
        """Whether it holds on that day for somebody with these assurances."""
        return (
            self.since <= on
            and (self.until is None or on <= self.until)
            and (not self.requires_assurance or self.requires_assurance in assurances)
        )


@dataclass(frozen=True, slots=True)
class Group:
    """A named group of countries, and where its facts come from."""

    name: str
    description: str
    source: str
    members: tuple[Membership, ...]


@dataclass(frozen=True)
class Groups:
    """All groups that an authority's policies may name. Immutable."""

    groups: tuple[Group, ...]
    digest: str  # "sha256:<hex>" of the canonical JSON

    @classmethod
    def shipped(cls) -> Groups:
        """The groups of mesh/core/data/jurisdictions.json, read once."""
        return _shipped()

    @classmethod
    def from_json(cls, text: str) -> Groups:
        """Reads the form of mesh/core/data/jurisdictions.json; raises GROUPS_MALFORMED.

        At most 128 KiB, 64 groups and 512 memberships a group. Unknown or repeated keys are errors.
        """
        return _read(text)

    def to_json(self) -> str:
        """The canonical JSON: from_json(to_json()) gives an equal value."""
        return _canonical(self.groups)

    def names(self) -> frozenset[str]:
        """The names of all groups."""
        return frozenset(group.name for group in self.groups)

    def groups_of(self, country: str, assurances: frozenset[str], on: datetime.date) -> frozenset[str]:
        """The groups to which somebody in `country` with these assurances belongs on that day."""
        return frozenset(
            group.name
            for group in self.groups
            if any(m.country == country and m.holds(assurances, on) for m in group.members)
        )

    def countries_in(self, group: str, on: datetime.date) -> frozenset[str]:
        """The countries that belong to the group without condition on that day.

        An unknown group is empty: nothing is permitted by a word that nobody defined (I4).
        """
        return frozenset(
            m.country for g in self.groups if g.name == group for m in g.members if m.holds(frozenset(), on)
        )

    def conditions(self) -> frozenset[str]:
        """Every assurance on which some membership depends."""
        return frozenset(m.requires_assurance for g in self.groups for m in g.members if m.requires_assurance)


@cache
def _shipped() -> Groups:
    return _read(resources.files("mesh.core").joinpath("data/jurisdictions.json").read_text("utf-8"))


def _canonical(groups: Iterable[Group]) -> str:
    document = {"groups": [{**_group_fields(g), "members": [_fields(m) for m in g.members]} for g in groups]}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _group_fields(group: Group) -> dict[str, str]:
    return {"name": group.name, "description": group.description, "source": group.source}


def _fields(member: Membership) -> dict[str, str]:
    fields = {
        "country": member.country,
        "from": member.since.isoformat(),
        "until": member.until.isoformat() if member.until else "",
        "requires_assurance": member.requires_assurance,
        "decision": member.decision,
        "source": member.source,
        "note": member.note,
    }
    return {key: value for key, value in fields.items() if value}


def _malformed(expected: str) -> NoReturn:
    raise MeshError(Reason.GROUPS_MALFORMED, expected)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        _malformed("groups: a key occurs twice in one object")
    return dict(pairs)


def _read(text: str) -> Groups:
    if len(text.encode("utf-8", "replace")) > MAX_GROUPS_BYTES:
        _malformed(f"groups: at most {MAX_GROUPS_BYTES // 1024} KiB")
    try:
        document = json.loads(text, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        _malformed("groups: expected a JSON document")
    top = _object(document, "groups", {"groups"})
    listed = top["groups"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_GROUPS:
        _malformed(f"groups: expected a list of 1 to {MAX_GROUPS} groups")
    groups = tuple(_read_group(entry, index) for index, entry in enumerate(listed))
    if len({group.name for group in groups}) != len(groups):
        _malformed("groups: two groups have the same name")
    return Groups(groups, "sha256:" + hashlib.sha256(_canonical(groups).encode()).hexdigest())


def _read_group(entry: object, index: int) -> Group:
    where = f"groups[{index}]"
    fields = _object(entry, where, {"name", "description", "source", "members"})
    name = _text(fields["name"], f"{where}.name", _GROUP_NAME)
    members = fields["members"]
    if not isinstance(members, list) or len(members) > MAX_MEMBERSHIPS:
        _malformed(f"{where}.members: expected a list of at most {MAX_MEMBERSHIPS}")
    return Group(
        name,
        _text(fields["description"], f"{where}.description"),
        _text(fields["source"], f"{where}.source"),
        tuple(_read_member(member, f"{where}.members[{i}]") for i, member in enumerate(members)),
    )


def _read_member(entry: object, where: str) -> Membership:
    optional = {"until", "requires_assurance", "decision", "source", "note"}
    fields = _object(entry, where, {"country", "from"}, optional)
    country = fields["country"]
    if not isinstance(country, str) or country not in COUNTRIES:
        _malformed(f"{where}.country: expected an assigned ISO 3166-1 alpha-2 code")
    since = _day(fields["from"], f"{where}.from")
    until = _day(fields["until"], f"{where}.until") if "until" in fields else None
    if until is not None and until < since:
        _malformed(f"{where}: ends before it begins")
    condition = fields.get("requires_assurance")
    return Membership(
        country,
        since,
        until,
        "" if condition is None else _text(condition, f"{where}.requires_assurance", _ASSURANCE),
        *(_text(fields.get(key, ""), f"{where}.{key}") for key in ("decision", "source", "note")),
    )


def _object(
    value: object, where: str, required: set[str], optional: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(value, dict):
        _malformed(f"{where}: expected an object")
    keys = set(value)
    if not required <= keys or not keys <= required | (optional or set()):
        _malformed(f"{where}: expected the keys {', '.join(sorted(required))} and no unknown ones")
    return value


def _text(value: object, where: str, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or (pattern and not pattern.fullmatch(value)):
        expected = (
            f"a text like {pattern.pattern}" if pattern else f"a text of at most {_MAX_TEXT} characters"
        )
        _malformed(f"{where}: expected {expected}")
    return value


def _day(value: object, where: str) -> datetime.date:
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            pass
    _malformed(f"{where}: expected a day such as 2020-01-31")
