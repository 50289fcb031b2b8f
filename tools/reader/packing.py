"""Questions as tensors, exactly as the chat template renders them, several side by side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer

from node.retrieval.reading import reading_messages
from tools.reader.corpus import Question
from tools.reader.model import Pointers

BEGIN, END, SYSTEM, USER, ASSISTANT = range(5)
# Every sentence of the passages begins with a token of its own, past so many they come again, and ends with
# one that is the same for all: what tells the ends apart is then what was said before them.
MARKS = 40
_ROLES = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
_STOP = "<|stop|>"
_OPEN = tuple(f"<|s{number}|>" for number in range(MARKS))
_TITLES = ("Dr", "Mr", "Ms")  # no sentence ends there
SPECIAL = (*_ROLES, _STOP, *_OPEN)

# The system message is left out: this model knows its task, and the tokens are dear to it. The question is
# put before the passages: a token of theirs sees only what is before it, and so can tell what is asked for.
# Sentences are marked, with their passage's number inside: which one answers can then be said by one token,
# and what follows is copied. Nobody sees the marks: they are special tokens, which decoding leaves out.
CHAT_TEMPLATE = (
    (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] != 'system' %}"
        "<|{{ message['role'] }}|>"
        "{% if '\\nQuestion: ' in message['content'] %}"
        "{% set pieces = message['content'].split('\\nQuestion: ') %}"
        "Question: {{ pieces[-1] }}\\n"
        "{% set state = namespace(count=0, title=false) %}"
        "{% for line in (pieces[:-1] | join('\\n')).split('\\n') %}"
        "{% set number = line.split(' ')[0] %}"
        "{% for part in line[number | length + 1:].split('. ') %}"
        "{% if not state.title %}<|s{{ state.count % MARKS }}|>{% endif %} {{ part }}"
        "{% set state.title = not loop.last and part[-2:] in ['Dr', 'Mr', 'Ms'] %}"
        "{% if not loop.last %}.{% endif %}"
        "{% if not state.title %} {{ number }}<|stop|>"
        "{% set state.count = state.count + 1 %}{% endif %}"
        "{% endfor %}{% endfor %}"
        "{% else %}{{ message['content'] }}{% endif %}<|end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    .replace("\\n", "\n")
    .replace("MARKS", str(MARKS))
)


# Which sentence it is, if any, is decided at its first token; the others mostly follow from it.
FIRST_WEIGHT = 4.0


@dataclass(slots=True)
class Row:
    """Tokens with their weights in the loss, and who should look where."""

    ids: list[int]
    weights: list[float]
    starts: list[tuple[int, int]] = field(default_factory=list)  # (end of a sentence, its start)
    choices: list[tuple[int, int]] = field(default_factory=list)  # (who answers, end of the sentence)


def prompt(question: str, passages: Sequence[str], first: int = 0) -> str:
    """What the template makes of the user's message; marks count from `first`."""
    before, _, asked = reading_messages(question, passages)[-1].content.rpartition("\nQuestion: ")
    marked: list[str] = []
    title, mark = False, first
    for line in before.split("\n"):
        number, _, text = line.partition(" ")
        parts = text.split(". ")
        for at, part in enumerate(parts):
            last = at == len(parts) - 1
            marked.append(f"{'' if title else _OPEN[mark % MARKS]} {part}{'' if last else '.'}")
            title = not last and part[-2:] in _TITLES
            if not title:
                marked.append(f" {number}{_STOP}")
                mark += 1
    return f"Question: {asked}\n" + "".join(marked)


