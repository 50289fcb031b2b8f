"""Reads values.yaml with its comments: what each value is for, its default and its schema.

The description of a key is the comment right above it, down to the key from the last blank line or the last
value. Its line "@schema ..." is JSON, or the name of a shape (shapes.py); without one the schema follows from
the default. A mapping with keys takes these keys and no others. Pure: text in, values out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tools.chart.shapes import SHAPES

_MARK = "@schema "
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


class ValuesError(ValueError):
    """values.yaml does not keep to its own rules; the message names the key and its line."""


@dataclass(frozen=True, slots=True)
class Value:
    """One key. `children` are there for a mapping whose keys are fixed; `schema` is complete."""

    path: str
    description: str
    default: Any
    schema: Mapping[str, Any]
    children: tuple[Value, ...] = ()

    def leaves(self) -> Iterator[Value]:
        """Every value that is set by itself, in the file's order."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def read_values(text: str) -> tuple[Value, ...]:
    """The top level of the file. Raises ValuesError."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValuesError("expected a mapping")
    return _children(root, "", text.splitlines())


def _children(node: yaml.MappingNode, prefix: str, lines: list[str]) -> tuple[Value, ...]:
    found = []
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        where = f"{path} (line {key.start_mark.line + 1})"
        description, annotation = _comment_above(lines, key.start_mark.line, key.start_mark.column, where)
        found.append(_value(path, where, value, description, annotation, lines))
    return tuple(found)


def _value(
    path: str, where: str, node: yaml.Node, description: str, annotation: Mapping[str, Any], lines: list[str]
) -> Value:
    default = yaml.SafeLoader("").construct_document(node) if node is not None else None
    if isinstance(node, yaml.MappingNode) and not annotation:
        if not node.value:
            raise ValuesError(f"{where}: an empty mapping needs a line {_MARK.strip()}")
        children = _children(node, f"{path}.", lines)
        schema: dict[str, Any] = {
            "type": "object",
            "description": description,
            "additionalProperties": False,
            "properties": {child.path.rpartition(".")[2]: dict(child.schema) for child in children},
        }
        return Value(path, description, default, schema, children)
    schema = {"description": description, **_inferred(default, annotation, where), **annotation}
    return Value(path, description, default, schema)


def _inferred(default: Any, annotation: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "type" in annotation:
        return {}
    kind = _TYPES.get(type(default))
    if kind is None:
        raise ValuesError(f"{where}: a {type(default).__name__} needs a line {_MARK.strip()}")
    return {"type": kind}


def _comment_above(lines: list[str], line: int, column: int, where: str) -> tuple[str, Mapping[str, Any]]:
    words: list[str] = []
    annotation: Mapping[str, Any] = {}
    above = line - 1
    start = f"{' ' * column}# "
    while above >= 0 and lines[above].startswith(start):
        said = lines[above].removeprefix(start).strip()
        if said.startswith(_MARK):
            annotation = _annotation(said.removeprefix(_MARK), where)
        else:
            words.insert(0, said)
        above -= 1
    if not words:
        raise ValuesError(f"{where}: expected a comment that says what it is for")
    return " ".join(words), annotation


def _annotation(text: str, where: str) -> Mapping[str, Any]:
    if not text.startswith("{"):
        if text not in SHAPES:
            raise ValuesError(f"{where}: no shape is called {text}")
        return SHAPES[text]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValuesError(f"{where}: {error}") from None
    return dict(found)
