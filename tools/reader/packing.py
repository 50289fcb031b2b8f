"""Samples as tensors: the passages once, and behind them every question with its answer.

Each question sees the passages and itself, at the positions it would have if it were the only one. So what
is trained is exactly what the chat template renders for one question, at a fraction of the tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from node.retrieval.reading import reading_messages
from tools.reader.corpus import Question, Sample

BEGIN, END, SYSTEM, USER, ASSISTANT = range(5)
SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

# The system message is left out: this model knows its task, and the tokens are dear to it.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] != 'system' %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] != 'assistant' or not loop.last or add_generation_prompt %}<|end|>{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(slots=True)
class Row:
    """One packed sample: tokens, positions, which branch each is in (0: passages), and loss weights."""

    ids: list[int]
    positions: list[int]
    branches: list[int]
    weights: list[float]


def parts(question: Question, passages: Sequence[str]) -> tuple[str, str]:
    """The user's message up to its question, and from there on."""
    content = reading_messages(question.text, passages)[-1].content
    at = content.rindex("Question: ")
    return content[:at], content[at:]


def row(tokenizer: Tokenizer, sample: Sample, rest: float) -> Row:
    """Packs a sample; tokens that are no answer have the loss weight `rest`."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    head = [BEGIN, USER, *encode(parts(sample.questions[0], sample.passages)[0])]
    packed = Row(head, list(range(len(head))), [0] * len(head), [rest] * len(head))
    for branch, question in enumerate(sample.questions, 1):
        asked = [*encode(parts(question, sample.passages)[1]), END, ASSISTANT]
        answer = [*encode(question.answer), END]
        packed.ids += asked + answer
        packed.positions += range(len(head), len(head) + len(asked) + len(answer))
        packed.branches += [branch] * (len(asked) + len(answer))
        packed.weights += [rest] * len(asked) + [1.0] * len(answer)
    return packed


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
    return Row(ids, list(range(tokens)), [0] * tokens, weights)


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


WIDTH_STEP = 128
PREDICTIONS_STEP = 512


def width_of(row: Row) -> int:
    """How wide a row is in a batch: few widths, since each new shape costs a CPU seconds."""
    return len(row.ids) + -len(row.ids) % WIDTH_STEP


def batch(rows: Sequence[Row], steady: bool = False) -> Batch:
    """Pads and stacks rows; `steady` pads the predictions too, with some of weight zero."""
    width = max(width_of(one) for one in rows)

    def stack(values: Sequence[Sequence[float]], fill: float, kind: torch.dtype) -> torch.Tensor:
        return torch.tensor([[*one, *[fill] * (width - len(one))] for one in values], dtype=kind)

    ids = stack([one.ids for one in rows], END, torch.long)
    positions = stack([one.positions for one in rows], 0, torch.long)
    branches = stack([one.branches for one in rows], -1, torch.long)
    weights = stack([one.weights for one in rows], 0.0, torch.float32)
    same = branches[:, :, None] == branches[:, None, :]
    shared = (branches == 0)[:, None, :]
    allowed = (same | shared) & torch.ones(width, width, dtype=torch.bool).tril()
    visible = torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))[:, None]
    # A token predicts its neighbour, unless that begins another branch.
    next_weights = torch.where(branches[:, 1:] == branches[:, :-1], weights[:, 1:], 0.0)
    flat = functional_pad(next_weights)
    at = flat.flatten().nonzero()[:, 0]
    if steady:
        at = torch.cat((at, torch.full((-len(at) % PREDICTIONS_STEP,), flat.numel() - 1)))
    targets = torch.roll(ids, -1, 1).flatten()[at]
    return Batch(ids, positions, visible, at, targets, flat.flatten()[at], sum(len(one.ids) for one in rows))


def functional_pad(values: torch.Tensor) -> torch.Tensor:
    """Appends a column of zeros: the last token predicts nothing."""
    return torch.cat((values, torch.zeros(values.shape[0], 1)), 1)
