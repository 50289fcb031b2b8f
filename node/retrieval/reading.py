"""Reading: asking a model what passages say, and believing only what they do.

The same two messages go to any chat model, and the same parser reads its answer. What a model writes is
hostile until shown otherwise: `parse_reading` never raises and keeps no sentence without a citation of a
passage that exists; `grounded` then tells whether the cited passage has every number and name in it. That
catches invented facts, not twisted ones: "is open" for "is not open" passes.
`extract` answers with a sentence of the passages and needs no model.

Pure: text in, text out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mesh.core.text import printable
from node.engine.base import Message

NOT_STATED = "Not stated."
MAX_SENTENCES = 8
MAX_CHARACTERS = 600  # of a sentence
MAX_OUTPUT = 16_000  # characters of a model's output that are looked at

INSTRUCTION = (
    "Answer the question in one sentence, only from the numbered passages. End the sentence with the "
    "number of the passage that says it, in brackets, like [1]. If none of the passages says it, reply "
    f"exactly: {NOT_STATED}"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer, and the passages (from zero) that it cites."""

    text: str
    passages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer. Without sentences: the passages do not state it."""

    sentences: tuple[Sentence, ...] = ()


def reading_messages(question: str, passages: Sequence[str]) -> tuple[Message, ...]:
    """What to send to a chat model: the instruction, and the numbered passages with the question."""
    lines = [f"[{number}] {' '.join(text.split())}" for number, text in enumerate(passages, 1)]
    lines.append(f"Question: {' '.join(question.split())}")
    return Message("system", INSTRUCTION), Message("user", "\n".join(lines))


# [1] or [1, 2] or [Passage 1], several in a row.
_ONE_CITATION = r"\[ ?(?:[Pp]assage ?)?[0-9]{1,4}(?: ?[,;] ?[0-9]{1,4}){0,15} ?\]"
_CITATIONS = re.compile(rf"{_ONE_CITATION}(?: ?{_ONE_CITATION})*")
_SENTENCE_END = re.compile(r"[.!?][\"')\]»”]* +(?=[^a-z])")
_ABBREVIATION = re.compile(r"(?:^|[\s(\"'])(?:Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Ext|approx|e\.g|i\.e|[A-Z])\.$")


def parse_reading(output: str, passage_count: int) -> Reading:
    """What a model's output states, sentence by sentence; what cites no passage is dropped."""
    visible = output[-MAX_OUTPUT:].rpartition("</think>")[2] if "</think>" in output else output
    visible = visible[:MAX_OUTPUT]
    text = " ".join(printable(visible).split())
    found: list[Sentence] = []
    at = 0
    for group in _CITATIONS.finditer(text):
        cited = dict.fromkeys(int(number) - 1 for number in re.findall("[0-9]+", group[0]))
        passages = tuple(one for one in cited if 0 <= one < passage_count)
        # Only the last sentence before a citation is the one that cites.
        said = (list(_sentences(text[at : group.start()])) or [""])[-1].strip(" .,;:-*#>\t")
        at = group.end()
        if passages and said and len(said) < MAX_CHARACTERS and any(c.isalnum() for c in said):
            said += "" if said[-1] in "!?" else "."
            if said.casefold() != NOT_STATED.casefold():
                found.append(Sentence(said, passages))
    return Reading(tuple(found[:MAX_SENTENCES]))


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        # An abbreviation is short: no need to look at all that stands before it.
        if not _ABBREVIATION.search(text[max(start, end.start() - 8) : end.start() + 1]):
            yield text[start : end.end()].strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


_OPENING_WORDS = """
    a an the in on at to of for from by with without within during after before when where while if unless
    until because since as according under every each all any no not yes it its they their there this that
    these those he she his her you your we our please call dial use keep"""
