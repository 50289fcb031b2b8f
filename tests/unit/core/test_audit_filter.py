"""Choosing entries: words are read strictly, and each of them takes away what it should."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.core.audit_entries import read_entry
from mesh.core.audit_filter import Period, filter_of, parse_time, period_of, time_text
from mesh.core.errors import MeshError, Reason
from tests.support.audit_log import AT, context, leaves_of, place, release, search, serve, shard

ENTRIES = [
    read_entry(leaf)
    for leaf in leaves_of(
        "log",
        [
            place("d0", "de", ["fr"], refused={"us": "POLICY_SENDER_DENIES"}),
            serve("s1", "fr", "de", cites="d0", at=AT + 10),
            serve("s2", "de", "fr", context=context(["internal"], "support"), at=AT + 20),
            serve("s3", "us", "us", refused="POLICY_RECEIVER_DENIES", at=AT + 30),
            search("q4", "de", ["de", "fr"], at=AT + 40),
            shard("h5", "fr", "de", cites="q4", at=AT + 50),
            release("h5", "fr", "de", {"snippet": 1}, asked="q4", at=AT + 60),
        ],
    )
]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"kinds": ["serve"]}, [1, 2, 3]),
        ({"kinds": ["place", "release"]}, [0, 6]),
        ({"since": "2026-03-01T12:00:10Z", "until": "2026-03-01T12:00:30Z"}, [1, 2]),
        ({"since": "35s"}, [3, 4, 5, 6]),
        ({"caller": "fr.mesh"}, [2]),
        ({"caller": "client/clinic", "kinds": ["shard"]}, [5]),
        ({"data_class": "internal"}, [2]),
        ({"data_class": "https://w3id.org/dpv#PersonalData"}, [0, 1, 3, 4, 5, 6]),
        ({"purpose": "support"}, [2]),
        ({"outcome": "refused"}, [3]),
        ({"outcome": "permitted"}, [0]),
        ({"from_country": "FR"}, [2, 6]),
        ({"to_country": "FR"}, [0, 1, 4, 5]),
        ({"to_country": "US"}, [0, 3]),
        ({"id": "d0"}, [0, 1]),
        ({"id": "q4"}, [4, 5, 6]),
        ({"id": "nobody"}, []),
    ],
    ids=str,
)
def test_each_word_takes_away_what_it_should(words: dict[str, Any], expected: list[int]):
    wanted = filter_of(now=AT + 60, **words)
    assert [entry.index for entry in ENTRIES if wanted.matches(entry)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01", AT - 12 * 3600),
        ("2026-03-01T12:00:00Z", AT),
        ("2026-03-01 12:00", AT),
        ("2026-03-01T14:00:00+02:00", AT),
        ("2026-03-01T12:00:00.5Z", AT + 0.5),
        ("90s", AT - 90),
        ("15m", AT - 900),
        ("24h", AT - 86_400),
        ("7d", AT - 7 * 86_400),
        ("2w", AT - 14 * 86_400),
    ],
)
def test_times(text: str, expected: float):
    assert parse_time(text, AT) == expected


@pytest.mark.parametrize(
    "text",
    ["yesterday", "24", "0h", "-1h", "1.5h", "2026-13-01", "2026-02-30", "2026-03-01T25:00", "20260301", "1y",
     "2026-03-01T12:00:00+99:00", "\uff12\uff14h", "2026-03-01T12", "9999999d"],
)  # fmt: skip
def test_what_is_no_time(text: str):
    with pytest.raises(MeshError) as caught:
        parse_time(text, AT, "from")
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert caught.value.message.startswith("from: expected ")


def test_a_period_begins_before_it_ends_and_holds_its_first_moment_only():
    period = period_of("2026-03-01", "2026-03-02", AT)
    assert AT in period
    assert AT - 12 * 3600 in period
    assert AT + 12 * 3600 not in period
    assert 0.0 in Period()
    with pytest.raises(MeshError, match="a time after from"):
        period_of("2026-03-02", "2026-03-01", AT)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"kinds": ["serv"]}, Reason.REQUEST_INVALID),
        ({"outcome": "ok"}, Reason.REQUEST_INVALID),
        ({"data_class": "secret"}, Reason.DATA_CLASS_UNKNOWN),
        ({"from_country": "XX"}, Reason.COUNTRY_UNKNOWN),
        ({"to_country": "de"}, Reason.COUNTRY_UNKNOWN),
        ({"caller": "x" * 600}, Reason.REQUEST_INVALID),
        ({"since": "soon"}, Reason.REQUEST_INVALID),
    ],
    ids=str,
)
def test_a_word_that_can_match_nothing_is_an_error(words: dict[str, Any], reason: Reason):
    with pytest.raises(MeshError) as caught:
        filter_of(now=AT, **words)
    assert caught.value.reason is reason


def test_times_as_text():
    assert time_text(AT) == "2026-03-01T12:00:00Z"
    assert (time_text(None), time_text(-5.0), time_text(1e300)) == (
        "", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    )  # fmt: skip
