"""What every vector store checks before it touches anything, in one place so that all refuse alike.

A batch is checked whole before any of it is written, so a refusal changes nothing. Messages say what was
expected and never what came (I1). How things are stored is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mesh.core.errors import MeshError, Reason
from node.index.base import FILTER_FIELDS, ID_BYTES, Entry, Where

MAX_DEPTH = 16_384  # the deepest that every kind of store can look
MAX_TERM = 2**32 - 1
MAX_GROUP = 2**63 - 1
MAX_VALUES = 64  # of one field of one chunk
# Inside these bounds no product and no sum of products leaves what a float32 can hold.
MIN_WEIGHT, MAX_WEIGHT = 1e-9, 1e9
# A vector this close to unit length stays bit for bit what it is.
UNIT_TOLERANCE = 1e-6

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Checked work: `entries[i]` has the unit vector `vectors[i]`; no id is there twice, or in both."""

    entries: Sequence[Entry]
    vectors: Vectors
    deletes: Sequence[bytes]


def check_batch(upserts: Sequence[Entry], deletes: Sequence[bytes], dimensions: int) -> Batch:
    """The batch as it is to be carried out; REQUEST_INVALID if any part of it is wrong.

    Of an id written twice the last entry stands; an id both written and deleted is written.
    """
    for each in deletes:
        _check_id(each)
    for entry in upserts:
        _check_entry(entry)
    entries = {entry.id: entry for entry in upserts}
    return Batch(
        entries=tuple(entries.values()),
        vectors=_unit([entry.vector for entry in entries.values()], dimensions),
        deletes=tuple(dict.fromkeys(each for each in deletes if each not in entries)),
    )


def check_question(vector: Sequence[float], depth: int, where: Where, dimensions: int) -> NDArray[np.float32]:
    """The query vector, of unit length and shape (dimensions,)."""
    check_depth(depth)
    check_where(where)
    checked: NDArray[np.float32] = _unit([vector], dimensions)[0]
    return checked


def check_weights(weights: Mapping[int, float]) -> None:
    """Term numbers and weights, of a chunk or of a question."""
    if not weights:
        return
    if set(map(type, weights)) != {int} or min(weights) < 0 or max(weights) > MAX_TERM:
        raise _invalid(f"terms: expected numbers from 0 to {MAX_TERM}")
    try:
        # The sum is NaN or infinite if any of them is; min and max alone would overlook a NaN.
        known = math.isfinite(sum(weights.values()))
    except (TypeError, OverflowError):
        known = False
    if not known or min(weights.values()) < MIN_WEIGHT or max(weights.values()) > MAX_WEIGHT:
        raise _invalid(f"term weights: expected numbers from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}")


def check_depth(depth: int) -> None:
    """How deep to look: 0 to MAX_DEPTH."""
    if type(depth) is not int or not 0 <= depth <= MAX_DEPTH:
        raise _invalid(f"depth: expected 0 to {MAX_DEPTH}")


def check_where(where: Where) -> None:
    """FILTER_UNKNOWN for a field that nobody may filter by."""
    if not where.fields.keys() <= FILTER_FIELDS:
        raise MeshError(Reason.FILTER_UNKNOWN, f"filter: expected some of {', '.join(sorted(FILTER_FIELDS))}")
    for group in where.groups:
        _check_group(group)
    for values in where.fields.values():
        if isinstance(values, str) or not all(map(_is_text, values)):
            raise _invalid("filter: expected a list of texts each")


def admits_nothing(where: Where) -> bool:
    """Whether no entry at all can pass, so that there is no need to look."""
    return not where.groups or not all(where.fields.values())


def _check_entry(entry: Entry) -> None:
    _check_id(entry.id)
    _check_group(entry.group)
    check_weights(entry.terms)
    if not entry.fields.keys() <= FILTER_FIELDS:
        raise _invalid(f"fields: expected some of {', '.join(sorted(FILTER_FIELDS))}")
    for values in entry.fields.values():
        if isinstance(values, str) or not all(map(_is_text, values)) or len(values) > MAX_VALUES:
            raise _invalid(f"fields: expected a list of texts each, at most {MAX_VALUES}")


def _is_text(value: object) -> bool:
    """A string that UTF-8 can write: lone surrogates cannot reach every store."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_id(each: bytes) -> None:
    if not isinstance(each, bytes) or len(each) != ID_BYTES:
        raise _invalid(f"id: expected {ID_BYTES} bytes")


def _check_group(group: int) -> None:
    if type(group) is not int or not 0 <= group <= MAX_GROUP:
        raise _invalid(f"group: expected a number from 0 to {MAX_GROUP}")


def _unit(vectors: Sequence[Sequence[float]], dimensions: int) -> Vectors:
    if not vectors:
        return np.empty((0, dimensions), np.float32)
    try:
        wide = np.array(vectors, np.float64)
    except (TypeError, ValueError):
        wide = np.empty(0)
    if wide.shape != (len(vectors), dimensions) or not np.isfinite(wide).all():
        raise _invalid(f"vector: expected {dimensions} finite numbers")
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not ((lengths > 0) & np.isfinite(lengths)).all():
        raise _invalid("vector: expected one with a direction")
    lengths[np.abs(lengths - 1) < UNIT_TOLERANCE] = 1
    return (wide / lengths).astype(np.float32)


def _invalid(message: str) -> MeshError:
    return MeshError(Reason.REQUEST_INVALID, message)
