"""JSON that somebody else wrote, read strictly: bounded in size and depth, each key once, numbers finite.

`load_object` gives the object, `Fields` its fields: what is missing is empty, what is of another type than
it should be is refused. All of it raises ENTRY_MALFORMED and nothing else, and says what was expected, never
what was there. Texts come back on one printable line. What the fields mean, it does not know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from mesh.core.errors import MeshError, Reason
from mesh.core.text import printable

# Several times what a writer makes, so that a log is not refused for a word too many.
MAX_ENTRY_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_TEXT_CHARS = 512
MAX_ITEMS = 2048  # of any list or mapping that is looked at
MAX_COUNT = 2**53


class Fields:
    """The fields of one object."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def has(self, name: str) -> bool:
        """Whether it is there."""
        return name in self._raw

    def text(self, name: str) -> str:
        """A text of at most 512 characters, on one printable line."""
        found = self._raw.get(name, "")
        if not isinstance(found, str) or len(found) > MAX_TEXT_CHARS:
            refuse(f"{name}: a text of at most {MAX_TEXT_CHARS} characters")
        return printable(found)

    def number(self, name: str, most: float) -> float:
        """A finite number from 0 to `most`; it must be there."""
        found = self._raw.get(name)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= most:
            refuse(f"{name}: a number from 0")
        return float(found)

    def count(self, name: str) -> int:
        """A whole number from 0."""
        found = self._raw.get(name, 0)
        if type(found) is not int or not 0 <= found <= MAX_COUNT:
            refuse(f"{name}: a whole number from 0")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        listed = self._list(name)
        if not all(isinstance(each, str) and len(each) <= MAX_TEXT_CHARS for each in listed):
            refuse(f"{name}: texts of at most {MAX_TEXT_CHARS} characters")
        return tuple(map(printable, listed))

    def items(self, name: str) -> Iterable[Fields]:
        """A list of objects."""
        listed = self._list(name)
        if not all(isinstance(each, dict) for each in listed):
            refuse(f"{name}: objects")
        return map(Fields, listed)

    def inner(self, name: str) -> Fields:
        """An object."""
        found = self._raw.get(name, {})
        if not isinstance(found, dict) or len(found) > MAX_ITEMS:
            refuse(f"{name}: an object")
        return Fields(found)

    def counts(self, name: str) -> Mapping[str, int]:
        """An object of whole numbers from 0."""
        inner = self.inner(name)
        return {printable(key[:MAX_TEXT_CHARS]): inner.count(key) for key in sorted(inner._raw)}

    def words(self, name: str) -> Mapping[str, str]:
        """An object of texts."""
        inner = self.inner(name)
        return {printable(key[:MAX_TEXT_CHARS]): inner.text(key) for key in sorted(inner._raw)}

    def _list(self, name: str) -> list[Any]:
        found = self._raw.get(name, [])
        if not isinstance(found, list) or len(found) > MAX_ITEMS:
            refuse(f"{name}: a list of at most {MAX_ITEMS}")
        return found


def load_object(data: bytes) -> dict[str, Any]:
    """The object in these bytes; raises ENTRY_MALFORMED, and nothing else, whatever they are."""
    if len(data) > MAX_ENTRY_BYTES:
        refuse(f"at most {MAX_ENTRY_BYTES} bytes")
    try:
        found = json.loads(
            data.decode(),
            object_pairs_hook=_each_key_once,
            parse_float=_finite,
            parse_constant=lambda _: refuse("finite numbers"),
        )
    except (ValueError, RecursionError):  # json's own errors quote what they could not read
        found = None
    if not isinstance(found, dict):
        refuse("one JSON object in UTF-8")
    _require_shallow(found)
    return found


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        refuse("each key once")
    return made


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        refuse("finite numbers")
    return found


def _require_shallow(value: object) -> None:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        if not inner:
            return
        level = inner
    refuse(f"at most {MAX_DEPTH} levels")


def refuse(expected: str) -> NoReturn:
    """Raises ENTRY_MALFORMED."""
    raise MeshError(Reason.ENTRY_MALFORMED, f"an entry of a log: expected {expected}")
