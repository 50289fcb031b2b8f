"""Texts as Cedar's `like` tells them apart, and an example of each kind.

Purposes, tenants and owners are open: anybody may make up a new one. But a finite number of patterns
sorts them into finitely many kinds, by which patterns match. `kinds` finds every kind that a text of the
given form can be of, with its shortest examples: it walks the patterns' automata side by side, one
character at a time. A state is, for each pattern, the set of places in it that the text read so far may
have reached (the subset construction of Rabin and Scott, 1959).

Characters that no pattern names are all alike; as many of them are tried as distinct texts are wanted.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from mesh.core.errors import MeshError, Reason

# A pattern's characters in order; None stands for Cedar's "*", any number of any characters.
Pattern = tuple[str | None, ...]

# Places in patterns looked at in all: seconds. Ten patterns of ten characters need some ten thousands.
MAX_STEPS = 5_000_000

_PRINTABLE = tuple(c for c in map(chr, range(0x21, 0x600)) if c.isprintable())


@dataclass(frozen=True, slots=True)
class Form:
    """What a text must look like: characters inside and at both ends (None: any printable one), how long
    it may be, and whether it may be empty. `usual` are words to try first where any will do."""

    inner: frozenset[str] | None
    edge: frozenset[str] | None
    longest: int
    empty: bool
    usual: tuple[str, ...] = ("other",)

    def accepts(self, text: str) -> bool:
        """Whether the text is of this form."""
        if not text:
            return self.empty
        return (
            len(text) <= self.longest
            and all(_has(self.inner, char) for char in text)
            and _has(self.edge, text[0])
            and _has(self.edge, text[-1])
        )

    def meet(self, other: Form) -> Form:
        """The texts that are of both forms."""
        return Form(
            _both(self.inner, other.inner),
            _both(self.edge, other.edge),
            min(self.longest, other.longest),
            self.empty and other.empty,
            self.usual,
        )


def matches(pattern: Pattern, text: str) -> bool:
    """Whether the whole text matches, in time proportional to both lengths."""
    if _literals(pattern) > len(text):
        return False
    reached = _start(pattern)
    for char in text:
        reached = _step(pattern, reached, char)
    return bool(reached >> len(pattern) & 1)


def kinds(
    patterns: Sequence[Pattern], form: Form, known: AbstractSet[str], count: int
) -> dict[tuple[bool, ...], list[str]]:
    """For every kind of text, by which patterns match: `count` examples that are not `known`.

    Fewer only where there are no more. Raises POLICY_UNDECIDED if the patterns overlap in too many ways.
    """
    found: dict[tuple[bool, ...], list[str]] = {}

    def add(text: str) -> None:
        examples = found.setdefault(tuple(matches(p, text) for p in patterns), [])
        if len(examples) < count and text not in examples:
            examples.append(text)

    numbered = (f"other-{i}" for i in itertools.count(2))
    for text in itertools.islice(itertools.chain(form.usual, numbered), count + len(known) + 1):
        if form.accepts(text) and text not in known:
            add(text)
    if not patterns and len(found.get((), ())) >= count:
        return found
    # What is longer than any text of the form matches none, and need not be followed.
    possible = [p for p in patterns if _literals(p) <= form.longest]
    for text in _walk(possible, form, known, count):
        add(text)
    return found


def _walk(patterns: Sequence[Pattern], form: Form, known: AbstractSet[str], count: int) -> Iterator[str]:
    """The `count` shortest texts that lead to each state and are not known.

    A state is gone on from `count` + len(known) times: of the texts that lead there, no longer ones can
    be needed, since what follows could follow the shorter ones as well.
    """
    alphabet = _alphabet(patterns, form, known, count)
    begin = (tuple(_start(p) for p in patterns), False, False)
    visits = {begin: 1}
    given = dict.fromkeys(visits, 0)
    queue = deque([(begin, "")])
    steps, places_in_all = 0, 1 + sum(map(len, patterns))
    if form.empty and "" not in known:
        yield ""
    while queue:
        (places, begun, _), text = queue.popleft()
        if len(text) >= form.longest:
            continue
        for char in alphabet:
            steps += places_in_all
            if steps > MAX_STEPS:
                raise MeshError(
                    Reason.POLICY_UNDECIDED,
                    "undecided, because the patterns after `like` overlap in too many ways to try them all",
                )
            at_edge = _has(form.edge, char)
            if not begun and not at_edge:
                continue
            state = (
                tuple(_step(p, reached, char) for p, reached in zip(patterns, places, strict=True)),
                True,
                at_edge,
            )
            if visits.get(state, 0) >= count + len(known):
                continue
            visits[state] = visits.get(state, 0) + 1
            longer = text + char
            queue.append((state, longer))
            if at_edge and longer not in known and given.get(state, 0) < count:
                given[state] = given.get(state, 0) + 1
                yield longer


def _alphabet(
    patterns: Sequence[Pattern], form: Form, known: AbstractSet[str], count: int
) -> tuple[str, ...]:
    """The patterns' characters and `count` that neither they nor the known texts contain; all that are
    allowed, if there are not so many."""
    named = {char for pattern in patterns for char in pattern if char is not None}
    taken = named.union(*known)
    free = [c for c in (_PRINTABLE if form.edge is None else sorted(form.edge)) if c not in taken]
    free.sort(key=lambda c: (c != "x", not c.isalpha(), c))
    named = {char for char in named if _has(form.inner, char)}
    if len(free) >= count:
        return tuple(sorted(named.union(free[:count])))
    return tuple(sorted(named.union(_PRINTABLE if form.inner is None else form.inner)))


def _literals(pattern: Pattern) -> int:
    return sum(token is not None for token in pattern)


def _start(pattern: Pattern) -> int:
    return _close(pattern, 1)


def _close(pattern: Pattern, reached: int) -> int:
    """A wildcard may stand for nothing: whoever is before it is behind it, too."""
    for place, token in enumerate(pattern):
        if token is None and reached >> place & 1:
            reached |= 1 << place + 1
    return reached


def _step(pattern: Pattern, reached: int, char: str) -> int:
    after = 0
    for place, token in enumerate(pattern):
        if reached >> place & 1:
            if token is None:
                after |= 1 << place
            elif token == char:
                after |= 1 << place + 1
    return _close(pattern, after)


def _has(chars: frozenset[str] | None, char: str) -> bool:
    return char.isprintable() if chars is None else char in chars


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other
