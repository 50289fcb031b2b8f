"""Merkle trees over a list that only grows: hashes, proofs, and how proofs are checked.

RFC 9162, sections 2.1.1 (hashes), 2.1.3 (inclusion) and 2.1.4 (consistency), with SHA-256. Leaves and inner
nodes are hashed under different prefixes, so that neither passes for the other.

Proofs are made from a `HashReader`: the root of any complete subtree, by level and index; who keeps those,
and where, is no concern of this module (mesh/core/tiled_tree.py is one such). Checking needs nothing but the
proof. What comes from elsewhere is hostile until it is checked: lengths are bounded, sizes are strict, and
what does not hold raises PROOF_INVALID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from mesh.core.errors import MeshError, Reason

HASH_BYTES = 32
MAX_TREE_SIZE = (1 << 63) - 1
MAX_PROOF_HASHES = 64  # of a tree of MAX_TREE_SIZE leaves, either kind

EMPTY_ROOT = hashlib.sha256(b"").digest()

HashReader = Callable[[int, int], bytes]
"""(level, index) -> root over the leaves [index << level, (index + 1) << level), which are all there."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry, 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over its children's hashes, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes; of a complete subtree also over the hashes of one of its rows."""
    row = list(leaves)
    if not row:
        return EMPTY_ROOT
    while len(row) > 1:
        above = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])  # the last of an odd row goes up as it is: the RFC's split does the same
        row = above
    return row[0]


class Frontier:
    """As much of a tree as its root and its growth depend on: the roots of its largest complete subtrees.

    Appending costs a constant number of hashes on average and log2(size) at most; so does the root.
    """

    __slots__ = ("_roots", "size")

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []  # from the left, largest first: one for each bit of `size` that is set

    @classmethod
    def at(cls, read: HashReader, size: int) -> Frontier:
        """The frontier of a tree of which subtrees can be read."""
        made = cls()
        made.size = size
        made._roots = [read(level, index) for level, index in _complete_subtrees(0, size)]
        return made

    @classmethod
    def before(cls, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> Frontier:
        """The frontier of the tree as it was before the leaf at `index`, out of the proof that it is there.

        What is left of the way from the root to a leaf are the largest complete subtrees of all before it.
        Raises PROOF_INVALID as `verify_inclusion` does.
        """
        verify_inclusion(leaf, index, size, proof, root)
        made = cls()
        made.size = index
        start, end = 0, size
        for sibling in reversed(proof):
            middle = start + _split(end - start)
            if index < middle:
                end = middle
            else:
                made._roots.append(sibling)
                start = middle
        return made

    def append(self, leaf: bytes) -> None:
        """One more leaf hash."""
        root, below = leaf, self.size
        while below & 1:
            root = node_hash(self._roots.pop(), root)
            below >>= 1
        self._roots.append(root)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree as it is."""
        return _folded(self._roots)


def root_at(read: HashReader, size: int) -> bytes:
    """The root that the tree had when it was of this size."""
    return _range_root(read, 0, size)


def inclusion_proof(read: HashReader, index: int, size: int) -> tuple[bytes, ...]:
    """The proof that a leaf is in the tree of this size, from the leaf upwards.

    Raises PROOF_INVALID unless 0 <= index < size. At most log2(size), rounded up, hashes.
    """
    _require(0 <= index < size <= MAX_TREE_SIZE, "an index below the tree's size")
    start, end = 0, size
    siblings: list[tuple[int, int]] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    return tuple(_range_root(read, *sibling) for sibling in reversed(siblings))


def consistency_proof(read: HashReader, old: int, new: int) -> tuple[bytes, ...]:
    """The proof that the tree of size `new` begins with the one of size `old`; empty if `old` is 0 or `new`.

    Raises PROOF_INVALID unless 0 <= old <= new. At most log2(new), rounded up, + 1 hashes.
    """
    _require(0 <= old <= new <= MAX_TREE_SIZE, "sizes that do not fall")
    if old == 0:
        return ()
    start, end = 0, new
    ranges: list[tuple[int, int]] = []
    while old < end:
        middle = start + _split(end - start)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start > 0:  # else it is the whole old tree, whose root the verifier has
        ranges.append((start, end))
    return tuple(_range_root(read, *each) for each in reversed(ranges))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raises PROOF_INVALID unless the leaf hash is at `index` in the tree of `size` leaves with this root."""
    _require(0 <= index < size <= MAX_TREE_SIZE, "an index below the tree's size")
    _check_hashes((leaf, root), proof)
    place, last, hashed = index, size - 1, leaf
    for sibling in proof:
        _require(last > 0, "no more hashes than the tree is high")
        if place & 1 or place == last:
            hashed = node_hash(sibling, hashed)
            while place and not place & 1:  # rows in which this subtree is the last, without a sibling
                place >>= 1
                last >>= 1
        else:
            hashed = node_hash(hashed, sibling)
        place >>= 1
        last >>= 1
    _require(last == 0, "as many hashes as the tree is high")
    _require(hashed == root, "a path that leads to the root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises PROOF_INVALID unless the tree of size `new` begins with all of the one of size `old`.

    Every tree begins with the empty one, whose root is EMPTY_ROOT and whose proof is empty.
    """
    _require(0 <= old <= new <= MAX_TREE_SIZE, "sizes that do not fall")
    _check_hashes((old_root, new_root), proof)
    if old in (0, new):
        _require(not proof, "no hashes between these two sizes")
        _require(old_root == (new_root if old == new else EMPTY_ROOT), "the root that belongs to the size")
        return
    # A complete old tree is itself the first hash of the path; the proof leaves it out.
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    _require(bool(path), "at least one hash between these two sizes")
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    of_old = of_new = path[0]
    for sibling in path[1:]:
        _require(last > 0, "no more hashes than the tree is high")
        if place & 1 or place == last:
            of_old, of_new = node_hash(sibling, of_old), node_hash(sibling, of_new)
            while place and not place & 1:
                place >>= 1
                last >>= 1
        else:
            of_new = node_hash(of_new, sibling)
        place >>= 1
        last >>= 1
    _require(last == 0, "as many hashes as the tree is high")
    _require(of_old == old_root and of_new == new_root, "a path that leads to both roots")


def _split(width: int) -> int:
    """Where the RFC splits a list of `width` > 1: the largest power of two below it."""
    return 1 << (width - 1).bit_length() - 1


def _complete_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """The largest complete subtrees that a node's leaves [start, end) consist of: (level, index), leftmost
    first. `start` is a multiple of the first one's width, as it is of every node of a tree."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def _range_root(read: HashReader, start: int, end: int) -> bytes:
    return _folded([read(level, index) for level, index in _complete_subtrees(start, end)])


def _folded(roots: Sequence[bytes]) -> bytes:
    if not roots:
        return EMPTY_ROOT
    root = roots[-1]
    for left in reversed(roots[:-1]):
        root = node_hash(left, root)
    return root


def _check_hashes(roots: Iterable[bytes], proof: Sequence[bytes]) -> None:
    _require(len(proof) <= MAX_PROOF_HASHES, f"at most {MAX_PROOF_HASHES} hashes")
    for each in (*roots, *proof):
        _require(isinstance(each, bytes) and len(each) == HASH_BYTES, f"hashes of {HASH_BYTES} bytes")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MeshError(Reason.PROOF_INVALID, f"the proof does not hold: expected {what}")
