"""What a witness says to a checkpoint, against one that holds every entry and compares lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.merkle import consistency_proof, leaf_hash, root_of
from mesh.core.notes import Checkpoint
from mesh.core.witness import Behind, Finding, Follows, Wrong, judge

ORIGIN = "de.mesh.example/node/fra-1"
Entries = list[int]


def checkpoint(entries: Entries) -> Checkpoint:
    return Checkpoint(ORIGIN, len(entries), root_of(leaf_hash(b"%d" % each) for each in entries))


def proof(entries: Entries, old: int) -> tuple[bytes, ...]:
    leaves = [leaf_hash(b"%d" % each) for each in entries]

    def read(level: int, index: int) -> bytes:
        return root_of(leaves[index << level : (index + 1) << level])

    return consistency_proof(read, old, len(entries))


def oracle(seen: Entries | None, offered: Entries, old: int) -> object:
    """With all entries at hand; the asker proves honestly what it can."""
    size = len(seen or [])
    if seen is not None and len(offered) < size:
        return Finding.ROLLBACK
    if seen is not None and len(offered) == size:
        return Follows() if offered == seen else Finding.FORK
    if old != size:
        return Behind(size)
    return Follows() if offered[:size] == (seen or []) else Finding.INCONSISTENT


@given(
    st.none() | st.lists(st.integers(0, 2), max_size=9),
    st.lists(st.integers(0, 2), max_size=12),
    st.integers(0, 12),
    st.booleans(),
)
def test_it_says_what_somebody_with_all_entries_would(
    seen: Entries | None, own: Entries, old: int, grows: bool
) -> None:
    offered = [*(seen or []), *own] if grows else own
    old = min(old, len(offered)) if not grows else len(seen or [])
    known = checkpoint(seen) if seen is not None else None
    said = judge(known, checkpoint(offered), old, proof(offered, old))
    assert (said.finding if isinstance(said, Wrong) else said) == oracle(seen, offered, old)


def test_a_proof_where_none_is_needed_is_no_way_in() -> None:
    said = judge(None, checkpoint([1, 2]), 0, (b"\0" * 32,))
    assert isinstance(said, Wrong)
    assert said.finding is Finding.INCONSISTENT


def test_a_proof_for_another_size_does_not_do() -> None:
    said = judge(checkpoint([1, 2, 3]), checkpoint([1, 2, 3, 4]), 3, proof([1, 2, 3, 4], 2))
    assert isinstance(said, Wrong)
    assert said.finding is Finding.INCONSISTENT
