"""Texts of others, as they may be shown: on one line, and unable to drive a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a space for every character that is not printable."""
    if text.isprintable():  # nearly always, and by far faster
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of it, printable ones only; "…" where it was cut."""
    kept = printable(text[:limit])
    return kept if len(text) <= limit else kept[: limit - 1] + "…"
