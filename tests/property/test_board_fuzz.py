"""Whatever lies on the board: no bytes end the watch, and only what was signed changes anything (I4, I5)."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.board import Board
from mesh.core.records import ROOT, RecordType
from mesh.identity.signing import open_envelope
from mesh.store.base import Entry
from mesh.store.memory import MemoryStore
from tests.support.boards import DE, FR, Clock, Writer
from tests.support.identities import AuthorityForTests

TYPES = [*RecordType, "", "what", "policy/x"]
KEYS = st.one_of(
    st.builds(
        lambda domain, kind, name: f"{ROOT}{domain}/{kind}" + (f"/{name}" if name else ""),
        st.sampled_from([DE, FR, "", "xx.mesh.example"]),
        st.sampled_from(TYPES),
        st.sampled_from(["", "a", "A", "a/b"]),
    ),
    st.text(max_size=300),
)


_FOLDER = tempfile.TemporaryDirectory(prefix="board-fuzz-")  # removed when the process ends


@cache
def authority() -> Writer:
    return Writer(AuthorityForTests(Path(_FOLDER.name), DE), Clock())


@cache
def genuine() -> tuple[Entry, ...]:
    """Good records of every type, generation 5."""
    de = authority()
    records = [
        de.policy(),
        de.facts("a"),
        de.record("a"),
        de.status("a"),
        de.revocations(de.node("b")),
        de.federation(),
        de.collection("a"),
        de.heads({str(de.policy()[0]): 1}),
    ]
    return tuple(Entry(str(key), de.seal(key, payload, 5), 1) for key, payload in records)


def fresh() -> Board:
    de = authority()
    return Board(MemoryStore(), DE, de.authority.bundle, de.clock)


@st.composite
def damaged(draw: st.DrawFn) -> Entry:
    """A good record with some bytes changed, cut, doubled or moved to another key."""
    entry = draw(st.sampled_from(genuine()))
    value = bytearray(entry.value)
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.integers(0, len(value) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                value[where] ^= draw(st.integers(1, 255))
            case "cut":
                del value[where : where + draw(st.integers(1, 40))]
            case "insert":
                value[where:where] = draw(st.binary(max_size=40))
        if not value:
            break
    key = draw(st.one_of(st.just(entry.key), KEYS))
    return Entry(key, bytes(value), 1)


@pytest.mark.slow
@given(
    st.lists(st.one_of(damaged(), st.builds(Entry, KEYS, st.binary(max_size=400), st.just(1))), max_size=8)
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_i5_only_genuine_records_under_their_own_keys_change_anything(entries: list[Entry]) -> None:
    board = fresh()
    good = {(entry.key, entry.value) for entry in genuine()}
    for entry in entries:
        board.take(entry)
    believed = {str(key): board.held(key) for key in board.own()}
    for key, held in believed.items():
        assert held is not None
        assert (key, held.envelope) in good
    offered = {entry.key for entry in entries if (entry.key, entry.value) in good}
    assert set(believed) == {key for key in offered if "/status/" not in key}
    assert set(board.refused) >= {e.key for e in entries} - offered


@given(
    st.sampled_from([kind for kind in RecordType if kind is not RecordType.PERMIT]), st.binary(max_size=300)
)
@settings(max_examples=150, deadline=None)
def test_a_signed_payload_that_says_nothing_sensible_is_refused_and_nothing_else(
    kind: RecordType, payload: bytes
) -> None:
    de, board = authority(), fresh()
    named = (RecordType.FACTS, RecordType.NODE, RecordType.STATUS, RecordType.COLLECTION)
    key = de.key(kind, "a" if kind in named else "")
    envelope = de.seal(key, payload)
    assert open_envelope(envelope, {DE: de.authority.bundle}, de.clock()).payload == payload
    board.take(Entry(str(key), envelope, 1))
    if str(key) in board.refused:
        assert board.held(key) is None
        assert board.generation(key) == 0
    else:
        assert board.generation(key) == 1
