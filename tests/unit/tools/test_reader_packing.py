"""What the reader is trained on is what a node sends it, with every sentence marked."""

from __future__ import annotations

import re

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from node.retrieval.reading import reading_messages
from tools.reader.corpus import Generator, Shape
from tools.reader.packing import CHAT_TEMPLATE, MARKS, SPECIAL, prompt


def rendered(question: str, passages: tuple[str, ...]) -> str:
    """By the chat template, as transformers and vLLM render it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": one.role, "content": one.content} for one in reading_messages(question, passages)]
    return environment.from_string(CHAT_TEMPLATE).render(
        messages=messages, bos_token="<|begin|>", add_generation_prompt=True
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_template_says_what_training_saw(seed: int) -> None:
    sample = Generator(f"packing-{seed}").sample(Shape())
    for question in sample.questions:
        expected = f"<|begin|><|user|>{prompt(question.text, sample.passages)}<|end|><|assistant|>"
        assert rendered(question.text, sample.passages) == expected


def test_each_sentence_stands_between_marks_with_its_passages_number() -> None:
    marked = prompt("Who?", ["Dr. Ada Holm leads it. It is new.", "Nobody does."])
    assert marked == (
        "Question: Who?\n<|s0|> Dr. Ada Holm leads it. [1]<|stop|><|s1|> It is new. [1]<|stop|>"
        "<|s2|> Nobody does. [2]<|stop|>"
    )


def test_past_all_marks_they_come_again() -> None:
    marked = prompt("Who?", [" ".join(f"It is {n}." for n in range(MARKS + 2))])
    marks = re.findall(r"<\|s\d+\|>", marked)
    assert len(marks) == MARKS + 2
    assert marks[MARKS:] == marks[:2] == list(SPECIAL[6:8])
