"""The flow map as a picture: places on a ring with arrows between them, and a table of every pair below.

An arrow's colour is the most sensitive class that may go that way, its width follows the square root of what
did flow, and it is dashed where nothing did. What flowed though nothing permits it now is red and thick. On
a crowded ring only what did flow is drawn; the table has all of it, in words, so that the picture also reads
without colours. The same map gives the same bytes; whatever others named is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.core.flow_map import CLASSES, Extent, FlowMap, Pair
from mesh.core.svg_parts import (
    BACKGROUND,
    FRAME,
    INK,
    RED,
    SOFT,
    country_name,
    marker,
    stroke,
    words,
)
from mesh.core.types import DataClass, SpiffeId

# Beyond so many places, arrows for what merely may flow would cover everything.
MAX_DASHED = 8
MAX_ARROWS = 60
MAX_LABELS = 24  # on a crowded ring, besides those of what is not permitted
MAX_PLACES = 40  # on the ring and in the table; the rest is counted

COLOURS: Mapping[DataClass, str] = {
    DataClass.PUBLIC: "#8a8a80",
    DataClass.INTERNAL: "#4a719c",
    DataClass.CONFIDENTIAL: "#b08324",
    DataClass.PERSONAL: "#4d7a3a",
    DataClass.SPECIAL_CATEGORY: "#7a4a8c",
}
SHORT: Mapping[DataClass, str] = {
    DataClass.PUBLIC: "pub",
    DataClass.INTERNAL: "int",
    DataClass.CONFIDENTIAL: "conf",
    DataClass.PERSONAL: "pers",
    DataClass.SPECIAL_CATEGORY: "spec",
}
_WIDTH, _TOP, _MARGIN = 900, 74, 28


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a place is drawn. `angle` in radians, 0 to the right, clockwise."""

    x: float
    y: float
    angle: float
    radius: float


_Curve = tuple[float, float, float, float, float, float]  # from, control point, to


def picture(found: FlowMap, title: str, note: str = "") -> str:
    """The SVG document. `note` goes below the title, such as which period the flows are of."""
    places = found.places[:MAX_PLACES]
    pairs = [pair for pair in found.pairs.values() if {pair.source, pair.target} <= set(places)]
    spots, ring_height = _ring(places)
    arrows = _arrows(pairs, len(places))
    most = max((pair.count for pair in pairs), default=0)
    legend_at = _TOP + ring_height + 8
    legend, legend_height = _legend(legend_at, len(places) > MAX_DASHED)
    table_at = legend_at + legend_height + 22
    table, table_height, table_width = _table(found, places, table_at)
    width = max(_WIDTH, table_width)
    height = table_at + table_height + _MARGIN
    left = (width - _WIDTH) / 2
    hidden = len(found.places) - len(places)
    beyond = f" {hidden} more places are not drawn." if hidden else ""
    crowded = len(places) > MAX_DASHED
    centre = (_WIDTH / 2, _TOP + ring_height / 2) if crowded else None
    curves = {(p.source, p.target): _curve(spots[p.source], spots[p.target], centre) for p in arrows}
    told = [
        p for i, p in enumerate(reversed(arrows)) if p.count and (not crowded or p.against or i < MAX_LABELS)
    ]
    drawn = "".join(
        _arrow(pair, curves[pair.source, pair.target], most, 0.6 if crowded else 1.0) for pair in arrows
    )
    labels = "".join(_arrow_label(pair, curves[pair.source, pair.target]) for pair in told)
    circles = "".join(_circle(place, spots[place], found, len(places)) for place in places)
    heads = "".join(marker(f"map-{c}", colour) for c, colour in COLOURS.items()) + marker(
        "map-against", RED, 17
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
        ' aria-labelledby="map-title map-desc" font-family="system-ui, DejaVu Sans, sans-serif"'
        ' font-size="13">\n'
        f'<title id="map-title">{words(title)}</title>\n'
        f'<desc id="map-desc">{words(_described(found), 20_000)}</desc>\n'
        f"<defs>{heads}</defs>\n"
        f'<rect width="{width:g}" height="{height:g}" rx="12" fill="{BACKGROUND}"/>\n'
        f'<text x="{_MARGIN}" y="36" font-size="18" font-weight="600" fill="{INK}">'
        f"{words(title, 90)}</text>\n"
        f'<text x="{_MARGIN}" y="58" fill="{SOFT}">{words(note + beyond, 130)}</text>\n'
        f'<g transform="translate({left:g} 0)">\n<g fill="none">{drawn}</g>\n'
        f'<g font-size="11" text-anchor="middle">{labels}</g>\n'
        f"{circles}\n{legend}</g>\n"
        f'<g transform="translate({(width - table_width) / 2:g} 0)">{table}</g>\n</svg>\n'
    )


