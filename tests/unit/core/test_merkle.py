"""Merkle hashes and proofs against the eight leaves that certificate transparency's own tests share."""

from __future__ import annotations

import pytest

from mesh.core.errors import MeshError, Reason
from mesh.core.merkle import (
    EMPTY_ROOT,
    MAX_PROOF_HASHES,
    MAX_TREE_SIZE,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    root_of,
    verify_consistency,
    verify_inclusion,
)

INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
INCLUSION = {
    (0, 1): (),
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
CONSISTENCY = {
    (1, 1): (),
    (1, 8): INCLUSION[0, 8],
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}


def read(level: int, index: int) -> bytes:
    return root_of(LEAVES[index << level : (index + 1) << level])


def hexed(proof: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(each.hex() for each in proof)


def refused():
    return pytest.raises(MeshError, check=lambda error: error.reason is Reason.PROOF_INVALID)


def test_roots() -> None:
    assert EMPTY_ROOT.hex() == root_of([]).hex() == EMPTY
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for size, (leaf, root) in enumerate(zip(LEAVES, ROOTS, strict=True), 1):
        frontier.append(leaf)
        assert root_of(LEAVES[:size]).hex() == frontier.root().hex() == root_at(read, size).hex() == root
        assert Frontier.at(read, size).root().hex() == root


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs(index: int, size: int) -> None:
    proof = inclusion_proof(read, index, size)
    assert hexed(proof) == INCLUSION[index, size]
    verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs(old: int, new: int) -> None:
    proof = consistency_proof(read, old, new)
    assert hexed(proof) == CONSISTENCY[old, new]
    verify_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), proof)


@pytest.mark.parametrize(("index", "size"), [(-1, 8), (8, 8), (9, 8), (0, 0), (0, MAX_TREE_SIZE + 1)])
def test_indexes_and_sizes_that_cannot_be(index: int, size: int) -> None:
    with refused():
        inclusion_proof(read, index, size)
    with refused():
        verify_inclusion(LEAVES[0], index, size, (), LEAVES[0])


@pytest.mark.parametrize(("old", "new"), [(-1, 8), (9, 8), (0, MAX_TREE_SIZE + 1)])
def test_sizes_that_fall_or_cannot_be(old: int, new: int) -> None:
    with refused():
        consistency_proof(read, old, new)
    with refused():
        verify_consistency(old, new, EMPTY_ROOT, EMPTY_ROOT, ())


def test_every_tree_begins_with_the_empty_one() -> None:
    root = bytes.fromhex(ROOTS[7])
    verify_consistency(0, 8, EMPTY_ROOT, root, consistency_proof(read, 0, 8))
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, ())
    with refused():
        verify_consistency(0, 8, root, root, ())
    with refused():
        verify_consistency(0, 8, EMPTY_ROOT, root, (root,))


def test_what_is_no_hash_and_what_is_too_long() -> None:
    root = bytes.fromhex(ROOTS[7])
    proof = inclusion_proof(read, 0, 8)
    for bad in ((*proof[:2], proof[2][:31]), (*proof[:2], proof[2] + b"\0"), (*proof[:2], proof[2].hex())):
        with refused():
            verify_inclusion(LEAVES[0], 0, 8, bad, root)  # type: ignore[arg-type]
    with refused():
        verify_inclusion(LEAVES[0], 0, MAX_TREE_SIZE, proof * 22, root)
    assert len(proof * 22) > MAX_PROOF_HASHES


def test_the_longest_proofs_fit() -> None:
    def any_root(level: int, index: int) -> bytes:
        return leaf_hash(b"%d/%d" % (level, index))

    assert len(inclusion_proof(any_root, MAX_TREE_SIZE // 2, MAX_TREE_SIZE)) <= MAX_PROOF_HASHES
    longest = consistency_proof(any_root, (1 << 62) - 1, MAX_TREE_SIZE)
    assert len(longest) <= MAX_PROOF_HASHES
