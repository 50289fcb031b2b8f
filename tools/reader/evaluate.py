"""Measures a reader: `python -m tools.reader.evaluate --sample N` prints JSON.

The whole way is measured: the messages a node sends, the chat template of the checkpoint, greedy
decoding by transformers, the parser and its check of grounding. Each figure is of N questions whose names,
numbers, or templates training never saw; for comparison `extractive` is what `extract` gets right without a
model. `exact` means the right sentence and the right citation, or rightly nothing; `fact` that the asked
value is in the answer and the citation is right, or rightly nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from node.retrieval.reading import Reading, Sentence, extract, grounded_only, parse_reading, reading_messages
from tools.reader.corpus import Generator, Question, Shape
from tools.reader.score import SPLITS

FOLDER = Path(__file__).parents[2] / "models" / "reader"
SHAPE = Shape((1, 2, 3, 3), (15, 60), 4)
LONG = Shape((4, 5), (60, 90), 4)
BATCH = 16


class Model:
    """A checkpoint, asked greedily."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.longest = 0

    @torch.no_grad()
    def outputs(self, asked: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
        """What the model says to each question about its passages."""
        prompts = [
            self.tokenizer.apply_chat_template(
                [{"role": one.role, "content": one.content} for one in reading_messages(question, passages)],
                tokenize=False,
                add_generation_prompt=True,
            )
            for question, passages in asked
        ]
        for start in range(0, len(prompts), BATCH):
            inputs = self.tokenizer(
                prompts[start : start + BATCH], return_tensors="pt", padding=True, add_special_tokens=False
            )
            width = inputs["input_ids"].shape[1]
            self.longest = max(self.longest, width)
            made = self.model.generate(**inputs, max_new_tokens=120, do_sample=False)
            yield from self.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)


def questions(split: str, count: int, shape: Shape) -> list[tuple[Question, tuple[str, ...]]]:
    """So many seeded questions of a split, with their passages."""
    generator = Generator(f"evaluate-{split}", SPLITS[split])
    found: list[tuple[Question, tuple[str, ...]]] = []
    while len(found) < count:
        sample = generator.sample(shape)
        found += [(question, sample.passages) for question in sample.questions]
    return found[:count]


def judge(question: Question, reading: Reading) -> tuple[bool, bool]:
    """(exact, fact)."""
    if question.passage is None:
        right = not reading.sentences
        return right, right
    expected = Sentence(question.answer.rpartition(" [")[0], (question.passage,))
    fact = any(question.fact in one.text and one.passages == expected.passages for one in reading.sentences)
    return reading.sentences == (expected,), fact


def measure(cases: Sequence[tuple[Question, Sequence[str]]], readings: Sequence[Reading]) -> dict[str, float]:
    """Shares of right answers."""
    verdicts = [(q.passage, *judge(q, reading)) for (q, _), reading in zip(cases, readings, strict=True)]

    def share(values: Sequence[bool]) -> float:
        return round(sum(values) / max(1, len(values)), 4)

    return {
        "exact": share([exact for _, exact, _ in verdicts]),
        "fact": share([fact for _, _, fact in verdicts]),
        "exact_answerable": share([exact for at, exact, _ in verdicts if at is not None]),
        "exact_unanswerable": share([exact for at, exact, _ in verdicts if at is None]),
    }


def evaluate(model: Model, split: str, count: int, shape: Shape = SHAPE) -> dict[str, object]:
    """The model's figures on a split, and those of extraction."""
    cases = questions(split, count, shape)
    outputs = model.outputs([(question.text, passages) for question, passages in cases])
    readings = [
        grounded_only(parse_reading(output, len(passages)), passages)
        for output, (_, passages) in zip(outputs, cases, strict=True)
    ]
    extracted = [extract(question.text, passages) for question, passages in cases]
    return {**measure(cases, readings), "extractive": measure(cases, extracted)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.reader.evaluate", description="Measures a reader.")
    parser.add_argument("--model", type=Path, default=FOLDER, help="checkpoint folder")
    parser.add_argument("--sample", type=int, default=200, help="questions of each kind")
    parser.add_argument("--long", action="store_true", help="also prompts of four and five long passages")
    options = parser.parse_args()
    model = Model(options.model)
    result: dict[str, object] = {
        split: evaluate(model, split, options.sample) for split in ("names", "numbers", "templates", "all")
    }
    if options.long:
        result["long"] = evaluate(model, "all", options.sample, LONG)
    result["questions_of_each"] = options.sample
    result["longest_prompt_tokens"] = model.longest
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
