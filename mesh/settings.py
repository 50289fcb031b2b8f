"""Reading configuration files: YAML into a pydantic model, strictly.

A setting that is unknown, missing, of the wrong kind, given twice or contradicted by another is an
error that names it by its path in the file (CONFIG_INVALID). Values are never repeated in errors: a
configuration may hold secrets.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mesh.core.errors import MeshError, Reason

MAX_CONFIG_BYTES = 1024 * 1024

_S = TypeVar("_S", bound="Settings")


class Settings(BaseModel):
    """Base of every configuration: nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class _UniqueKeys(yaml.SafeLoader):
    """YAML as PyYAML reads it, save that a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, name: str) -> Any:
    """Parses YAML; raises CONFIG_INVALID with the line. `name` is what to call the file in errors."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "not YAML"
        raise MeshError(Reason.CONFIG_INVALID, f"{where}: {problem}") from None


def read_settings(path: Path, model: type[_S]) -> _S:
    """Reads and validates a file; raises CONFIG_INVALID naming every offending setting."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MeshError(
            Reason.CONFIG_INVALID, f"{path}: cannot be read ({error.strerror or 'I/O error'})"
        ) from None
    if len(data) > MAX_CONFIG_BYTES:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: expected at most 1 MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: expected UTF-8 text") from None
    return validate(parse_yaml(text, str(path)), model, str(path))


def validate(data: Any, model: type[_S], name: str) -> _S:
    """Validates parsed settings; raises CONFIG_INVALID naming every offending setting."""
    if not isinstance(data, dict):
        raise MeshError(Reason.CONFIG_INVALID, f"{name}: expected settings, one per line")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_problem(e["loc"], e["type"], e["msg"]) for e in error.errors()[:8])
        raise MeshError(Reason.CONFIG_INVALID, f"{name}: {problems}") from None


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> str:
    setting = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return f"{setting}: no such setting"
    if kind == "missing":
        return f"{setting}: missing"
    message = message.removeprefix("Value error, ")
    return f"{setting}: {message}" if setting else message
