"""Flows as a picture: countries that send on the left, countries that receive on the right, arrows between.

An arrow's width follows the square root of its count, and its label says the count and the kind, so that the
picture reads without colours, too; what policies refused is dashed. SVG to be put into a page, in the tone
of docs/picture.svg. Every text in it is escaped. The largest pairs are drawn, and how many are not is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.core.svg_parts import BACKGROUND, FRAME, INK, RED, SOFT, country_name, marker, stroke, words

MAX_ARROWS = 28
MAX_COUNTRIES = 12  # on a side

_WIDTH, _BOX, _SLOT, _GAP, _TOP = 880, 150, 27, 12, 40
_LEFT, _RIGHT = 16, 880 - 16 - 150
_COLOURS = {"requests": "#4d7a3a", "questions": "#4a719c", "releases": "#8a6414", "refused": RED}
_ONE = {"requests": "request", "questions": "question", "releases": "release", "refused": "refused"}


@dataclass(frozen=True, slots=True, order=True)
class Arrow:
    """So many of one kind between two countries, "" where one is not known.

    `what` is "requests", "questions", "releases" or "refused".
    """

    source: str
    target: str
    what: str
    count: int


def picture(arrows: Sequence[Arrow]) -> str:
    """The SVG element and a sentence below it; a sentence alone if there is nothing to draw."""
    drawn, beyond = _drawn(arrows)
    if not drawn:
        return '<p class="none">No flow to draw.</p>'
    sources = _places([a.source for a in drawn], [a.count for a in drawn])
    targets = _places([a.target for a in drawn], [a.count for a in drawn])
    kinds = list(_COLOURS)
    by_source = sorted(drawn, key=lambda a: (sources[a.source], targets[a.target], kinds.index(a.what)))
    by_target = sorted(drawn, key=lambda a: (targets[a.target], sources[a.source], kinds.index(a.what)))
    left, left_boxes, left_end = _column([a.source for a in by_source], _LEFT)
    right, right_boxes, right_end = _column([a.target for a in by_target], _RIGHT)
    starts, ends = dict(zip(by_source, left, strict=True)), dict(zip(by_target, right, strict=True))
    most = max(a.count for a in drawn)
    bottom = max(left_end, right_end)
    height = bottom + 16
    lines = "".join(_line(a, starts[a], ends[a], most) for a in sorted(drawn, key=lambda a: -a.count))
    labels = "".join(_label(a, starts[a], most) for a in drawn)
    note = f" {beyond.total():,} more are not drawn, but are in the tables." if beyond else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        ' font-family="system-ui, sans-serif" font-size="13">'
        "<title>Flows from country to country</title>"
        f"<defs>{''.join(marker(f'audit-{what}', colour) for what, colour in _COLOURS.items())}</defs>"
        f'<rect width="{_WIDTH}" height="{height}" rx="12" fill="{BACKGROUND}"/>'
        f'<g fill="{SOFT}"><text x="{_LEFT}" y="28">from</text><text x="{_RIGHT}" y="28">to</text></g>'
        f'{left_boxes}{right_boxes}<g fill="none">{lines}</g><g font-size="12">{labels}</g></svg>'
        '<p class="when">Dashed: refused by a policy or by the word of an authority, before sending or by the'
        f" receiver. Widths grow with the square root of the count.{note}</p>"
    )


def _drawn(arrows: Sequence[Arrow]) -> tuple[list[Arrow], Counter[str]]:
    """The largest that fit, and by kind how many are in the others."""
    kept: list[Arrow] = []
    beyond: Counter[str] = Counter()
    sources: set[str] = set()
    targets: set[str] = set()
    for arrow in sorted(arrows, key=lambda a: (-a.count, a)):
        fits = (
            len(sources | {arrow.source}) <= MAX_COUNTRIES and len(targets | {arrow.target}) <= MAX_COUNTRIES
        )
        if arrow.what in _COLOURS and fits and len(kept) < MAX_ARROWS:
            kept.append(arrow)
            sources.add(arrow.source)
            targets.add(arrow.target)
        else:
            beyond[arrow.what] += arrow.count
    return kept, beyond


def _places(countries: Sequence[str], counts: Sequence[int]) -> Mapping[str, int]:
    """The order in which countries stand: who has most comes first."""
    totals: Counter[str] = Counter()
    for country, count in zip(countries, counts, strict=True):
        totals[country] += count
    ordered = sorted(totals, key=lambda country: (-totals[country], country))
    return {country: place for place, country in enumerate(ordered)}


def _column(countries: Sequence[str], x: int) -> tuple[list[float], str, int]:
    """For each arrow, in order, the height at which it meets its country's box; the boxes; where they end."""
    heights: list[float] = []
    boxes = ""
    y = _TOP
    for country in dict.fromkeys(countries):
        slots = countries.count(country)
        height = max(48, slots * _SLOT + 8)
        first = y + (height - slots * _SLOT) / 2 + _SLOT / 2 + 4
        heights.extend(first + slot * _SLOT for slot in range(slots))
        boxes += _box(country, x, y, height)
        y += height + _GAP
    return heights, boxes, y - _GAP


def _box(country: str, x: int, y: int, height: int) -> str:
    name = country_name(country)
    name = name if len(name) <= 19 else name[:18] + "…"
    middle = y + height / 2
    return (
        f'<rect x="{x}" y="{y}" width="{_BOX}" height="{height}" rx="6" fill="#fff" stroke="{FRAME}"'
        ' stroke-width="1.5"/>'
        f'<text x="{x + 12}" y="{middle - 2:g}" font-weight="600" fill="{INK}">{words(country or "?")}</text>'
        f'<text x="{x + 12}" y="{middle + 15:g}" fill="{SOFT}">{words(name)}</text>'
    )


def _line(arrow: Arrow, start: float, end: float, most: int) -> str:
    width = stroke(arrow.count, most)
    dash = f' stroke-dasharray="{width + 3:.1f} {width + 3:.1f}"' if arrow.what == "refused" else ""
    x1, x2 = _LEFT + _BOX + 2, _RIGHT - 3
    return (
        f'<path d="M{x1} {start:g}H{x1 + 130}'
        f'C{x1 + 290} {start:g} {x2 - 190} {end:g} {x2 - 60} {end:g}H{x2 - 10}"'
        f' stroke="{_COLOURS[arrow.what]}" stroke-width="{width:.1f}"{dash}'
        f' marker-end="url(#audit-{arrow.what})"/>'
    )


def _label(arrow: Arrow, start: float, most: int) -> str:
    word = _ONE[arrow.what] if arrow.count == 1 else arrow.what
    y = start - stroke(arrow.count, most) / 2 - 4
    return (
        f'<text x="{_LEFT + _BOX + 10}" y="{y:.1f}" fill="{_COLOURS[arrow.what]}">'
        f"{arrow.count:,} {word}</text>"
    )
