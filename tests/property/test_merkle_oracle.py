"""Every proof of every small tree, and of drawn larger ones, against an oracle that knows only leaves and the
RFC's own recursion; and against another implementation, pymerkle.

The tree under test is the one that the log uses: an edge in memory and tiles that are stored as they fill up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree
from pymerkle.proof import InclusionProof
from pymerkle.proof import verify_consistency as their_verify_consistency
from pymerkle.proof import verify_inclusion as their_verify_inclusion

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from mesh.core.tiles import Tile, edge_of, tiles_of
from mesh.evidence.tree import TiledTree

SMALL = 40
LARGE = 70_000  # past a full tile of level 1


# --- the oracle: RFC 9162, sections 2.1.1, 2.1.3.1 and 2.1.4.1, word by word --------------------------


def entry(index: int) -> bytes:
    return b"entry %d" % index


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


@cache
def mth(start: int, end: int) -> bytes:
    if start == end:
        return hashlib.sha256().digest()
    if end - start == 1:
        return hashlib.sha256(b"\0" + entry(start)).digest()
    k = split(end - start)
    return hashlib.sha256(b"\1" + mth(start, start + k) + mth(start + k, end)).digest()


def path(m: int, start: int, end: int) -> list[bytes]:
    if end - start == 1:
        return []
    k = split(end - start)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def subproof(m: int, start: int, end: int, known: bool) -> list[bytes]:
    if m == end - start:
        return [] if known else [mth(start, end)]
    k = split(end - start)
    if m <= k:
        return [*subproof(m, start, start + k, known), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, False), mth(start, start + k)]


# --- the tree under test ------------------------------------------------------------------------------


class Stored:
    """A TiledTree that grew to `size` in steps, and the tiles that it gave away on the way."""

    def __init__(self, size: int, steps: tuple[int, ...] = ()) -> None:
        self.tiles: dict[Tile, bytes] = {}
        self.tree = TiledTree(self.tiles.__getitem__)
        self.frontier = Frontier()
        for start, end in pairwise([0, *sorted(min(step, size) for step in steps), size]):
            leaves = [leaf_hash(entry(i)) for i in range(start, end)]
            self.tree.append(leaves)
            for leaf in leaves:
                self.frontier.append(leaf)
            full = self.tree.unstored()
            self.tiles.update(full)
            self.tree.forget(full)


@cache
def large() -> Stored:
    return Stored(LARGE, (1, 255, 300, 65_535, 65_537))


def refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except MeshError as error:
        if error.reason is not Reason.PROOF_INVALID:
            raise
        return True
    return False


@pytest.mark.slow
def test_every_proof_of_every_small_tree() -> None:
    for new in range(SMALL + 1):
        read = Stored(new).tree.read
        assert root_at(read, new) == mth(0, new)
        for size in range(new + 1):
            proof = consistency_proof(read, size, new)
            assert list(proof) == (subproof(size, 0, new, True) if size else [])
            verify_consistency(size, new, mth(0, size), mth(0, new), proof)
            for index in range(size if new == SMALL else 0):
                proof = inclusion_proof(read, index, size)
                assert list(proof) == path(index, 0, size)
                verify_inclusion(leaf_hash(entry(index)), index, size, proof, mth(0, size))


@pytest.mark.slow
def test_a_proof_holds_for_nothing_else() -> None:
    """Of small trees: another index, size, leaf or root, or another proof's hashes."""
    sizes = range(1, 18)
    proofs = {(m, n): tuple(path(m, 0, n)) for n in sizes for m in range(n)}
    for (index, size), proof in proofs.items():
        for other, wrong in proofs:
            leaf, root = leaf_hash(entry(other)), mth(0, wrong)
            fits = (other, wrong) == (index, size)
            assert fits != refused(lambda: verify_inclusion(leaf, other, wrong, proof, root))  # noqa: B023
    consistencies = {(m, n): tuple(subproof(m, 0, n, True)) for n in sizes for m in range(1, n)}
    for (old, new), proof in consistencies.items():
        for wrong_old, wrong_new in consistencies:
            if (wrong_old, wrong_new) != (old, new):
                assert refused(
                    lambda: verify_consistency(old, new, mth(0, wrong_old), mth(0, wrong_new), proof)  # noqa: B023
                )