def _described(found: FlowMap) -> str:
    """The map in sentences, for whoever does not see it."""
    parts = []
    for (source, target), pair in sorted(found.pairs.items()):
        if pair.highest is None and not pair.count:
            continue
        may = f"may send up to {pair.highest}" if pair.highest is not None else "may send nothing"
        did = f", {pair.count} flows" if pair.count else ""
        against = f", {pair.against} of them not permitted now" if pair.against else ""
        parts.append(f"{_caption(source)} {may} to {_caption(target)}{did}{against}.")
    return " ".join(parts) or "Nothing is permitted, and nothing flowed."


# --- the ring


def _ring(places: Sequence[str]) -> tuple[dict[str, _Spot], float]:
    """Where each place stands, and how high the ring is with what is written around it."""
    count = len(places)
    radius = 38.0 if count <= MAX_DASHED else 30.0 if count <= 12 else 21.0
    needed = count * (radius * 2 + 26) / (2 * math.pi)
    away = (
        0.0
        if count <= 1
        else 200.0
        if count == 2
        else 160.0
        if count == 3
        else min(330.0, max(190.0, needed))
    )
    first = -math.pi if count <= 2 else -math.pi / 2
    angles = [first + 2 * math.pi * i / max(1, count) for i in range(count)]
    around = radius + 50
    highest = min((math.sin(angle) for angle in angles), default=0.0) * away
    lowest = max((math.sin(angle) for angle in angles), default=0.0) * away
    middle = _TOP + around - highest
    spots = {
        place: _Spot(_WIDTH / 2 + away * math.cos(angle), middle + away * math.sin(angle), angle, radius)
        for place, angle in zip(places, angles, strict=True)
    }
    return spots, 2 * around + lowest - highest


def _arrows(pairs: Sequence[Pair], places: int) -> list[Pair]:
    """What is drawn, the thickest last: all that flowed across, and what may, if there is room."""
    across = [pair for pair in pairs if pair.source != pair.target]
    flowed = sorted((p for p in across if p.count), key=lambda p: (-p.against, -p.count, p.source, p.target))
    idle = [p for p in across if not p.count and p.highest is not None] if places <= MAX_DASHED else []
    return [*idle, *reversed(flowed[:MAX_ARROWS])]


def _arrow(pair: Pair, curve: _Curve, most: int, scale: float) -> str:
    x1, y1, cx, cy, x2, y2 = curve
    if pair.against:
        name, colour, width = "map-against", RED, max(3.0, scale * stroke(pair.count, most))
    else:
        data_class = pair.highest or DataClass.PUBLIC
        name, colour = f"map-{data_class}", COLOURS[data_class]
        width = scale * stroke(pair.count, most) if pair.count else 1.2
    dash = "" if pair.count else ' stroke-dasharray="5 5" stroke-opacity="0.8"'
    return (
        f'<path d="M{x1:.1f} {y1:.1f}Q{cx:.1f} {cy:.1f} {x2:.1f} {y2:.1f}" stroke="{colour}"'
        f' stroke-width="{width:.1f}"{dash} marker-end="url(#{name})">'
        f"<title>{words(_pair_text(pair))}</title></path>"
    )


def _arrow_label(pair: Pair, curve: _Curve) -> str:
    """How often: at two fifths of the way, so that both directions have room."""
    x1, y1, cx, cy, x2, y2 = curve
    t = 0.4
    x = (1 - t) ** 2 * x1 + 2 * t * (1 - t) * cx + t * t * x2
    y = (1 - t) ** 2 * y1 + 2 * t * (1 - t) * cy + t * t * y2
    text = f"{pair.count:,}" + (f" ({pair.against:,}!)" if pair.against else "")
    colour = RED if pair.against else INK
    return (
        f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="{colour}" stroke="{BACKGROUND}" stroke-width="4"'
        f' stroke-linejoin="round" paint-order="stroke">{text}</text>'
    )


