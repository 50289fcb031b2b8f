"""Whatever text arrives as policies or groups is read or refused with a reason; nothing else (I4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.core.cedar_text import read_policies
from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import Groups
from tests.property import generated as gen
from tests.support.snapshots import example_policies

GERMAN = example_policies()["de.mesh.example"]
SHIPPED = Groups.shipped().to_json()
PIECES = [
    "permit",
    "forbid",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ";",
    '"',
    "//",
    "\r",
    "if ",
    "&&",
    ".",
    "?principal",
    "\\",
]


@st.composite
def edited(draw: st.DrawFn, original: str) -> str:
    """The original with one stretch replaced by pieces, arbitrary text or a repetition of itself."""
    start = draw(st.integers(0, len(original)))
    end = min(len(original), start + draw(st.integers(0, 40)))
    inserted = draw(
        st.one_of(
            st.text(max_size=20),
            st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
            st.sampled_from(PIECES).map(lambda piece: piece * 3000),
            st.just(original[start:end] * 50),
        )
    )
    return original[:start] + inserted + original[end:]


def refusal(read: Callable[[str], object], text: str) -> Reason | None:
    try:
        read(text)
    except MeshError as error:
        return error.reason
    return None


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=400)
@given(st.one_of(st.text(), edited(GERMAN)))
@example("\ud800")
@example("\x00")
def test_policies(text: str) -> None:
    assert refusal(read_policies, text) in (None, Reason.POLICY_MALFORMED, Reason.POLICY_TOO_LARGE)


@pytest.mark.slow
@settings(gen.REPRODUCIBLE, max_examples=200)
@given(st.one_of(st.text(), edited(SHIPPED)))
@example("\ud800")
@example('{"groups": 1e999}')
@example('{"groups": ' + "9" * 5000 + "}")
def test_groups(text: str) -> None:
    assert refusal(Groups.from_json, text) in (None, Reason.GROUPS_MALFORMED)
