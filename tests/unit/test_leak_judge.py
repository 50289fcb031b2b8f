"""The leak test's own instruments: a secret is found in whatever form it is in, and nothing else is."""

import base64
import json
import random
import struct
import zlib

import numpy as np
import pytest

from tests.support.leaks.judge import Judge
from tests.support.leaks.patterns import Strings, Vectors, views
from tests.support.leaks.rules import (
    CLASSES,
    COUNT,
    COUNTRIES,
    NOTHING,
    PASSAGE,
    REFERENCE,
    SNIPPET,
    Asked,
    level_of,
    starting_rules,
    withdrawn,
)
from tests.support.leaks.world import DIMENSIONS, make_documents

VECTORS = [
    (row / np.linalg.norm(row)).tolist() for row in np.random.default_rng(1).standard_normal((40, DIMENSIONS))
]
CHOSEN = VECTORS[7]


def _packed(form: str, values: list[float]) -> bytes:
    return struct.pack(f"{form[0]}{len(values)}{form[1]}", *values)


def _scaled(low: int, high: int) -> bytes:
    least, most = min(CHOSEN), max(CHOSEN)
    return bytes(round(low + (x - least) / (most - least) * (high - low)) % 256 for x in CHOSEN)


NUMBERS = {
    "float32": _packed("<f", CHOSEN),
    "float64": _packed("<d", CHOSEN),
    "float16": _packed("<e", CHOSEN),
    "the other byte order": _packed(">f", CHOSEN),
    "eight components": _packed("<f", CHOSEN[20:28]),
    "eight components, float64": _packed(">d", CHOSEN[-8:]),
    "with noise": _packed("<f", [x + random.Random(at).gauss(0, 0.005) for at, x in enumerate(CHOSEN)]),
    "scaled": _packed("<f", [x * -3 for x in CHOSEN]),
    "signed bytes": _scaled(-127, 127),
    "unsigned bytes": _scaled(0, 255),
}


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    made = Vectors(DIMENSIONS)
    for at, vector in enumerate(VECTORS):
        made.add(vector, at)
    return made


@pytest.mark.parametrize("form", NUMBERS)
@pytest.mark.parametrize("before", [b"", b"a", b"\x01\x02", b"abc", b"seventeen bytes.."])
def test_a_vector_is_found_in_any_form_and_place(vectors: Vectors, form: str, before: bytes) -> None:
    data = before + NUMBERS[form] + b"and more"
    assert vectors.find(data) == {7}
    assert vectors.find(b"x=" + base64.b64encode(data) + b"; ") == {7}
    assert vectors.find(b"x=" + base64.urlsafe_b64encode(data) + b"; ") == {7}
    assert vectors.find(b"x=" + data.hex().encode() + b"; ") == {7}
    assert vectors.find(b"\x00\x01" + zlib.compress(data)) == {7}


def test_a_vector_is_found_as_text_and_as_signs(vectors: Vectors) -> None:
    for digits in (2, 3, 17):
        text = json.dumps({"said": [round(x, digits) for x in CHOSEN]})
        assert vectors.find(text.encode()) == {7}
    assert vectors.find(b"abc" + np.packbits(np.array(CHOSEN) > 0).tobytes() + b"defg") == {7}


def test_no_vector_is_found_where_there_is_none(vectors: Vectors) -> None:
    chance = random.Random(2)
    for _ in range(8):
        assert not vectors.find(chance.randbytes(1500))
        scores = sorted((chance.random() for _ in range(100)), reverse=True)
        assert not vectors.find(_packed("<d", scores))


def test_a_string_is_found_in_any_encoding() -> None:
    strings = Strings()
    strings.add(b"babadobarork", "word")
    word = "babadobarork"
    for data in (
        word.encode(),
        f"the {word}s of".encode(),
        word.encode("utf-16-le"),
        b"k=" + word.encode().hex().encode(),
        *(base64.b64encode(b"a" * pad + word.encode() + b" and so on") for pad in range(4)),
        zlib.compress(word.encode() * 2),
    ):
        assert any(strings.find(view.lower()) for view in views(data)), data
    assert not strings.find(b"babadobaro rk")


def test_every_level_occurs_for_every_asker() -> None:
    epoch = {country: (rules,) for country, rules in starting_rules().items()}
    documents = make_documents(1)
    for asker in COUNTRIES:
        levels = {
            level_of(epoch, Asked(asker, tenant), d.holder, d.classes, d.tenant)
            for d in documents
            for tenant in ("alder", "cedar")
        }
        assert levels == {NOTHING, COUNT, REFERENCE, SNIPPET, PASSAGE}
        home = [d for d in documents if d.holder == asker and d.tenant == "alder"]
        assert any(level_of(epoch, Asked(asker, "alder"), d.holder, d.classes, d.tenant) for d in home)
        for other in ("birch", "cedar"):
            asked = Asked(asker, other)
            assert not any(level_of(epoch, asked, d.holder, d.classes, d.tenant) for d in home)
    after = {**epoch, "DE": (withdrawn(epoch["DE"][0], "FR"),)}
    assert max(level_of(after, Asked("FR", ""), "DE", (kind,), "") for kind in CLASSES) == COUNT


def test_crash_output_is_read_for_everything() -> None:
    documents = make_documents(1)
    epochs = [{country: (rules,) for country, rules in starting_rules().items()}]
    judge = Judge(documents, epochs, DIMENSIONS)
    judge.chunk(documents[0], 0, bytes(range(16)), CHOSEN)
    judge.question("fegikulompmp", Asked("DE", "alder"), VECTORS[8])
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: {}\n'
    for text, what in (
        (documents[0].title, "title"),
        (documents[0].id.upper(), "id"),
        (" ".join(documents[0].texts[0].split()[:8]), "eight words"),
        (bytes(range(16)).hex(), "chunk id"),
        (str(CHOSEN), "vector"),
        ("what is fegikulompmp?", "question"),
    ):
        assert what in {found.what for found in judge.text("stderr", trace.format(text).encode())}
    assert not judge.text("stderr", trace.format("pump valve river").encode())
