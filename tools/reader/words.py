"""Names, words and values that the training passages are made of.

Names are mostly random syllables, so that nothing but copying gets them right. Whatever is made here
belongs to one of two disjoint halves, decided by a checksum of its spelling: what training may see, and
what only the evaluation sees.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import yaml

_TABLE = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
WORDS: dict[str, list[str]] = {group: words.split() for group, words in _TABLE.items()}
ADJECTIVES, NOUNS, ITEMS, MONTHS = (WORDS[group] for group in ("adjectives", "nouns", "items", "months"))
CODAS = ("", "n", "r", "l", "s", "t", "m", "k", "nd", "rn", "st", "ck", "lt", "ss", "x", "lm", "rt", "ng")


def held_out(spelling: str) -> bool:
    """Whether a name or a value belongs to the half that training never sees (one in eight)."""
    return zlib.crc32(spelling.lower().encode()) % 8 == 0


@dataclass(frozen=True, slots=True)
class Halves:
    """Which half each thing is drawn from: True for the one held out of training."""

    names: bool = False
    numbers: bool = False
    templates: bool = False


class Maker:
    """Draws names and values, each from its half."""

    def __init__(self, rng: random.Random, halves: Halves) -> None:
        self.rng = rng
        self.halves = halves

    def name_word(self) -> str:
        """One invented word with a capital."""
        rng = self.rng
        while True:
            syllables = rng.choice((1, 2, 2, 2, 3))
            word = "".join(
                rng.choice(WORDS["onsets"]) + rng.choice(WORDS["vowels"]) + rng.choice(CODAS)
                for _ in range(syllables)
            )
            if syllables == 1 or rng.random() < 0.3:
                word += rng.choice(WORDS["endings"])
            if 4 <= len(word) <= 11 and held_out(word) == self.halves.names:
                return word.capitalize()

    def near(self, word: str) -> str:
        """A word easily taken for `word`: one part of it differs."""
        for _ in range(40):
            at = self.rng.randrange(1, len(word))
            other = word[:at] + self.rng.choice("abdeiklmnorstuvz") + word[at + self.rng.randrange(2) :]
            if other != word and held_out(other) == self.halves.names:
                return other
        return self.name_word()

    def first_name(self) -> str:
        """A first name, common or invented."""
        if self.rng.random() < 0.3:
            return self.name_word()
        while True:
            name = self.rng.choice(WORDS["first_names"])
            if held_out(name) == self.halves.names:
                return name

    def digits(self, count: int) -> str:
        """`count` digits, not starting with 0."""
        while True:
            text = (
                str(self.rng.randrange(10 ** (count - 1), 10**count))
                if count > 1
                else self.rng.choice("123456789")
            )
            # Too few short ones exist for halves of their own.
            if count < 3 or held_out(text) == self.halves.numbers:
                return text

    def _fresh(self, make: str) -> bool:
        return held_out(make) == self.halves.numbers

    def time(self) -> str:
        """A time of the day."""
        while True:
            text = (
                f"{self.rng.randrange(24):02d}:{self.rng.randrange(0, 60, self.rng.choice((1, 5, 15))):02d}"
            )
            if self._fresh(text):
                return text

    def date(self) -> str:
        """A date, written out or ISO."""
        rng = self.rng
        while True:
            day, month, year = rng.randrange(1, 29), rng.randrange(12), rng.randrange(2015, 2036)
            style = rng.random()
            if style < 0.6:
                text = f"{day} {MONTHS[month]} {year}"
            elif style < 0.75:
                text = f"{day} {MONTHS[month]}"
            else:
                text = f"{year}-{month + 1:02d}-{day:02d}"
            if self._fresh(text):
                return text

    def money(self) -> str:
        """An amount with its currency."""
        rng = self.rng
        amount = self.digits(rng.choice((1, 2, 3, 3, 4, 5, 6)))
        if len(amount) > 3 and rng.random() < 0.6:
            amount = f"{int(amount):,}"
        if rng.random() < 0.2:
            amount += f".{rng.randrange(100):02d}"
        return rng.choice(("{} euros", "{} euros", "EUR {}", "€{}", "{} dollars", "USD {}", "${}")).format(
            amount
        )

    def code(self) -> str:
        """A code of letters and digits."""
        rng = self.rng

        def letters(count: int) -> str:
            return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(count))

        return rng.choice(
            (
                f"{letters(2)}-{self.digits(4)}",
                f"{letters(1)}-{self.digits(rng.choice((2, 3, 4, 5)))}",
                f"{letters(3)}{self.digits(3)}",
                f"{letters(2)}-{self.digits(3)}-{letters(1)}",
                f"{self.digits(2)}-{self.digits(4)}",
                f"{letters(2)} {self.digits(5)}",
            )
        )

    def phone(self) -> str:
        """A telephone number."""
        return self.rng.choice(("0{} {} {}", "+{} {} {}")).format(
            self.digits(2), self.digits(3), self.digits(self.rng.choice((3, 4)))
        )
