"""Which entries of a log somebody wants to see. Strict: a word that cannot match anything is an error.

Times are UTC: a day (2026-03-01), a moment (2026-03-01T12:00:00Z, with an offset if it is not UTC), or so
long ago (15m, 24h, 7d, 2w). A period begins at its first moment and ends before its last. Everything raises
REQUEST_INVALID with what was expected, COUNTRY_UNKNOWN or DATA_CLASS_UNKNOWN.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.core.audit_entries import MAX_TIME, Kind, LoggedEntry
from mesh.core.errors import MeshError, Reason
from mesh.core.jurisdictions import require_country
from mesh.core.strict_json import MAX_TEXT_CHARS
from mesh.core.types import parse_data_class

OUTCOMES = frozenset({"permitted", "served", "refused", "begun", "done", "failed"})

_AGO = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?")


@dataclass(frozen=True, slots=True)
class Period:
    """From `start`, before `end`, Unix seconds; None is open."""

    start: float | None = None
    end: float | None = None

    def __contains__(self, at: float) -> bool:
        return (self.start is None or self.start <= at) and (self.end is None or at < self.end)


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """What an entry must be; what is empty matches all. Use `filter_of`.

    `caller` is a whole name or a part of one, of whoever was on the connection or of the client asked for.
    """

    period: Period = field(default_factory=Period)
    kinds: frozenset[Kind] = frozenset()
    caller: str = ""
    data_class: str = ""
    purpose: str = ""
    outcome: str = ""
    from_country: str = ""
    to_country: str = ""
    id: str = ""

    def matches(self, entry: LoggedEntry) -> bool:
        """Whether the entry is wanted."""
        return (
            entry.at in self.period
            and (not self.kinds or entry.kind in self.kinds)
            and (not self.caller or self.caller in entry.caller or self.caller in entry.requester)
            and (not self.data_class or self.data_class in entry.data_classes)
            and (not self.purpose or self.purpose == entry.purpose)
            and (not self.outcome or self.outcome == entry.outcome)
            and (not self.from_country or self.from_country == entry.from_country)
            and (not self.to_country or self.to_country in entry.destinations)
            and (not self.id or self.id in entry.ids)
        )


def filter_of(
    *,
    now: float,
    kinds: Iterable[str] = (),
    since: str = "",
    until: str = "",
    caller: str = "",
    data_class: str = "",
    purpose: str = "",
    outcome: str = "",
    from_country: str = "",
    to_country: str = "",
    id: str = "",
) -> EntryFilter:
    """The filter that these words state; `now` (Unix seconds) is what 24h counts back from."""
    if outcome and outcome not in OUTCOMES:
        raise _invalid("outcome", "one of " + ", ".join(sorted(OUTCOMES)))
    for what, text in (("caller", caller), ("purpose", purpose), ("id", id)):
        if len(text) > MAX_TEXT_CHARS:
            raise _invalid(what, f"at most {MAX_TEXT_CHARS} characters")
    return EntryFilter(
        period_of(since, until, now),
        frozenset(_kind(kind) for kind in kinds),
        caller,
        parse_data_class(data_class).value if data_class else "",
        purpose,
        outcome,
        require_country(from_country) if from_country else "",
        require_country(to_country) if to_country else "",
        id,
    )


def period_of(since: str, until: str, now: float) -> Period:
    """The period between two times as people write them; "" is open."""
    start = parse_time(since, now, "from") if since else None
    end = parse_time(until, now, "to") if until else None
    if start is not None and end is not None and start >= end:
        raise _invalid("to", "a time after from")
    return Period(start, end)


def parse_time(text: str, now: float, what: str = "time") -> float:
    """Unix seconds of a day, a moment or so long ago; a day begins at 00:00 UTC."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    if not (_DAY.fullmatch(text) or _MOMENT.fullmatch(text)) or not text.isascii():
        raise _invalid(what, "a UTC time such as 2026-03-01 or 2026-03-01T12:00:00Z, or so long ago: 24h, 7d")
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise _invalid(what, "a day and an hour that exist") from None


def time_text(at: float | None) -> str:
    """The moment in ISO 8601, UTC, to the second; "" for None."""
    if at is None:
        return ""
    moment = datetime.datetime.fromtimestamp(min(max(at, 0.0), MAX_TIME), datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        raise _invalid("kind", "one of " + ", ".join(kind.value for kind in Kind)) from None


def _invalid(what: str, expected: str) -> MeshError:
    return MeshError(Reason.REQUEST_INVALID, f"{what}: expected {expected}")