def row(tokenizer: Tokenizer, passages: Sequence[str], question: Question, first: int = 0) -> Row:
    """One question with its answer."""
    text = prompt(question.text, passages, first)
    asked = [BEGIN, USER, *tokenizer.encode(text, add_special_tokens=False).ids, END, ASSISTANT]
    stop = tokenizer.token_to_id(_STOP)
    opens = set(map(tokenizer.token_to_id, _OPEN))
    starts: list[tuple[int, int]] = []
    begun = 0
    for at, token in enumerate(asked):
        if token in opens:
            begun = at
        elif token == stop:
            starts.append((at, begun))
    said, said_at = question.answer, 0  # whoever finds nothing looks at the very first token
    if question.passage is not None:
        # With a space, so that its first word is the same token as in the passage.
        before = text.partition(f" {question.answer}")[0]
        said = f"{before[before.rindex('<|') :]} {question.answer}"
        said_at = asked.index(stop, asked.index(tokenizer.token_to_id(said.partition(" ")[0])))
    answer = [*tokenizer.encode(said, add_special_tokens=False).ids, END]
    weights = [0.0] * len(asked) + [FIRST_WEIGHT] + [1.0] * (len(answer) - 1)
    return Row(asked + answer, weights, starts, [(len(asked) - 1, said_at)])


def repeats(rng: random.Random, vocabulary: int, tokens: int) -> Row:
    """Random spans that come again: what teaches copying fastest."""
    ids = [BEGIN]
    weights = [0.0]
    while len(ids) < tokens:
        if len(ids) > 20 and rng.random() < 0.6:
            start = rng.randrange(1, len(ids) - 10)
            span = ids[start : start + rng.randrange(6, 30)]
            weights += [0.0, 0.0, *[1.0] * (len(span) - 2)]
        else:
            span = [rng.randrange(len(SPECIAL), vocabulary) for _ in range(rng.randrange(6, 40))]
            weights += [0.0] * len(span)
        ids += span
    ids, weights = ids[:tokens], weights[:tokens]
    return Row(ids, weights)


@dataclass(slots=True)
class Batch:
    """Rows side by side: inputs, what is visible (additive), and the weighted targets."""

    ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor
    at: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    tokens: int
    starts: Pointers
    choices: Pointers


WIDTH_STEP = 32
PREDICTIONS_STEP = 256


def width_of(row: Row) -> int:
    """How wide a row is in a batch: few widths, since each new shape costs a CPU seconds."""
    return len(row.ids) + -len(row.ids) % WIDTH_STEP


def batch(rows: Sequence[Row], steady: bool = False) -> Batch:
    """Pads and stacks rows; `steady` pads the predictions too, with some of weight zero."""
    width = max(width_of(one) for one in rows)

    def stack(values: Sequence[Sequence[float]], fill: float, kind: torch.dtype) -> torch.Tensor:
        return torch.tensor([[*one, *[fill] * (width - len(one))] for one in values], dtype=kind)

    ids = stack([one.ids for one in rows], END, torch.long)
    positions = torch.arange(width)[None].expand(len(rows), -1)
    weights = stack([one.weights for one in rows], 0.0, torch.float32)
    allowed = torch.ones(width, width, dtype=torch.bool).tril()
    visible = torch.zeros(width, width).masked_fill_(~allowed, float("-inf")).expand(len(rows), 1, -1, -1)
    flat = torch.cat((weights[:, 1:], torch.zeros(len(rows), 1)), 1)
    at = flat.flatten().nonzero()[:, 0]
    if steady:
        at = torch.cat((at, torch.full((-len(at) % PREDICTIONS_STEP,), flat.numel() - 1)))
    targets = torch.roll(ids, -1, 1).flatten()[at]
    tokens = sum(len(one.ids) for one in rows)
    starts = _pointers([one.starts for one in rows])
    choices = _pointers([one.choices for one in rows])
    return Batch(ids, positions, visible, at, targets, flat.flatten()[at], tokens, starts, choices)


def _pointers(rows: Sequence[Sequence[tuple[int, int]]]) -> Pointers:
    flat = [(number, asking, target) for number, row in enumerate(rows) for asking, target in row]
    columns = torch.tensor(flat, dtype=torch.long).view(-1, 3)
    return Pointers(columns[:, 0], columns[:, 1], columns[:, 2])