_SMALL_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty"""
_LARGE_NUMBERS = "thirty forty fifty sixty seventy eighty ninety hundred thousand million"
_QUESTION_WORDS = """
    what which who whom whose how why is are was were be been do does did can could may must should would
    will has have had and or i me my give tell know need find much many long time day date person place"""
# Openings of a sentence that have a capital and are no names.
_OPENINGS = frozenset(_OPENING_WORDS.split())
_ASKING = _OPENINGS | frozenset(_QUESTION_WORDS.split())
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_SMALL_NUMBERS.split())}
_NUMBER_WORDS |= dict.fromkeys(_LARGE_NUMBERS.split(), "")
_NAME = re.compile(r"(?:(?<!\S)[-+\u2212](?=[0-9]))?[^\W_]+(?:['\u2019.,:/&-][^\W_]+)*|[€$£¥%]")
_JOINTS = re.compile(r"['\u2019.,:/&-]")


def grounded(sentence: str, passage: str) -> bool:
    """Whether the passage can be what the sentence rests on: every number, name and code of the sentence
    occurs in it, regardless of case, and so do most of its other words that mean something.

    The second keeps a passage from putting words into a model's mouth that are then cited to another one.
    """
    known = _known(passage)
    said = _terms(sentence)
    if said and len(said & _terms(passage)) < _MOST * len(said):
        return False
    for at, word in enumerate(_NAME.findall(sentence)):
        folded = word.casefold()
        if folded in known or (at == 0 and folded in _OPENINGS):
            continue
        if folded in _NUMBER_WORDS:
            # "one" is rarely a number; the others may stand as digits.
            if folded == "one" or _NUMBER_WORDS[folded] in known:
                continue
            return False
        if any(c.isupper() or c.isnumeric() for c in word) or not word[0].isalnum():
            parts = [part for part in _JOINTS.split(word) if part]
            if all(part.isalpha() and (part.casefold() in known or part == "s") for part in parts):
                continue
            return False
    return True


def _known(passage: str) -> set[str]:
    known = set()
    for word in _NAME.findall(passage):
        known.add(word.casefold())
        # Parts of a name stand for themselves, parts of a number do not.
        known.update(part.casefold() for part in _JOINTS.split(word) if part.isalpha())
    return known


def grounded_only(reading: Reading, passages: Sequence[str]) -> Reading:
    """Keeps the sentences that a passage they cite grounds, with only those citations."""
    kept = []
    for sentence in reading.sentences:
        backing = tuple(
            at for at in sentence.passages if at < len(passages) and grounded(sentence.text, passages[at])
        )
        if backing:
            kept.append(Sentence(sentence.text, backing))
    return Reading(tuple(kept))


# Of the words of a model's sentence that mean something, in the passage that it cites.
_MOST = 0.5

# A sentence must have this share of the question's weight, or nothing is said.
_ENOUGH = 0.45
# What the rest of the passage has in common with the question counts a little.
_AROUND = 0.2


def extract(question: str, passages: Sequence[str]) -> Reading:
    """The sentence of the passages that shares most with the question, rare terms counting more.

    Only passages that have every name, number and code of the question are looked at.
    """
    names = {
        word.casefold() for word in _NAME.findall(question)[1:] if not word.islower() and word[0].isalnum()
    }
    candidates = [
        (at, sentence, _terms(sentence))
        for at, passage in enumerate(passages)
        if names <= _known(passage)
        for sentence in _sentences(" ".join(passage.split()))
        if len(sentence) <= MAX_CHARACTERS
    ]
    frequency = Counter(term for _, _, terms in candidates for term in terms)
    weights = {
        term: math.log(1 + (len(candidates) + 1) / (frequency[term] + 0.5)) for term in _terms(question)
    }
    total = sum(weights.values())
    best, answer = 0.0, Reading()
    whole = [_terms(passage) for passage in passages]
    for at, sentence, terms in candidates:
        own = sum(weights[term] for term in sorted(terms & weights.keys()))
        near = sum(weights[term] for term in sorted(whole[at] & weights.keys() - terms))
        score = own + _AROUND * near
        if own >= _ENOUGH * total and score > best:
            best, answer = score, Reading((Sentence(sentence, (at,)),))
    return answer


def _terms(text: str) -> set[str]:
    """Words that carry meaning, without their commonest endings."""
    found = set()
    for word in re.findall(r"[^\W_]+", text.casefold()):
        if word in _ASKING or len(word) == 1:
            continue
        for ending in ("ing", "ed", "es", "s"):
            if word.endswith(ending) and len(word) > len(ending) + 3:
                word = word[: -len(ending)]
                break
        word = word.removesuffix("e") if len(word) > 4 else word
        found.add(word[:-1] + "i" if word.endswith("y") else word)
    return found
