"""Exact match under teacher forcing, which for greedy output is exact match.

An answer is exact if every token of it is the likeliest after those before it: then greedy decoding writes
precisely this answer, and otherwise it does not. So one pass per sample scores all of its questions.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from tools.reader.corpus import Generator, Shape
from tools.reader.model import Reader
from tools.reader.packing import batch, row
from tools.reader.words import Halves

SPLITS = {
    "seen": Halves(),
    "names": Halves(names=True),
    "numbers": Halves(numbers=True),
    "templates": Halves(templates=True),
    "all": Halves(names=True, numbers=True, templates=True),
}
SHAPE = Shape((1, 2, 3, 3), (15, 60), 8)


@torch.no_grad()
def exact_match(
    model: Reader, tokenizer: Tokenizer, split: str, samples: int, shape: Shape = SHAPE, seed: int = 0
) -> dict[str, float]:
    """Shares of exact answers: all, the answerable ones, the unanswerable ones; and their number."""
    generator = Generator(f"evaluate-{split}-{seed}", SPLITS[split])
    counts = {True: [0, 0], False: [0, 0]}
    for _ in range(samples):
        sample = generator.sample(shape)
        rows = [row(tokenizer, sample.passages, question) for question in sample.questions]
        data = batch(rows)
        logits = model(data.ids, data.positions, data.visible, data.at)
        right = logits.argmax(-1) == data.targets
        of_row = data.at // data.ids.shape[1]
        for number, question in enumerate(sample.questions):
            exact = bool(right[of_row == number].all())
            tally = counts[question.passage is not None]
            tally[0] += exact
            tally[1] += 1
    answered, silent = counts[True], counts[False]
    total = answered[1] + silent[1]
    return {
        "exact": round((answered[0] + silent[0]) / total, 4),
        "answerable": round(answered[0] / max(1, answered[1]), 4),
        "unanswerable": round(silent[0] / max(1, silent[1]), 4),
        "questions": total,
    }
