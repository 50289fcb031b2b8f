"""Writes docs/configuration.md from the models: every setting of both daemons, its bounds and its default.

`python -m tools.config_reference` writes the file; tests/architecture/test_docs.py fails where it is not what
this would write. Types, bounds and defaults come from the pydantic models, the words from the string below
each field in their source, which the models themselves have no use for at run time. A field without words is
an error here.
"""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from control.config import ControlSettings
from mesh.settings import Settings, require_address
from mesh.store.configured import BOARD_SECRETS
from node.config import NodeSettings

FILE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

_INTRODUCTION = """# Configuration

Made by `tools/config_reference.py` from the settings' models; change it there.

Each daemon has one YAML file: `mesh-node --config FILE`, `mesh-control --config FILE`, and `--check` to check
it and end. [mesh-node.yaml](../examples/config/mesh-node.yaml) and
[mesh-control.yaml](../examples/config/mesh-control.yaml) are commented examples to start from. An unknown,
malformed or contradictory setting is `CONFIG_INVALID`, exit code 2, and is named; nothing is started then.
Relative paths are taken from the file's folder. A setting without a value means its default. A file has at
most 256 KiB, and no key twice.

`meshctl` and the SDK have a profile instead, written by `meshctl client issue`, `meshctl admin issue` or
`meshctl authority init`.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as the table tells it."""

    path: str
    kind: str
    default: str
    words: str


@dataclass(frozen=True, slots=True)
class Group:
    """The settings of one model, at one place in the file."""

    path: str
    words: str
    rows: tuple[Row, ...]


def groups_of(model: type[Settings], path: str = "", words: str = "") -> Iterator[Group]:
    """The model's own settings, then those of the models within it, in the order of the source."""
    told = words_of(model)
    missing = set(model.model_fields) - set(told)
    if missing:
        raise LookupError(f"{model.__name__}: no words below {', '.join(sorted(missing))}")
    rows, inner = [], []
    for name, field in model.model_fields.items():
        where = f"{path}.{name}" if path else name
        below = _model_in(field.annotation)
        if below is not None:
            inner.append((below, where, told[name]))
        else:
            rows.append(Row(where, _kind(field), _default(field), told[name]))
    if rows:
        yield Group(path, words, tuple(rows))
    for below, where, its_words in inner:
        yield from groups_of(below, where, its_words)


def words_of(model: type[Settings]) -> dict[str, str]:
    """What the source says below each field of the class, and of those that it inherits from."""
    told: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, Settings) and base is not Settings):
            continue
        (written,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        lines = typing.cast(ast.ClassDef, written).body
        for one, next_one in itertools.pairwise(lines):
            match one, next_one:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    told[name] = " ".join(text.split())
    return told


def _model_in(annotation: Any) -> type[Settings] | None:
    """The model that a field is, or is unless it is left out."""
    for part in (annotation, *typing.get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Settings):
            return part
    return None


def _kind(field: FieldInfo) -> str:
    return _type(field.annotation, tuple(field.metadata))


def _type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0], (*arguments[1:], *metadata))
    if origin in (types.UnionType, typing.Union):
        (inner,) = [each for each in arguments if each is not type(None)]
        return _type(inner, metadata)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is list:
        least, most = _lengths(metadata)
        count = f"{least or 'none'} to {most}" if most is not None else "any number"
        return f"list of {count}: {_type(arguments[0])}"
    flat = [each for one in metadata for each in _flat(one)]
    if any(getattr(each, "func", None) is require_address for each in flat):
        return "host:port"
    if annotation is Path:
        return "path"
    if annotation is bool:
        return "`true`, `false`"
    if annotation in (int, float):
        return f"{'integer' if annotation is int else 'number'}{_bounds(flat)}"
    if annotation is SecretStr:
        return "text, secret"
    if annotation is str:
        _, most = _lengths(flat)
        return f"text of at most {most}" if most is not None else "text"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    raise LookupError(f"no words for the type {annotation!r}")


def _flat(metadata: Any) -> Iterator[Any]:
    if isinstance(metadata, FieldInfo):
        yield from metadata.metadata
    else:
        yield metadata


def _lengths(metadata: Any) -> tuple[int | None, int | None]:
    least = [each.min_length for each in metadata if isinstance(each, annotated_types.MinLen)]
    most = [each.max_length for each in metadata if isinstance(each, annotated_types.MaxLen)]
    return (least[0] if least else None, most[0] if most else None)


def _bounds(metadata: list[Any]) -> str:
    low = high = ""
    for each in metadata:
        match each:
            case annotated_types.Ge(ge=value):
                low = _number(value)
            case annotated_types.Gt(gt=value):
                low = f"more than {_number(value)}"
            case annotated_types.Le(le=value):
                high = _number(value)
            case annotated_types.Lt(lt=value):
                high = f"less than {_number(value)}"
    if low and high:
        return f", {low} to {high}" if high[0].isdigit() else f", {low} and {high}"
    return f", {low or 'any'} and more" if low else (f", at most {high}" if high else "")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        raise LookupError("a default that the model does not tell")
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", [], ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def table(rows: tuple[Row, ...]) -> list[str]:
    """As Markdown."""
    lines = ["| setting | what it takes | default | |", "| --- | --- | --- | --- |"]
    for row in rows:
        lines.append(f"| `{row.path}` | {row.kind} | {row.default} | {row.words} |")
    return lines


def section(title: str, model: type[Settings], secrets: Mapping[str, str]) -> list[str]:
    """All of one daemon."""
    lines = [f"## {title}", ""]
    for group in groups_of(model):
        if group.path:
            lines += [f"### `{group.path}`", "", group.words, ""]
        lines += [*table(group.rows), ""]
    lines += ["Environment variables that stand above the file, for secrets:", ""]
    lines += [f"- `{variable}`: `{setting}`" for variable, setting in sorted(secrets.items())]
    return [*lines, ""]


def render() -> str:
    """The whole document."""
    return "\n".join(
        [
            _INTRODUCTION,
            *section("mesh-node", NodeSettings, BOARD_SECRETS),
            *section("mesh-control", ControlSettings, BOARD_SECRETS),
        ]
    )


if __name__ == "__main__":
    FILE.write_text(render())
