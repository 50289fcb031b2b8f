"""Finding things in bytes, however they were put there: strings, runs of words, and vectors.

Strings are looked for in the bytes as they are and in what they may be an encoding of: UTF-16, hex, base64
at any offset, zlib. Vectors are looked for as numbers (float16, float32 and float64 of either byte order at
any alignment, and written as text), as bytes that they may have been quantised to (any scale and offset),
and as the signs of their components. Nothing here knows what is permitted.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_BASE64 = {b"+/": re.compile(rb"[0-9A-Za-z+/]{16,}"), b"-_": re.compile(rb"[0-9A-Za-z_-]{16,}")}
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


def views(data: bytes, least: int = 16) -> Iterator[bytes]:
    """The bytes, and what parts of them may stand for; runs of an encoding from `least` characters on."""
    yield data
    if data.count(0) * 3 > len(data):
        yield data.replace(b"\0", b"")
    runs = [run for run in _HEX.findall(data) if len(run) >= least]
    for offset in (0, 1) if runs else ():
        yield b"\0\0".join(bytes.fromhex(_whole(run, offset, 2).decode()) for run in runs)
    before: list[bytes] = []
    for alphabet in (b"+/", b"-_"):
        runs = [run for run in _BASE64[alphabet].findall(data) if len(run) >= least]
        for offset in range(4) if runs != before else ():
            yield b"\0\0".join(base64.b64decode(_whole(run, offset, 4), alphabet) for run in runs)
        before = runs
    for match in _ZLIB.finditer(data):
        try:
            yield zlib.decompressobj().decompress(data[match.start() :], 1 << 20)
        except zlib.error:
            continue


def _whole(run: bytes, offset: int, size: int) -> bytes:
    return run[offset : offset + (len(run) - offset) // size * size]


class Vectors:
    """Vectors of one length, each under a name."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._names: list[Hashable] = []
        self._rows: list[list[float]] = []
        self._runs = Strings()
        self._coarse: list[int] = []
        self._unit: Any = None
        self._centred: Any = None

    def add(self, vector: Sequence[float], what: Hashable, *, quantised: bool = True) -> None:
        """`quantised`: also as bytes of any scale."""
        row = np.array(vector, np.float64)
        self._names.append(what)
        self._rows.append(row.tolist())
        if quantised:
            self._coarse.append(len(self._rows) - 1)
        for kind in ("<f8", ">f8", "<f4", ">f4", "<f2", ">f2"):
            values = row.astype(kind)
            for at in range(len(row) - RUN + 1):
                self._runs.add(values[at : at + RUN].tobytes(), what)
        # One bit each: enough of them here to be told from chance.
        for order in ("big", "little"):
            self._runs.add(np.packbits(row > 0, bitorder=order).tobytes(), what)
        self._unit = self._centred = None

    def find(self, data: bytes) -> set[Hashable]:
        """Those whose numbers are in the bytes, or in what a long run of them encodes."""
        if self._unit is None and self._rows:
            table = np.array(self._rows)
            self._unit = _normed(table)
            coarse = table[self._coarse]
            self._centred = _normed(coarse - coarse.mean(axis=1, keepdims=True)).astype(np.float32)
        return set().union(*(self._found(view) for view in views(data, 40)))

    def _found(self, data: bytes) -> set[Hashable]:
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
        alike = np.abs(_products(windows, table)) > NEAR * lengths[:, None]
        return {self._names[int(at)] for at in np.flatnonzero(alike.any(axis=0))}

    def _quantised(self, data: bytes) -> set[Hashable]:
        """Bytes whose course is a vector's, whatever the scale and the offset."""
        if len(data) < self._dimensions or not self._coarse:
            return set()
        plain = np.frombuffer(data, np.uint8)
        high = np.lib.stride_tricks.sliding_window_view(plain > 127, self._dimensions).mean(axis=1)
        # A vector has components of both signs in its bytes; text has not.
        wanted = np.flatnonzero((high > 0.2) & (high < 0.8))
        found: set[Hashable] = set()
        for kind in (np.uint8, np.int8) if len(wanted) else ():
            values = np.lib.stride_tricks.sliding_window_view(
                plain.view(kind).astype(np.float32), self._dimensions
            )[wanted]
            # Against rows without a mean the windows' own means do not count.
            lengths = np.sqrt(np.maximum(values.var(axis=1) * self._dimensions, 1e-6))
            alike = _products(values, self._centred) > NEAR * lengths[:, None]
            found |= {self._names[self._coarse[int(at)]] for at in np.flatnonzero(alike.any(axis=0))}
        return found


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


def _products(rows: Any, table: Any) -> Any:
    # Not by a matrix product: its threads wait for each other where there are fewer cores than they think.
    return np.einsum("wd,nd->wn", rows, table)
