"""What a text or Markdown file says of itself: YAML between two lines of three dashes at its very start.

Every value is a string as it was written, so an id of 007 and a language of no stay what they are. A file
that begins like front matter and then is none is refused: what it wanted to say, such as its data
classes, must not be lost silently (I4). Keys that mean nothing here are ignored.
"""

from __future__ import annotations

import re

import yaml

from node.index.documents import OVERRIDES
from node.index.parsing.complaints import Complaint, ParseFailure

_MOST_CHARACTERS = 16_384
_FENCE = re.compile(r"---[ \t]*\n")
_END = re.compile(r"^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.MULTILINE)
_LOOKS_LIKE_A_KEY = re.compile(r"\s*(?:#[^\n]*\n\s*)*[\"']?[A-Za-z_][\w -]*[\"']?[ \t]*:(?:\s|\Z)")


def split(text: str) -> tuple[dict[str, object], str]:
    """What the front matter says, and the text after it. Raises ParseFailure."""
    opened = _FENCE.match(text)
    if opened is None or not _LOOKS_LIKE_A_KEY.match(text, opened.end(), opened.end() + _MOST_CHARACTERS):
        return {}, text
    closed = _END.search(text, opened.end(), opened.end() + _MOST_CHARACTERS)
    if closed is None:
        raise ParseFailure(Complaint.FRONT_MATTER)
    try:
        found = _read(yaml.compose(text[opened.end() : closed.start()], Loader=yaml.BaseLoader))
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ParseFailure(Complaint.FRONT_MATTER) from None
    return found, text[closed.end() :]


def _read(root: yaml.Node | None) -> dict[str, object]:
    if not isinstance(root, yaml.MappingNode):
        raise ValueError
    said: dict[str, object] = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError
        if key.value in OVERRIDES:
            if key.value in said:
                raise ValueError
            said[key.value] = _value(value)
    return said


def _value(node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return "" if node.style is None and node.value in ("null", "~") else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(each, yaml.ScalarNode) for each in node.value):
        return [str(each.value) for each in node.value]
    raise ValueError
