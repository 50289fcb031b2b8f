"""Showing what a question found and what became of every node that holds the collection.

Nothing partial is shown as whole: whoever did not answer has a row, with the reason and the policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from control.cli.output import table
from mesh.core.errors import MeshError, Reason
from mesh.core.retrieval import AnswerSentence, Coverage, Hit, Outcome, Reference

_SHOWN_CHARS = 100
_OUTCOMES = {
    Outcome.ANSWERED: ("answered", "green"),
    Outcome.NOT_ASKED: ("not asked", "yellow"),
    Outcome.FAILED: ("failed", "red"),
}


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit for programs; fields above its level are not there."""
    released = hit.released
    shown = {
        "rank": hit.rank,
        "score": hit.score,
        "node": str(hit.reference.node),
        "reference": str(hit.reference),
        "level": released.level.word,
    }
    more = {
        "title": released.title,
        "text": released.text,
        "document": released.document,
        "source": released.source,
    }
    return shown | {name: value for name, value in more.items() if value}


def hits_table(hits: Sequence[Hit]) -> RenderableType:
    """Hits for people, one row each; texts are cut."""
    if not hits:
        return "nothing found"
    rows = [
        (
            str(hit.rank),
            f"{hit.score:.4f}",
            _name(hit.reference),
            hit.released.level.word,
            _said(hit),
        )
        for hit in hits
    ]
    return table(("RANK", "SCORE", "NODE", "LEVEL", "TITLE, TEXT"), rows)


def coverage_json(node: Coverage) -> dict[str, Any]:
    """What became of a node, for programs."""
    return {
        "node": str(node.node),
        "location": node.location,
        "outcome": node.outcome,
        "reason": node.reason.code if node.reason else None,
        "detail": node.detail,
        "policies": list(node.policies),
        "latency_ms": round(node.latency_ms, 3),
        "counted": node.counted,
        "counted_inexact": node.counted_inexact,
        "highest": node.highest.word,
        "approximate": node.approximate,
        "charged": node.charged,
    }


def coverage_text(coverage: Sequence[Coverage], complete: bool) -> list[RenderableType]:
    """What became of every node, for people."""
    if not coverage:
        return ["no node holds documents of this collection"]
    rows: list[list[RenderableType]] = []
    for node in coverage:
        word, style = _OUTCOMES[node.outcome]
        name = f"{node.node.name} ({node.node.trust_domain.split('.', 1)[0]})"
        rows.append([name, node.location, Text(word, style=style), _what(node)])
    answered = sum(node.outcome is Outcome.ANSWERED for node in coverage)
    whole = "complete" if complete else "not complete"
    summary = f"{whole}: {answered} of {len(coverage)} nodes answered"
    return [table(("NODE", "IN", "OUTCOME", "WHY"), rows), summary]


def nobody_answered(coverage: Sequence[Coverage]) -> MeshError | None:
    """The error that a question without any answer ends with; None if some node answered.

    A refusal by policies (exit code 3) only if nothing but policies kept every node from answering.
    """
    if any(node.outcome is Outcome.ANSWERED for node in coverage):
        return None
    if not coverage:
        return MeshError(Reason.NO_NODE_AVAILABLE, "no node holds documents of this collection")
    said = "; ".join(f"{node.node.name}: {node.reason.code}" for node in coverage[:4] if node.reason)
    if all(node.reason is not None and node.reason.is_policy for node in coverage):
        return MeshError(Reason.NOT_PERMITTED, f"no node may be asked: {said}")
    return MeshError(Reason.NO_NODE_AVAILABLE, f"no node answered: {said}")


def citations(sentences: Sequence[AnswerSentence]) -> dict[Reference, int]:
    """Numbers for references, from 1, in the order in which sentences cite them."""
    numbers: dict[Reference, int] = {}
    for sentence in sentences:
        for reference in sentence.references:
            numbers.setdefault(reference, len(numbers) + 1)
    return numbers


def cited(sentence: AnswerSentence, numbers: dict[Reference, int]) -> str:
    """The sentence with the numbers of its citations; new references get the next ones. One that a passage
    says word for word is in quotation marks."""
    for reference in sentence.references:
        numbers.setdefault(reference, len(numbers) + 1)
    marks = "".join(f"[{numbers[reference]}]" for reference in sentence.references)
    text = f"“{sentence.text}”" if sentence.extracted else sentence.text
    return f"{text} {marks}"


def _name(reference: Reference) -> str:
    return f"{reference.node.name} ({reference.node.trust_domain.split('.', 1)[0]})"


def _said(hit: Hit) -> str:
    released = hit.released
    line = " ".join(": ".join(part for part in (released.title, released.text) if part).split())
    if not line:
        return str(hit.reference)
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


def _what(node: Coverage) -> str:
    if node.outcome is not Outcome.ANSWERED:
        by = f" [{', '.join(node.policies)}]" if node.policies else ""
        return f"{node.reason.code if node.reason else ''}: {node.detail}{by}"
    parts = [f"{node.latency_ms:.0f} ms", f"releases up to {node.highest.word}"]
    if node.counted or node.counted_inexact:
        about = "at least " if node.counted_inexact else ""
        parts.append(f"{about}{node.counted} more that it may only count")
    if node.approximate:
        parts.append("approximate index")
    if node.charged:
        parts.append(f"{node.charged} charged")
    return ", ".join(parts)
