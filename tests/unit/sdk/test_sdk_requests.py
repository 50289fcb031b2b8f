"""What callers ask for: bounds are kept before anything is placed."""

from __future__ import annotations

import pytest

from mesh.client import MeshError, Message, Reason, Sampling
from mesh.sdk.requests import MAX_PAYLOAD_BYTES, messages_of, texts_of


def reason_of(build: object) -> Reason:
    with pytest.raises(MeshError) as error:
        build()  # type: ignore[operator]
    return error.value.reason


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": 0},
        {"max_tokens": 8193},
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": -1},
        {"seed": 2**64},
        {"stop": ("",)},
        {"stop": ("x" * 65,)},
        {"stop": ("x",) * 9},
    ],
)
def test_sampling_is_bounded(bad: dict[str, object]):
    assert reason_of(lambda: Sampling(**bad)) is Reason.REQUEST_INVALID  # type: ignore[arg-type]


def test_messages_come_in_three_forms():
    expected = (Message("user", "hi"),)
    assert messages_of("hi") == messages_of([{"role": "user", "content": "hi"}]) == messages_of(expected)


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [{"role": "user"}],
        [{"role": "user", "content": "x", "name": "y"}],
        [{"role": "root", "content": "x"}],
        [{"role": "user", "content": "x"}] * 257,
    ],
)
def test_messages_are_checked(bad: list[dict[str, str]]):
    assert reason_of(lambda: messages_of(bad)) is Reason.REQUEST_INVALID


def test_what_is_too_large_is_refused_without_repeating_it():
    with pytest.raises(MeshError) as error:
        messages_of("secret" * MAX_PAYLOAD_BYTES)
    assert error.value.reason is Reason.REQUEST_TOO_LARGE
    assert "secret" not in str(error.value)


def test_texts_are_bounded():
    assert texts_of("one") == ("one",)
    assert reason_of(lambda: texts_of([])) is Reason.REQUEST_INVALID
    assert reason_of(lambda: texts_of(["x"] * 257)) is Reason.REQUEST_INVALID
