"""What can be said about a thing, and how: statements, and questions that ask for them (facts.yaml).

Templates come in pairs: those of training, and those that are held out, which training never sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Pair = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One thing that can be said of things of some kinds."""

    name: str
    kinds: tuple[str, ...]
    value: str
    nouns: tuple[str, ...]
    statements: Pair
    questions: Pair


def _pair(table: dict[str, Any], key: str) -> Pair:
    return tuple(table[key]), tuple(table[f"held_out_{key}"])


_TABLE = yaml.safe_load(Path(__file__).with_name("facts.yaml").read_text(encoding="utf-8"))

# Fit every attribute that can be named by a noun.
GENERAL_STATEMENTS = _pair(_TABLE["general"], "statements")
GENERAL_QUESTIONS = _pair(_TABLE["general"], "questions")
ATTRIBUTES = tuple(
    Attribute(
        one["nouns"][0],
        tuple(one["kinds"]),
        one["value"],
        tuple(one["nouns"]),
        _pair(one, "statements"),
        _pair(one, "questions"),
    )
    for one in _TABLE["attributes"]
)