def _curve(start: _Spot, end: _Spot, centre: tuple[float, float] | None) -> _Curve:
    """A quadratic curve from rim to rim, bent to its left, so that it is not its counterpart's; with
    `centre`, also towards it, so that it does not run through its neighbours."""
    dx, dy = end.x - start.x, end.y - start.y
    distance = math.hypot(dx, dy)
    bend = min(48.0, 0.17 * distance) * (0.5 if centre else 1.0)
    cx = (start.x + end.x) / 2 + dy / distance * bend
    cy = (start.y + end.y) / 2 - dx / distance * bend
    if centre is not None:
        cx, cy = cx + 0.45 * (centre[0] - cx), cy + 0.45 * (centre[1] - cy)
    x1, y1 = _rim(start, cx, cy, 3)
    x2, y2 = _rim(end, cx, cy, 13)
    return x1, y1, cx, cy, x2, y2


def _rim(spot: _Spot, x: float, y: float, gap: float) -> tuple[float, float]:
    """The point on the circle, and a little off it, towards (x, y)."""
    dx, dy = x - spot.x, y - spot.y
    distance = math.hypot(dx, dy)
    return spot.x + dx / distance * (spot.radius + gap), spot.y + dy / distance * (spot.radius + gap)


def _circle(place: str, spot: _Spot, found: FlowMap, count: int) -> str:
    home = found.pairs.get((place, place))
    at_home = f"{home.count:,} at home" if home is not None and home.count else ""
    code = _code(place)
    size = 17 if len(code) <= 2 and spot.radius > 25 else 12 if len(code) <= 4 else 9
    text = (
        f'<circle cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="{spot.radius:g}" fill="#fff" stroke="{FRAME}"'
        ' stroke-width="1.5"/>'
        f'<text x="{spot.x:.1f}" y="{spot.y + size * 0.36:.1f}" text-anchor="middle" font-size="{size}"'
        f' font-weight="600" fill="{INK}">{words(code, 10)}</text>'
    )
    if count > 12:
        return f"<g>{text}<title>{words(_caption(place))}</title></g>"
    lines = [line for line in (_caption(place), at_home) if line]
    side = math.cos(spot.angle)
    anchor = "start" if side > 0.3 else "end" if side < -0.3 else "middle"
    away = spot.radius + 10
    x = spot.x + away * side if anchor != "middle" else spot.x
    upper = math.sin(spot.angle) < 0
    y = spot.y + away * math.sin(spot.angle)
    if anchor == "middle":
        y += -6 - 15 * (len(lines) - 1) if upper else 14
    else:
        y += 4 - 7 * (len(lines) - 1)
    for i, line in enumerate(lines):
        text += (
            f'<text x="{x:.1f}" y="{y + 15 * i:.1f}" text-anchor="{anchor}" fill="{INK if i == 0 else SOFT}">'
            f"{words(line, 26)}</text>"
        )
    return f"<g>{text}</g>"


# --- legend and table


def _legend(y: float, crowded: bool) -> tuple[str, float]:
    """What the lines mean; the second value is its height."""
    text, x = "", float(_MARGIN)
    for data_class in CLASSES:
        label = f"{data_class} ({SHORT[data_class]})"
        text += (
            f'<path d="M{x:g} {y + 8:g}h20" stroke="{COLOURS[data_class]}" stroke-width="5"/>'
            f'<text x="{x + 27:g}" y="{y + 12:g}" fill="{INK}">{label}</text>'
        )
        x += 46 + round(6.9 * len(label))
    dashed = ("what merely may is in the table", 0) if crowded else ("dashed: permitted, nothing flowed", 1)
    for at, label, colour, width, dash in (
        (_MARGIN, "thick: flowed, and how often", FRAME, 5.0, 0),
        (_MARGIN + 250, dashed[0], FRAME, 1.2, dashed[1]),
        (_MARGIN + 530, "red and !: flowed, not permitted now", RED, 5.0, 0),
    ):
        style = ' stroke-dasharray="5 5"' if dash else ""
        if colour is RED or dash or width > 2:
            text += f'<path d="M{at} {y + 32:g}h20" stroke="{colour}" stroke-width="{width:g}"{style}/>'
        text += f'<text x="{at + 27}" y="{y + 36:g}" fill="{INK}">{label}</text>'
    return f'<g font-size="12">{text}</g>', 48.0


