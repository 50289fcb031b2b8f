"""The demo's documents: well formed, and answering the questions that are asked of them."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from node.retrieval.reading import Reading, extract

CORPUS = Path(__file__).parents[3] / "demo" / "corpus"
CLASSES = {"public", "internal", "confidential", "personal", "special-category"}


def documents() -> dict[str, tuple[dict[str, Any], list[str]]]:
    found = {}
    for path in sorted(CORPUS.glob("*/*.md")):
        _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
        meta = yaml.safe_load(head)
        assert meta["id"] == f"{path.parent.name}-{path.stem}"
        found[meta["id"]] = meta, body.strip().split("\n\n")[1:]
    return found


def test_documents_say_what_they_are() -> None:
    for meta, paragraphs in documents().values():
        assert {"id", "title", "classes", "owner", "language"} <= meta.keys()
        assert meta.keys() <= {"id", "title", "classes", "owner", "language", "retain_until", "tenant"}
        assert set(meta["classes"]) <= CLASSES
        assert isinstance(meta.get("retain_until", date.max), date)
        assert 3 <= len(paragraphs) <= 6
        assert all(20 <= len(paragraph.split()) <= 60 for paragraph in paragraphs)


def test_every_folder_has_every_class() -> None:
    for folder in ("de", "fr", "us"):
        classes = [meta["classes"] for key, (meta, _) in documents().items() if key.startswith(folder)]
        assert set().union(*classes) == CLASSES
        assert 10 <= len(classes) <= 14


def test_questions_are_answered_by_their_documents_alone() -> None:
    texts = {key: paragraphs for key, (_, paragraphs) in documents().items()}
    for entry in yaml.safe_load((CORPUS / "questions.yaml").read_text())["questions"]:
        for key, fact in entry["answers"].items():
            sentences = extract(entry["question"], texts[key]).sentences
            assert [bool(re.search(rf"\b{re.escape(fact)}\b", one.text)) for one in sentences] == [True]
        if not entry["answers"]:
            assert all(extract(entry["question"], paragraphs) == Reading() for paragraphs in texts.values())
