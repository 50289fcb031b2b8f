"""The synthetic passages, questions and answers: a pure function of a seed.

A sample is one to five passages about several invented things, and questions on them. The answer to a
question is the sentence that states the fact, word for word, with its passage's number behind it: a model
of this size learns to find and copy, not to phrase. A quarter of the questions has no answer there: the
thing is absent, or present but that is not said of it while it is said of a thing of a like name.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.reader.facts import ATTRIBUTES, GENERAL_QUESTIONS, GENERAL_STATEMENTS, Attribute
from tools.reader.values import confusable, entity, phrase, value
from tools.reader.words import ADJECTIVES, ITEMS, NOUNS, WORDS, Halves, Maker

NOT_STATED = "Not stated."


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its whole answer, the asked value, and the passage (None: not stated)."""

    text: str
    answer: str
    fact: str
    passage: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    """Passages and the questions asked about them."""

    passages: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large samples are."""

    passages: tuple[int, ...] = (1, 2, 2, 3, 3)
    words: tuple[int, int] = (15, 60)
    questions: int = 8
    unanswerable: float = 0.25


@dataclass(frozen=True, slots=True)
class _Fact:
    entity: str
    attribute: Attribute
    value: str
    noun: str


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    facts: tuple[_Fact, ...]


class Generator:
    """Draws samples."""

    def __init__(self, seed: int | str, halves: Halves | None = None) -> None:
        self.rng = random.Random(seed)  # noqa: S311 (a corpus, no secret)
        self.halves = halves or Halves()
        self.make = Maker(self.rng, self.halves)

    def sample(self, shape: Shape) -> Sample:
        """One set of passages with its questions."""
        rng = self.rng
        count = rng.choice(shape.passages)
        things = self._things(max(3, count + rng.randrange(1, 4)))
        said: set[tuple[str, str]] = set()
        lines: list[list[_Line]] = []
        for _ in range(count):
            wanted = rng.randint(*shape.words)
            present = rng.sample(things, min(len(things), rng.choice((1, 2, 2, 3, 4))))
            lines.append(self._passage(present, wanted, said))
        passages = tuple(" ".join(line.text for line in passage) for passage in lines)
        stated = [
            (fact, line.text, at) for at, part in enumerate(lines) for line in part for fact in line.facts
        ]
        rng.shuffle(stated)
        questions: list[Question] = []
        for number in range(shape.questions):
            if not stated or rng.random() < shape.unanswerable:
                questions.append(self._unanswerable(things, stated, said))
            else:
                fact, sentence, at = stated[number % len(stated)]
                asked = self._ask(fact.attribute, fact.entity, fact.noun)
                questions.append(Question(asked, f"{sentence} [{at + 1}]", fact.value, at))
        return Sample(passages, tuple(questions))

    def _things(self, count: int) -> list[tuple[str, str]]:
        """(kind, name); some are easily taken for others."""
        rng = self.rng
        things: list[tuple[str, str]] = []
        base = rng.choice(("place", "thing", "person", "event"))
        while len(things) < count:
            if things and rng.random() < 0.35:
                kind, name = rng.choice(things)
                name = confusable(self.make, name)
            else:
                kind = base if rng.random() < 0.4 else rng.choice(
                    ("place", "thing", "thing", "person", "event", "record", "company", "drug")
                )  # fmt: skip
                name = entity(self.make, kind)
            if all(
                name.lower() not in other.lower() and other.lower() not in name.lower() for _, other in things
            ):
                things.append((kind, name))
        return things

    def _attribute(self, kind: str) -> Attribute:
        if self.rng.random() < 0.25:
            return self._invented()
        return self.rng.choice([one for one in ATTRIBUTES if kind in one.kinds])

    def _invented(self) -> Attribute:
        """A quantity that nobody has heard of."""
        rng = self.rng
        measure = rng.choice(WORDS["measures"])
        noun = f"{rng.choice((*ADJECTIVES, *NOUNS))} {measure}"
        if rng.random() < 0.2:
            noun = measure
        kind = rng.choice(WORDS["invented_values"])
        return Attribute(noun, (), kind, (noun,), ((), ()), ((), ()))

    def _new_fact(self, thing: tuple[str, str], said: set[tuple[str, str]]) -> _Fact | None:
        kind, name = thing
        attribute = self._attribute(kind)
        if (name, attribute.name) in said:
            return None
        said.add((name, attribute.name))
        return _Fact(name, attribute, value(self.make, attribute.value), self.rng.choice(attribute.nouns))

    def _passage(self, things: list[tuple[str, str]], words: int, said: set[tuple[str, str]]) -> list[_Line]:
        rng = self.rng
        lines: list[_Line] = []
        size = 0
        if rng.random() < 0.2:
            lines.append(_Line(f"{phrase(self.make).capitalize()}.", ()))
        while size < words:
            draw = rng.random()
            if draw < 0.15:
                line = _Line(self._filler(), ())
            else:
                thing = rng.choice(things)
                fact = self._new_fact(thing, said)
                if fact is None:
                    continue
                line = self._line(thing, fact, said)
            lines.append(line)
            size += len(line.text.split())
        if rng.random() < 0.5:
            rng.shuffle(lines)
        return lines

    def _line(self, thing: tuple[str, str], fact: _Fact, said: set[tuple[str, str]]) -> _Line:
        """A sentence with the fact; at times with a second one, or with something around it."""
        rng = self.rng
        text = self._state(fact)
        draw = rng.random()
        if draw < 0.2 and (other := self._new_fact(thing, said)) is not None:
            joined = rng.choice(("and its {} is {}", "while the {} is {}", "with {1} as {0}")).format(
                other.noun, other.value
            )
            return _Line(f"{text[:-1]}, {joined}.", (fact, other))
        if draw < 0.28:
            text = f"{text[:-1]}, {rng.choice(('as', 'because', 'so that', 'unless'))} {self._clause()}."
        elif draw < 0.36:
            opening = f"{rng.choice(('When', 'If', 'Unless', 'While', 'Because'))} {self._clause()}, "
            text = opening + self._lower(text, fact)
        return _Line(text, (fact,))

    def _lower(self, text: str, fact: _Fact) -> str:
        if text.startswith((fact.entity, fact.value)):
            return text
        return text[0].lower() + text[1:]

    def _state(self, fact: _Fact) -> str:
        special = fact.attribute.statements[self.halves.templates]
        if special and self.rng.random() < 0.65:
            template = self.rng.choice(special)
        else:
            template = self.rng.choice(GENERAL_STATEMENTS[self.halves.templates])
        return _capital(template.format(e=fact.entity, v=fact.value, n=fact.noun))

    def _ask(self, attribute: Attribute, name: str, noun: str = "") -> str:
        """A question; half of those that name what they ask for use the statement's word, `noun`."""
        rng = self.rng
        special = attribute.questions[self.halves.templates]
        if special and rng.random() < 0.65:
            template = rng.choice(special)
        else:
            template = rng.choice(GENERAL_QUESTIONS[self.halves.templates])
        if not noun or rng.random() < 0.5:
            noun = rng.choice(attribute.nouns)
        text = template.format(e=name, n=noun)
        draw = rng.random()
        if draw < 0.06:
            return text.rstrip("?.")
        return text if draw < 0.12 else _capital(text)

    def _unanswerable(
        self, things: list[tuple[str, str]], stated: list[tuple[_Fact, str, int]], said: set[tuple[str, str]]
    ) -> Question:
        rng = self.rng
        for _ in range(50):
            kind, name = rng.choice(things)
            attribute = (
                rng.choice(stated)[0].attribute if stated and rng.random() < 0.6 else self._attribute(kind)
            )
            if rng.random() < 0.5:
                name = confusable(self.make, name) if rng.random() < 0.6 else entity(self.make, kind)
                if any(name.lower() == other.lower() for _, other in things):
                    continue
            if (name, attribute.name) not in said:
                return Question(self._ask(attribute, name), NOT_STATED, NOT_STATED, None)
        thing = entity(self.make, "thing")
        return Question(
            self._ask(self._invented(), f"{thing} {self.make.code()}"), NOT_STATED, NOT_STATED, None
        )

    def _clause(self) -> str:
        rng = self.rng
        who = "the " + rng.choice(WORDS["teams"])
        return f"{who} {rng.choice(WORDS['verbs'])} the {rng.choice((phrase(self.make), rng.choice(ITEMS)))}"

    def _filler(self) -> str:
        """A sentence that answers nothing."""
        rng = self.rng
        form = rng.choice(
            (
                "{team} {verb} the {one} and the {two}.",
                "Please {verb} the {one} before you leave.",
                "All {team} must {verb} the {one} every day.",
                "The {one} is not part of the {two}.",
                "Nobody may {verb} the {one} without the {team}.",
                "This page tells {team} how to {verb} the {one}.",
                "The {team} {verb} the {items} together with the {one}.",
                "Do not {verb} the {one} during the {two}.",
                "It is the task of the {team} to {verb} the {items}.",
            )
        )
        return _capital(
            form.format(
                team=rng.choice(WORDS["teams"]),
                verb=rng.choice(WORDS["verbs"]),
                one=phrase(self.make),
                two=phrase(self.make),
                items=rng.choice(ITEMS),
            )
        )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
