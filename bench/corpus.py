"""Real text for load: the machine's own documentation, cut into chunks; the same every time.

Manual pages, what packages put into /usr/share/doc, and the docstrings of Python's standard library. A
machine with too little of it gets more by shuffling the sentences that it has; `Corpus.repeated` says
how many chunks are of that kind. Chunks are of up to 100 words, which is what real passages of prose come
to; no two are equal.

Made once for each state of those files and kept in .bench/retrieval/.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".bench" / "retrieval"
_MANUALS, _DOCUMENTS = Path("/usr/share/man"), Path("/usr/share/doc")
_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
_LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_PROSE = {".txt", ".md", ".rst", ".gz", ""}
_MAX_FILE = 400_000
_WORDS, _FEWEST = 100, 30

_MACRO = re.compile(r"^[.'].*$", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:f(?:\[[^\]]*\]|\(..|.)|s[+-]?\d+|\([a-z]{2}|\*\(..|[&%/,|^])")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n\s*\n")
_VERSION = 1


@dataclass(frozen=True)
class Corpus:
    """`texts`, in order; `repeated`: so many of the last are shuffled sentences of the others."""

    texts: list[str]
    repeated: int

    @property
    def key(self) -> str:
        """Of exactly these texts."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()[:16]


def corpus(count: int) -> Corpus:
    """So many chunks of what this machine has."""
    sources = list(_sources())
    listing = "\n".join(f"{path} {path.stat().st_size}" for path in sources)
    key = hashlib.sha256(f"{_VERSION} {count} {listing}".encode()).hexdigest()[:16]
    kept = FOLDER / f"corpus-{key}.json"
    if kept.exists():
        return Corpus(**json.loads(kept.read_text()))
    texts: dict[str, None] = {}
    for path in sources:
        for text in _chunks(_sentences(_read(path))):
            texts[text] = None
        if len(texts) >= count:
            break
    real = list(texts)[:count]
    sentences = [each for text in real for each in _sentences(text)] if len(real) < count else []
    shuffled = random.Random(1)
    while len(texts) < count:
        shuffled.shuffle(sentences)
        texts.update(dict.fromkeys(_chunks(iter(sentences))))
    made = Corpus(list(texts)[:count], count - len(real))
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"texts": made.texts, "repeated": made.repeated}))
    return made


def questions(texts: list[str], count: int) -> list[str]:
    """What somebody might ask: 5 to 9 words in a row out of one of the texts."""
    chance = random.Random(2)
    asked = []
    for text in chance.sample(texts, count):
        words = text.split()
        size = chance.randint(5, 9)
        start = chance.randrange(len(words) - size)
        asked.append(" ".join(words[start : start + size]))
    return asked


def _sources() -> Iterator[Path]:
    """Prose first the machine's own, then Python's; in an order that depends on names alone."""
    pages = sorted(_MANUALS.glob("man[1-9]/*"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    yield from (path for path in pages if _usable(path))
    for folder, names, files in os.walk(_LIBRARY):
        names[:] = sorted(set(names) - _LEFT_OUT)
        yield from (
            path for name in sorted(files) if _usable(path := Path(folder, name)) and name.endswith(".py")
        )
    for folder, names, files in os.walk(_DOCUMENTS):
        names.sort()
        found = (Path(folder, name) for name in sorted(files))
        yield from (
            path for path in found if path.suffix in _PROSE and "copyright" not in path.name and _usable(path)
        )


def _usable(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_FILE


def _read(path: Path) -> str:
    """Its prose; nothing of a file that is not what its name says."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return ""
    if path.suffix == ".py":
        return _docstrings(text)
    if path.is_relative_to(_MANUALS):
        return _ESCAPE.sub("", _MACRO.sub("", text)).replace("\\-", "-").replace("\\", "")
    return text


def _docstrings(source: str) -> str:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return "\n\n".join(text for text in found if text)


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(text):
        words = sentence.split()
        for start in range(0, len(words), _WORDS):
            yield " ".join(words[start : start + _WORDS])


def _chunks(sentences: Iterator[str]) -> Iterator[str]:
    """Whole sentences, as many as fit; what is left over at the end is too short to be one."""
    gathered: list[str] = []
    size = 0
    for sentence in sentences:
        words = sentence.count(" ") + 1
        if size + words > _WORDS and size >= _FEWEST:
            yield " ".join(gathered)
            gathered, size = [], 0
        if sentence:
            gathered.append(sentence)
            size += words
    if size >= _FEWEST:
        yield " ".join(gathered)
