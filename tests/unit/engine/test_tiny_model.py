"""The tiny model: the same bytes every time, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.engine import tiny_model
from node.engine.model_files import folder_digest

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("tiny") / "model")


def test_is_the_same_in_another_process(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    environment = os.environ | {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "node.engine.tiny_model", other], check=True, env=environment)
    assert folder_digest(other, tmp_path / "a") == folder_digest(model, tmp_path / "b")


def test_the_weights_are_the_same_everywhere(model: Path) -> None:
    """They come from integer arithmetic; only the tokenizer follows the Python that carries the text."""
    content = (model / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    start, end = header["model.layers.0.self_attn.q_proj.weight"]["data_offsets"]
    weights = content[8 + size :][start:end]
    assert hashlib.sha256(weights).hexdigest()[:16] == "a15a25347d997d95"
    parameters = sum(
        (end - start) // 2
        for name, entry in header.items()
        if name != "__metadata__"
        for start, end in [entry["data_offsets"]]
    )
    assert 3_000_000 < parameters < 4_000_000


def test_is_kept_when_complete_and_replaced_when_not(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    tiny_model.build(folder)
    assert folder_digest(folder, tmp_path / "a") == folder_digest(model, tmp_path / "b")
    touched = (folder / "README.md").stat().st_mtime_ns
    tiny_model.build(folder)
    assert (folder / "README.md").stat().st_mtime_ns == touched
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_says_that_it_speaks_nonsense(model: Path) -> None:
    assert "nonsense" in (model / "README.md").read_text()


def test_words_form_one_path_without_repetition(model: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = tiny_model._text()
    words = tiny_model._words(tokenizer, text)
    following = tiny_model._path([tokenizer.encode(part).ids for part in text], words)
    seen, token = set(), words[0]
    while token not in seen:
        seen.add(token)
        token = following[token]
    assert seen == set(words)
    assert {following[token] for token in range(tiny_model.VOCABULARY)} <= set(words)
