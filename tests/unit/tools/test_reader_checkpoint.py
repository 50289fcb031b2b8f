"""A committed reader: complete, small, the one its README speaks of, and able to read."""

import hashlib
import json

import pytest
from tokenizers import Tokenizer

from node.retrieval.reading import reading_messages
from tools.reader.checkpoint import config
from tools.reader.evaluate import FOLDER, Model, evaluate
from tools.reader.model import Size
from tools.reader.packing import ASSISTANT, BEGIN, CHAT_TEMPLATE, END, SPECIAL, USER, prompt

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no checkpoint reads well enough to be kept")

FLOOR = 0.9
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_the_folder_is_complete_and_small() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000


def test_the_readme_names_these_very_files() -> None:
    readme = (FOLDER / "README.md").read_text()
    for name in ("model.safetensors", "tokenizer.json"):
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() in readme


def test_the_configuration_is_that_of_the_training_code() -> None:
    assert json.loads((FOLDER / "config.json").read_text()) == config(Size())
    assert json.loads((FOLDER / "tokenizer_config.json").read_text())["chat_template"] == CHAT_TEMPLATE


def test_every_digit_is_a_token() -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    assert len(tokenizer.encode("4417").ids) == 4
    assert (
        tokenizer.decode(tokenizer.encode("Zürich pays 1,250 € on 3 May.").ids)
        == "Zürich pays 1,250 € on 3 May."
    )


@pytest.mark.slow
def test_the_template_renders_what_training_renders() -> None:
    model = Model(FOLDER)
    messages = reading_messages("Who leads it?", ["One leads it.", "Two does not."])
    ids = model.tokenizer.apply_chat_template(
        [{"role": one.role, "content": one.content} for one in messages],
        add_generation_prompt=True,
        return_dict=False,
    )
    encode = Tokenizer.from_file(str(FOLDER / "tokenizer.json")).encode
    text = encode(prompt("Who leads it?", ["One leads it.", "Two does not."])).ids
    assert ids == [BEGIN, USER, *text, END, ASSISTANT]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["names", "numbers", "templates"])
def test_it_reads_what_training_never_saw(split: str) -> None:
    figures = evaluate(Model(FOLDER), split, 60)
    assert figures["exact"] >= FLOOR
