"""Tiles as C2SP tlog-tiles lays them down; the numbers are those of its text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import MeshError, Reason
from mesh.core.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    Tile,
    edge_of,
    pack_bundle,
    parse_bundle,
    parse_hashes,
    place_of,
    tiles_of,
)


def refused():
    return pytest.raises(MeshError, check=lambda error: error.reason is Reason.PROOF_INVALID)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 999, 17), "tile/1/999.p/17"),
        (Tile(2, 1000, 1), "tile/2/x001/000.p/1"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
        (Tile(7, 63), "tile/7/063"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/8/000", "tile/-1/000", "tile/0/x000/001",
        "tile/0/001/234", "tile/0/x001/x234", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
        "tile/0/000.p/", "/tile/0/000", "tile/0/000\n", "tile/0/\u0660\u0660\u0660", "tile/entries/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/999", "checkpoint",
    ],
)  # fmt: skip
def test_paths_of_nothing(path: str) -> None:
    with refused():
        Tile.parse(path)


def test_the_tiles_of_a_size() -> None:
    assert [tile.path for tile in edge_of(70_000)] == [
        "tile/entries/273.p/112",
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]
    assert [tile.path for tile in edge_of(256)] == ["tile/1/000.p/1"]
    assert [tile.path for tile in tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert len(list(tiles_of(70_000))) == 2 * 274 + 2 + 1
    assert not list(tiles_of(0))
    assert not list(edge_of(0))


@settings(deadline=None)
@given(st.integers(0, 2**20))
def test_the_edge_is_what_is_partial(size: int) -> None:
    assert list(edge_of(size)) == [tile for tile in tiles_of(size) if not tile.full]


@settings(deadline=None)
@given(st.integers(0, 62), st.data())
def test_every_subtree_has_a_place(level: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, (2**62 >> level) or 1))
    place = place_of(level, index)
    leaves_per_hash = 256**place.level
    start = (place.index * 256 + place.start) * leaves_per_hash
    end = (place.index * 256 + place.end) * leaves_per_hash
    assert (start, end) == (index << level, (index + 1) << level)
    assert 0 <= place.start < place.end <= 256


def test_hashes_are_counted() -> None:
    assert parse_hashes(b"a" * 32 + b"b" * 32, 2) == (b"a" * 32, b"b" * 32)
    for data, width in ((b"a" * 63, 2), (b"a" * 65, 2), (b"", 1), (b"a" * 64, 256)):
        with refused():
            parse_hashes(data, width)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=20))
def test_bundles_read_back(entries: list[bytes]) -> None:
    assert list(parse_bundle(pack_bundle(entries), len(entries))) == entries


def test_the_largest_entry_fits_and_no_larger_one() -> None:
    assert parse_bundle(pack_bundle([b"x" * MAX_ENTRY_BYTES]), 1) == (b"x" * MAX_ENTRY_BYTES,)
    with pytest.raises(OverflowError):
        pack_bundle([b"x" * (MAX_ENTRY_BYTES + 1)])


@pytest.mark.parametrize(
    ("data", "width"),
    [(b"", 1), (b"\0", 1), (b"\0\1", 1), (b"\0\1a\0", 1), (b"\0\1a", 2), (b"\0\1a\0\1b", 1)],
)
def test_bundles_of_another_width(data: bytes, width: int) -> None:
    with refused():
        parse_bundle(data, width)


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(1, 256))
def test_any_bytes_are_a_bundle_or_refused(data: bytes, width: int) -> None:
    try:
        assert pack_bundle(parse_bundle(data, width)) == data
    except MeshError as error:
        if error.reason is not Reason.PROOF_INVALID:
            raise
