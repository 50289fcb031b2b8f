"""Finding things in bytes, however they were put there: strings, runs of words, and vectors.

Strings are looked for in the bytes as they are and in what they may be an encoding of: UTF-16, hex, base64
at any offset, zlib. Vectors are looked for as numbers (float16, float32 and float64 of either byte order at
any alignment, and written as text), as bytes that they may have been quantised to (any scale and offset),
and as the signs of their components. Nothing here knows what is permitted.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_BASE64 = re.compile(rb"[0-9A-Za-z+/_-]{12,}")
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_NUMBER = rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(rb"(?:" + _NUMBER + rb"[\s,;\[\]()]+){7,}" + _NUMBER)
_WINDOW = 8
NEAR = 0.99
RUN = 8  # so many components in a row are a piece of a vector


class Strings:
    """Byte strings of at least eight bytes, many of them, each found wherever it is."""

    def __init__(self) -> None:
        self._by_start: dict[int, list[tuple[bytes, Hashable]]] = {}
        self._starts = np.empty(0, np.uint64)

    def add(self, text: bytes, what: Hashable) -> None:
        if len(text) < _WINDOW:
            raise ValueError("too short to be told from chance")
        self._by_start.setdefault(int.from_bytes(text[:_WINDOW], "little"), []).append((text, what))
        self._starts = np.empty(0, np.uint64)

    def find(self, data: bytes) -> set[Hashable]:
        if len(data) < _WINDOW:
            return set()
        if not len(self._starts):
            self._starts = np.sort(np.array(list(self._by_start), np.uint64))
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _WINDOW)
        keys = np.ascontiguousarray(windows).view("<u8").ravel()
        at = np.minimum(np.searchsorted(self._starts, keys), len(self._starts) - 1)
        found = set()
        for place in np.flatnonzero(self._starts[at] == keys) if len(self._starts) else ():
            for text, what in self._by_start[int(keys[place])]:
                if data.startswith(text, int(place)):
                    found.add(what)
        return found


def views(data: bytes) -> Iterator[bytes]:
    """The bytes, and what parts of them may stand for."""
    yield data
    if data.count(0) * 3 > len(data):
        yield data.replace(b"\0", b"")
    for run in _HEX.findall(data):
        for offset in (0, 1):
            even = run[offset : offset + (len(run) - offset) // 2 * 2]
            yield bytes.fromhex(even.decode())
    for run in _BASE64.findall(data):
        plain = run.replace(b"-", b"+").replace(b"_", b"/")
        for offset in range(4):
            piece = plain[offset : offset + (len(plain) - offset) // 4 * 4]
            try:
                yield base64.b64decode(piece)
            except binascii.Error:
                continue
    for match in _ZLIB.finditer(data):
        try:
            yield zlib.decompressobj().decompress(data[match.start() :], 1 << 20)
        except zlib.error:
            continue


class Vectors:
    """Vectors of one length, each under a name."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._names: list[Hashable] = []
        self._rows: list[list[float]] = []
        self._runs = Strings()
        self._unit = self._centred = np.empty((0, dimensions))

    def add(self, vector: Sequence[float], what: Hashable) -> None:
        row = np.array(vector, np.float64)
        self._names.append(what)
        self._rows.append(row.tolist())
        for kind in ("<f8", ">f8", "<f4", ">f4", "<f2", ">f2"):
            values = row.astype(kind)
            for at in range(len(row) - RUN + 1):
                self._runs.add(values[at : at + RUN].tobytes(), what)
        # One bit each: enough of them here to be told from chance.
        for order in ("big", "little"):
            self._runs.add(np.packbits(row > 0, bitorder=order).tobytes(), what)  # type: ignore[call-overload]
        table = np.array(self._rows)
        self._unit = _normed(table)
        self._centred = _normed(table - table.mean(axis=1, keepdims=True))

    def find(self, data: bytes) -> set[Hashable]:
        found = self._runs.find(data)
        for numbers in _numbers_in(data, self._dimensions):
            found |= self._near(numbers, self._unit)
        found |= self._quantised(data)
        return found

    def _near(self, numbers: Any, table: Any) -> set[Hashable]:
        """Whose direction some row of consecutive numbers has."""
        windows = np.lib.stride_tricks.sliding_window_view(numbers, self._dimensions)
        sound = np.isfinite(windows).all(axis=1)
        windows = windows[sound]
        lengths = np.linalg.norm(windows, axis=1)
        windows, lengths = windows[lengths > 1e-3], lengths[lengths > 1e-3]
        if not len(windows) or not len(table):
            return set()
        alike = np.abs(windows @ table.T) > NEAR * lengths[:, None]
        return {self._names[int(at)] for at in np.flatnonzero(alike.any(axis=0))}

    def _quantised(self, data: bytes) -> set[Hashable]:
        """Bytes whose course is a vector's, whatever the scale and the offset."""
        if len(data) < self._dimensions or not len(self._centred):
            return set()
        plain = np.frombuffer(data, np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(plain, self._dimensions)
        high = np.lib.stride_tricks.sliding_window_view(plain > 127, self._dimensions).mean(axis=1)
        # A vector has components of both signs in its bytes; text has not.
        windows = windows[(high > 0.1) & (high < 0.9)]
        found: set[Hashable] = set()
        for values in (windows.astype(np.float64), windows.view(np.int8).astype(np.float64)):
            moved = values - values.mean(axis=1, keepdims=True)
            found |= self._matching(_normed(moved) @ self._centred.T > NEAR)
        return found

    def _matching(self, alike: Any) -> set[Hashable]:
        return {self._names[int(at)] for at in np.flatnonzero(alike.any(axis=0))}


def _normed(table: Any) -> Any:
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(lengths > 0, lengths, 1.0)


def _numbers_in(data: bytes, least: int) -> Iterator[Any]:
    """Every row of numbers that the bytes may be, with NaN where there is none that a vector could have."""
    for kind, size in (("<f4", 4), ("<f8", 8), ("<f2", 2), (">f4", 4), (">f8", 8), (">f2", 2)):
        for offset in range(size):
            count = (len(data) - offset) // size
            if count < least:
                break
            with np.errstate(invalid="ignore"):
                numbers = np.frombuffer(data, kind, count, offset).astype(np.float64)
            usual = np.abs(numbers) < 1e3
            # No row of that many in a line: do not look any closer.
            if not _run_of(usual, least):
                continue
            yield np.where(usual, numbers, np.nan)
    for match in _NUMBERS.findall(data):
        written = [float(each) for each in re.split(rb"[\s,;\[\]()]+", match) if each]
        if len(written) >= least:
            yield np.array(written)


def _run_of(flags: Any, least: int) -> bool:
    """Whether so many in a row are set."""
    total = np.concatenate(([0], np.cumsum(flags)))
    return bool((total[least:] - total[:-least] == least).any())
