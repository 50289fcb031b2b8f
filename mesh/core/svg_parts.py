"""What every picture of flows is made of: its tone, how wide a line is, arrow heads, and texts of others.

Pictures are the same bytes for the same input, and whatever is written into one is escaped here.
"""

from __future__ import annotations

import math
from html import escape

import pycountry

from mesh.core.text import printable

BACKGROUND, INK, SOFT, FRAME = "#fbfaf7", "#333", "#666", "#444"
RED = "#b0482c"


def words(text: str, limit: int = 300) -> str:
    """A text as it may stand in a picture: on one line, escaped, cut at `limit` characters."""
    shown = printable(text)
    return escape(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def country_name(code: str) -> str:
    """A country in words; "not stated" for none."""
    found = pycountry.countries.get(alpha_2=code) if code else None
    return str(getattr(found, "common_name", found.name)) if found is not None else code or "not stated"


def stroke(count: int, most: int) -> float:
    """The width of a line that stands for so many: its square grows with the count."""
    return 1.2 + 7.5 * math.sqrt(count / most)


def marker(name: str, colour: str, size: int = 13) -> str:
    """An arrow head, `size` wide whatever the line."""
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="2" refY="5" markerWidth="{size}"'
        f' markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 10 5 0 10z" fill="{colour}"/></marker>'
    )
