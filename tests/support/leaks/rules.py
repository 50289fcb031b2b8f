"""Who may ask and see what in the leak test: tables, the Cedar text made of them, and a naive reading.

The tables are the truth. Nodes get them as Cedar; the judge reads the tables themselves, with a few lines
that share nothing with mesh/core: no policy engine, no release groups, nothing remembered. Every level
occurs for every asker at every holder, and which class of documents has which level differs by pair.

While a policy is being replaced both versions count: what is on the wire then may rest on either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

COUNTRIES = ("DE", "FR", "US")
CLASSES = ("public", "internal", "confidential", "personal", "special-category")
NOTHING, COUNT, REFERENCE, SNIPPET, PASSAGE, NEVER = range(6)
WORDS = {COUNT: "count", REFERENCE: "reference", SNIPPET: "snippet", PASSAGE: "passage"}
PURPOSE, BARRED_PURPOSE = "care/triage", "marketing/lists"
_IMPLIED = {"special-category": ("personal",)}


@dataclass(frozen=True)
class Rules:
    """One authority's. Keys are (other country, class); what is missing is not permitted."""

    country: str
    releases: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of documents here, to clients of that country."""
    takes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of documents there, by clients of this country."""
    sends: frozenset[tuple[str, str]] = frozenset()
    """Questions of clients of this country, to nodes there."""
    accepts: frozenset[tuple[str, str]] = frozenset()
    """Questions of clients of that country, to nodes here."""

    def cedar(self) -> str:
        """The same for the nodes."""
        here = self.country
        lines = [
            f'@id("barred") forbid (principal, action == Action::"release", resource)'
            f' when {{ context.purpose == "{BARRED_PURPOSE}" }};'
        ]
        for (there, kind), level in sorted(self.releases.items()):
            lines += _release(f"{here}-to-{there}-{kind}", there, here, kind, level)
        for (there, kind), level in sorted(self.takes.items()):
            lines += _release(f"{here}-takes-{there}-{kind}", here, there, kind, level)
        for there, kind in sorted(self.sends):
            lines.append(_search(f"{here}-sends-{there}-{kind}", here, there, kind))
        for there, kind in sorted(self.accepts - {(here, kind) for kind in CLASSES}):
            lines.append(_search(f"{here}-accepts-{there}-{kind}", there, here, kind))
        return "\n".join(lines)


def _release(name: str, asker: str, holder: str, kind: str, level: int) -> Iterator[str]:
    if level == NOTHING:
        return
    words = ", ".join(f'"{word}"' for at, word in WORDS.items() if at <= level)
    yield (
        f'@id("release-{name}") permit (principal in Jurisdiction::"{asker}", action == Action::"release",'
        f' resource) when {{ resource.authority == Jurisdiction::"{holder}" }}'
        f' when {{ context.dataClass == "{kind}" && [{words}].contains(context.level) }};'
    )


def _search(name: str, asker: str, holder: str, kind: str) -> str:
    return (
        f'@id("search-{name}") permit (principal in Jurisdiction::"{asker}", action == Action::"search",'
        f' resource) when {{ resource.authority == Jurisdiction::"{holder}" }}'
        f' when {{ context.dataClass == "{kind}" }};'
    )


def starting_rules() -> dict[str, Rules]:
    """Every level for every pair; some questions stay at home, and one key is sometimes the narrower."""
    everyday = CLASSES[:4]
    made = {}
    for at, here in enumerate(COUNTRIES):
        releases, takes, sends, accepts = {}, {}, set(), set()
        for to, there in enumerate(COUNTRIES):
            for number, kind in enumerate(everyday):
                # Each of the four levels for one of the four classes; special categories are not there.
                releases[there, kind] = PASSAGE - (number + at + 2 * to) % 4
                if there != here:
                    takes[there, kind] = REFERENCE if (number + at + to) % 5 == 0 else PASSAGE
            for number, kind in enumerate(CLASSES):
                if there == here or number + abs(at - to) < 3:
                    sends.add((there, kind))
                if there == here or number < 3:
                    accepts.add((there, kind))
        made[here] = Rules(here, releases, takes, frozenset(sends), frozenset(accepts))
    return made


def withdrawn(rules: Rules, other: str) -> Rules:
    """The same, with no more than a count for clients of that country."""
    return replace(
        rules,
        releases={
            key: min(level, COUNT) if key[0] == other else level for key, level in rules.releases.items()
        },
    )


def refusing(rules: Rules, other: str) -> Rules:
    """The same, with no more questions sent to that country."""
    return replace(rules, sends=frozenset(key for key in rules.sends if key[0] != other))


# The versions of each authority's rules that may be in force at one time.
Epoch = Mapping[str, tuple[Rules, ...]]


@dataclass(frozen=True)
class Asked:
    """Whom something is for, as the connection and the request say."""

    country: str
    tenant: str
    purpose: str = PURPOSE
    classes: tuple[str, ...] = ("public",)


def level_of(epoch: Epoch, asked: Asked, holder: str, kinds: tuple[str, ...], tenant: str) -> int:
    """The most that `asked` may see of documents of these classes at this holder."""
    if tenant and (asked.country != holder or asked.tenant != tenant):
        return NOTHING
    if asked.purpose == BARRED_PURPOSE:
        return NOTHING
    level = PASSAGE
    for kind in _all(kinds):
        given = max(rules.releases.get((asked.country, kind), NOTHING) for rules in epoch[holder])
        level = min(level, given)
        if asked.country != holder:
            taken = max(rules.takes.get((holder, kind), NOTHING) for rules in epoch[asked.country])
            level = min(level, taken)
    return level


def may_ask(epoch: Epoch, asked: Asked, holder: str) -> bool:
    """Whether the question may be sent to nodes of this country."""
    return all(
        any((holder, kind) in rules.sends for rules in epoch[asked.country])
        and any((asked.country, kind) in rules.accepts for rules in epoch[holder])
        for kind in _all(asked.classes)
    )


def _all(kinds: tuple[str, ...]) -> set[str]:
    return {*kinds, *(more for kind in kinds for more in _IMPLIED.get(kind, ()))}
