"""The picture of the map: whole, the same every time, readable without colour, safe with others' names."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest

from mesh.core.flow_map import CLASSES, By, Cell, Extent, FlowMap, Pair
from mesh.core.map_picture import MAX_DASHED, MAX_PLACES, picture
from mesh.core.types import Action, DataClass

SVG = "{http://www.w3.org/2000/svg}"
COUNTRIES = [
    *("AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE"),
    *("IT", "LV", "LT", "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE"),
]


def cells(extent: Extent, flows: int = 0, data_class: DataClass = DataClass.PUBLIC) -> dict[DataClass, Cell]:
    one = Cell({Action.INFER: extent}, {Action.INFER: flows} if flows else {})
    return {c: one if c is data_class else Cell() for c in CLASSES}


def mapped(places: list[str], **pairs: dict[DataClass, Cell]) -> FlowMap:
    """`pairs` by "DE_FR"; every other one may send what is public."""
    made = {
        (s, t): Pair(s, t, pairs.get(f"{s}_{t}", cells(Extent.ALL)))
        for s, t in itertools.product(places, places)
    }
    names = tuple(sorted(places))
    return FlowMap(By.COUNTRY, (Action.INFER,), CLASSES, names, names, made)


def drawn(found: FlowMap, title: str = "t", note: str = "n") -> ElementTree.Element:
    return ElementTree.fromstring(picture(found, title, note))


def arrows(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [path for path in root.iter(f"{SVG}path") if path.get("marker-end")]


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 27, 60])
def test_any_number_of_places_gives_a_whole_picture(count: int) -> None:
    places = [*COUNTRIES, *(f"X{i}" for i in range(40))][:count]
    found = mapped(places)
    root = drawn(found)
    assert picture(found, "t", "n") == picture(found, "t", "n")
    assert len(list(root.iter(f"{SVG}circle"))) == min(count, MAX_PLACES)
    assert len(arrows(root)) == (count * (count - 1) if count <= MAX_DASHED else 0)
    assert any("more places" in text for text in texts(root)) == (count > MAX_PLACES)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    for circle in root.iter(f"{SVG}circle"):
        assert left < float(circle.attrib["cx"]) < width
        assert top < float(circle.attrib["cy"]) < height


def test_it_says_what_it_is_to_whoever_does_not_see_it() -> None:
    root = drawn(mapped(["DE", "FR"], DE_FR=cells(Extent.ALL, 7)), "Title", "note")
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert title.text == "Title"
    assert description is not None
    assert "Germany may send up to public to France, 7 flows." in str(description.text)
    assert root.get("role") == "img"


def test_dashed_is_what_may_and_whole_is_what_did() -> None:
    root = drawn(mapped(["DE", "FR"], DE_FR=cells(Extent.SOME, 7, DataClass.PERSONAL)))
    did, may = sorted(arrows(root), key=lambda each: each.get("stroke-dasharray") is not None)
    assert did.get("stroke-dasharray") is None
    assert may.get("stroke-dasharray") is not None
    assert did.get("stroke") != may.get("stroke")
    assert "personal: under conditions, 7 flows" in "".join(did.itertext())
    assert {"~pers", "7", "pub"} <= set(texts(root))


def test_what_may_not_be_is_red_and_says_so_without_colour() -> None:
    root = drawn(mapped(["DE", "FR"], DE_FR=cells(Extent.NO, 3), FR_DE=cells(Extent.NO)))
    (arrow,) = arrows(root)
    assert arrow.get("marker-end") == "url(#map-against)"
    assert "public: not permitted, 3 flows" in "".join(arrow.itertext())
    assert {"3 (3!)", "3!", "–"} <= set(texts(root))


def test_a_crowded_ring_still_shows_what_flowed() -> None:
    root = drawn(mapped(COUNTRIES, DE_FR=cells(Extent.ALL, 5), FR_DE=cells(Extent.NO, 1)))
    assert len(arrows(root)) == 2
    assert len([text for text in texts(root) if text == "pub"]) == 27 * 27 - 1


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\"b'c&d", "\x00\x1b[31m\u202e", "x" * 5_000])
def test_others_words_cannot_break_it(name: str) -> None:
    found = mapped([name, "DE"])
    root = drawn(found, name, name)
    assert root.find(f".//{SVG}script") is None
    shown = picture(found, name, name)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