def _table(found: FlowMap, places: Sequence[str], top: float) -> tuple[str, float, float]:
    """Every pair in a cell; its height and width, margins included."""
    sources = [place for place in places if place in found.sources]
    targets = [place for place in places if place in found.targets]
    if not sources or not targets:
        return (
            f'<text x="{_MARGIN}" y="{top + 14:g}" fill="{INK}">Nothing to show.</text>',
            24.0,
            float(_WIDTH),
        )
    wide = max(28.0, min(74.0, (_WIDTH - 2 * _MARGIN - 190) / len(targets)))
    high = 34.0 if wide >= 44 else 28.0
    label = 26 + max(len(_row_label(place)) for place in sources) * 6.6
    label = min(label, 230.0)
    left, head = _MARGIN + label, top + 34
    text = (
        f'<text x="{_MARGIN}" y="{top + 4:g}" fill="{SOFT}">The most sensitive class that may go from row to'
        " column, ~ under conditions only; below it how many flows there were.</text>"
    )
    for i, target in enumerate(targets):
        text += (
            f'<text x="{left + (i + 0.5) * wide:.1f}" y="{head - 6:g}" text-anchor="middle" font-weight="600"'
            f' font-size="{11 if wide >= 44 else 10}" fill="{INK}">'
            f"{words(_code(target), int(wide / 6))}</text>"
        )
    for j, source in enumerate(sources):
        y = head + j * high
        text += (
            f'<text x="{_MARGIN}" y="{y + high / 2 + 4:.1f}" fill="{INK}">'
            f"{words(_row_label(source), 34)}</text>"
        )
        for i, target in enumerate(targets):
            pair = found.pairs.get((source, target))
            text += _cell(pair, left + i * wide, y, wide, high)
    return text, 40 + high * len(sources), max(_WIDTH, left + wide * len(targets) + _MARGIN)


def _cell(pair: Pair | None, x: float, y: float, wide: float, high: float) -> str:
    highest = pair.highest if pair is not None else None
    colour = COLOURS[highest] if highest is not None else "#fff"
    depth = 0.0
    if pair is not None and highest is not None:
        depth = 0.42 if pair.cells[highest].extent is Extent.ALL else 0.2
    edge = f' stroke="{RED}" stroke-width="2.5"' if pair is not None and pair.against else ' stroke="#ddd8cc"'
    title = f"<title>{words(_pair_text(pair))}</title>" if pair is not None else ""
    word, count = "–", ""
    if pair is not None:
        if highest is not None:
            word = ("~" if pair.cells[highest].extent is Extent.SOME else "") + SHORT[highest]
        count = (f"{_brief(pair.count)}" if pair.count else "") + ("!" if pair.against else "")
    middle = x + wide / 2
    size, step = (12, 13) if high >= 30 else (8, 10)
    text = (
        f'<g>{title}<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{high - 2:g}" rx="3"'
        f' fill="{colour}" fill-opacity="{depth if highest is not None else 1:g}"{edge}/>'
    )
    lines = [line for line in (word, count) if line]
    for i, line in enumerate(lines):
        at = y + high / 2 + size * 0.36 + (i - (len(lines) - 1) / 2) * step
        bold = ' font-weight="600"' if line == count else ""
        fill = RED if line == count and pair is not None and pair.against else INK
        text += (
            f'<text x="{middle:.1f}" y="{at:.1f}" text-anchor="middle" font-size="{size}"'
            f' fill="{fill}"{bold}>{line}</text>'
        )
    return text + "</g>"


def _brief(count: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10 * size:
            return f"{count // size}{letter}"
    return str(count)


def _pair_text(pair: Pair) -> str:
    """All of a pair in words, for whoever points at it."""
    parts = [
        f"{c}: {'permitted' if cell.extent is Extent.ALL else 'under conditions'}"
        + (f", {cell.count} flows" if cell.count else "")
        if cell.extent is not Extent.NO
        else f"{c}: not permitted, {cell.count} flows"
        for c, cell in pair.cells.items()
        if cell.extent is not Extent.NO or cell.count
    ]
    return f"{_caption(pair.source)} to {_caption(pair.target)}: " + ("; ".join(parts) or "nothing")


# --- names


def _code(place: str) -> str:
    return SpiffeId.parse(place).name if place.startswith("spiffe://") else place


def _caption(place: str) -> str:
    if place.startswith("spiffe://"):
        node = SpiffeId.parse(place)
        return f"{node.name}, {node.trust_domain}"
    return country_name(place)


def _row_label(place: str) -> str:
    if place.startswith("spiffe://"):
        return _caption(place)
    return f"{place}  {country_name(place)}"