@settings(deadline=None)
@given(st.integers(1, LARGE), st.data())
def test_proofs_of_large_trees(size: int, data: st.DataObject) -> None:
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    read = large().tree.read
    assert root_at(read, size) == Frontier.at(read, size).root() == mth(0, size)
    proof = inclusion_proof(read, index, size)
    assert list(proof) == path(index, 0, size)
    verify_inclusion(leaf_hash(entry(index)), index, size, proof, mth(0, size))
    proof = consistency_proof(read, old, size)
    assert list(proof) == subproof(old, 0, size, True)
    verify_consistency(old, size, mth(0, old), mth(0, size), proof)


@settings(deadline=None)
@given(st.integers(1, 600), st.data())
def test_a_proof_with_one_bit_changed_is_refused(size: int, data: st.DataObject) -> None:
    read = large().tree.read
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    leaf, root, old_root = leaf_hash(entry(index)), mth(0, size), mth(0, old)
    for proof, check in (
        (inclusion_proof(read, index, size), lambda p: verify_inclusion(leaf, index, size, p, root)),
        (consistency_proof(read, old, size), lambda p: verify_consistency(old, size, old_root, root, p)),
    ):
        check(proof)
        at = data.draw(st.integers(0, len(proof)))
        changed = list(proof)
        if at < len(proof):
            bit = 1 << data.draw(st.integers(0, 255))
            changed[at] = (int.from_bytes(proof[at], "big") ^ bit).to_bytes(32, "big")
            assert refused(lambda: check(changed))  # noqa: B023
            assert refused(lambda: check(proof[:at] + proof[at + 1 :]))  # noqa: B023
        assert refused(lambda: check((*proof[:at], b"x" * 32, *proof[at:])))  # noqa: B023


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1200), st.lists(st.integers(0, 1200), max_size=5))
def test_a_tree_does_not_depend_on_how_it_grew(size: int, steps: list[int]) -> None:
    grown = Stored(size, tuple(steps))
    assert root_at(grown.tree.read, size) == grown.frontier.root() == mth(0, size)
    assert {t for t in tiles_of(size) if t.level >= 0 and t.full} == set(grown.tiles)
    assert set(grown.tree.partial()) == {tile for tile in edge_of(size) if tile.level >= 0}
    even = size - size % 256
    restored = TiledTree.restored(even, grown.tiles.__getitem__)
    restored.append(leaf_hash(entry(i)) for i in range(even, size))
    assert root_at(restored.read, size) == mth(0, size)
    assert restored.partial() == grown.tree.partial()


def test_tiles_hold_what_the_specification_says() -> None:
    """MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l]) for each hash i of tile n at level l."""
    stored = large()
    for tile in (Tile(0, 0), Tile(0, 272), Tile(1, 0)):
        hashes = [stored.tiles[tile][i : i + 32] for i in range(0, 8192, 32)]
        span = 256**tile.level
        expected = [
            mth((tile.index * 256 + i) * span, (tile.index * 256 + i + 1) * span) for i in range(0, 256, 17)
        ]
        assert hashes[::17] == expected
    assert {tile.path: len(data) // 32 for tile, data in stored.tree.partial().items()} == {
        "tile/0/273.p/112": 112,
        "tile/1/001.p/17": 17,
        "tile/2/000.p/1": 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 64, 100, 257, 300])
def test_another_implementation_agrees(size: int) -> None:
    """pymerkle: the same roots; ours verifies its inclusion proofs, it verifies ours; and what it holds for
    consistent are the roots that we do. (Its consistency proofs are cut otherwise than the RFC's.)"""
    theirs = InmemoryTree(algorithm="sha256")
    theirs.append_entries([entry(i) for i in range(size)])
    read = large().tree.read
    root = root_at(read, size)
    assert theirs.get_root(size) == root
    for index in range(size):
        made = theirs.prove_inclusion(index + 1, size)
        leaf, proof = leaf_hash(entry(index)), inclusion_proof(read, index, size)
        assert theirs.get_leaf(index + 1) == leaf
        verify_inclusion(leaf, index, size, made.path[1:], root)
        ours = InclusionProof("sha256", True, size, index + 1, made.rule, [leaf, *proof])
        their_verify_inclusion(leaf, root, ours, index=index + 1, size=size, algorithm="sha256")
        old, old_root = index + 1, root_at(read, index + 1)
        verify_consistency(old, size, old_root, root, consistency_proof(read, old, size))
        their_verify_consistency(
            old_root, root, theirs.prove_consistency(old, size), prior_size=old, later_size=size
        )
