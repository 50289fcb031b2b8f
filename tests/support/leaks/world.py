"""The documents of the leak test, and everything in them that must not turn up where it is not permitted.

A canary is a string that occurs in one document only: made-up words, numbers, names, addresses; in the
title, the text, the id, the source and the owner. Each says the least level at which it may be shown. The
rest of a text is drawn from a small vocabulary in random order, so that eight words in a row occur once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from stdnum.iban import calc_check_digits

from tests.support.leaks.rules import CLASSES, COUNTRIES, NEVER, PASSAGE, SNIPPET

COLLECTION = "guides"
DIMENSIONS = 64
# For each country, the tenants that its clients and documents are of.
TENANTS = ("alder", "birch")
_WORDS = """
    pump valve filter river bridge garden window lantern copper silver engine harbour station market
    ladder kettle blanket candle mirror basket carpet curtain pillow bottle button pocket jacket saddle
    anchor barrel feather hammer needle ribbon shovel ticket wagon whistle meadow orchard valley island
    winter summer autumn morning evening thunder shadow signal spring corner tunnel timber gravel pebble
    quiet steady narrow heavy gentle hollow rapid sturdy yellow purple crimson wooden early outer inner
    carry follow gather repair polish measure balance deliver collect observe prepare replace support"""
VOCABULARY = tuple(_WORDS.split())
_SYLLABLES = ("ba", "do", "fe", "gi", "ku", "lo", "mi", "na", "pe", "ru", "so", "ta", "ve", "zu", "xi", "wo")


@dataclass(frozen=True)
class Canary:
    """Lower case. `least` is the level from which on it may be shown."""

    kind: str
    text: str
    least: int


@dataclass(frozen=True)
class Document:
    """One document of one holder."""

    holder: str
    id: str
    title: str
    source: str
    owner: str
    tenant: str
    classes: tuple[str, ...]
    texts: tuple[str, ...]
    canaries: tuple[Canary, ...]


class Coiner:
    """Words, names and numbers that nothing else contains."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._known: set[str] = set()

    def word(self, ending: str = "rk") -> str:
        """Twelve letters that no stemmer touches. Each kind of word has its own ending."""
        while True:
            word = "".join(self.random.choice(_SYLLABLES) for _ in range(5)) + ending
            if word not in self._known:
                self._known.add(word)
                return word

    def digits(self, count: int) -> str:
        while True:
            digits = str(self.random.randrange(10 ** (count - 1), 10**count))
            if digits not in self._known:
                self._known.add(digits)
                return digits

    def prose(self, words: int) -> str:
        return " ".join(self.random.sample(VOCABULARY, words))


def make_documents(seed: int, copies: int = 1) -> list[Document]:
    """For each holder: every class, without a tenant and of each tenant; two chunks now and then."""
    coiner = Coiner(seed)
    return [
        _document(coiner, holder, kind, tenant)
        for holder in COUNTRIES
        for _ in range(copies)
        for kind in CLASSES
        for tenant in ("", *TENANTS)
    ]


def _document(coiner: Coiner, holder: str, kind: str, tenant: str) -> Document:
    found: list[Canary] = []

    def coin(kind: str, text: str, least: int) -> str:
        found.append(Canary(kind, text.lower(), least))
        return text

    def name(where: str) -> str:
        first, last = coiner.word().capitalize(), coiner.word().capitalize()
        coin(f"name in the {where}", first, PASSAGE)
        coin(f"name in the {where}", last, PASSAGE)
        return f"{first} {last}"

    title = f"The {coin('title', coiner.word(), SNIPPET)} of Dr {name('title')}"
    texts = []
    for _ in range(1 + (coiner.random.random() < 0.3)):
        person = name("text")
        digits = coiner.digits(16)
        account = f"DE{calc_check_digits('DE00' + '10' + digits)}10{digits}"
        texts.append(
            f"{coiner.prose(9).capitalize()} {coin('text', coiner.word(), SNIPPET)} {coiner.prose(6)}."
            f" Then Dr {person} came to {coiner.prose(8)}."
            f" Write to {coin('address', coiner.word(), PASSAGE)}@{coiner.word()}.example"
            f" or call +49 30 {coin('telephone', coiner.digits(10), PASSAGE)}."
            f" Pay into {coin('account', account, PASSAGE)}"
            f" under {coin('number', coiner.digits(11), PASSAGE)}."
            f" {person.split()[1]} said the {coiner.prose(9)}"
            f" {coin('text', coiner.word(), SNIPPET)}."
        )
    return Document(
        holder,
        coin("id", f"id-{coiner.word()}", PASSAGE),
        title,
        coin("source", f"file-{coiner.word()}.txt", PASSAGE),
        coin("owner", f"owner-{coiner.word()}", NEVER),
        tenant,
        (kind,),
        tuple(texts),
        tuple(found),
    )


def grams(words: Sequence[str], size: int = 8) -> set[str]:
    """Every run of so many words."""
    return {" ".join(words[at : at + size]) for at in range(len(words) - size + 1)}
