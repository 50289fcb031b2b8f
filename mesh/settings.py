"""Configuration files: one YAML file a daemon, read strictly.

A setting that is unknown, of the wrong type, out of bounds or at odds with another one is
CONFIG_INVALID, and the message names it by its path ("board.endpoints"). Values are never repeated in
messages: one of them may be a secret that went into the wrong line. Secrets may come from the
environment instead of the file. Which settings exist is for node/config.py and control/config.py;
the groups that both have are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mesh.core.errors import MeshError, Reason
from mesh.core.permits import MAX_TTL_S, PERMIT_TTL_S

MAX_FILE_BYTES = 256 * 1024


class Settings(BaseModel):
    """Base of every group of settings: frozen, and nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port")
    return text


Address = Annotated[str, AfterValidator(_address)]


class PlacementSettings(Settings):
    """How a daemon that places requests does it."""

    # How long its permits hold. Nodes refuse longer ones than MAX_TTL_S.
    permit_ttl_s: Annotated[float, Field(ge=5, le=MAX_TTL_S)] = PERMIT_TTL_S


class LogSettings(Settings):
    """What a daemon writes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class TraceSettings(Settings):
    """Where spans go: an OpenTelemetry collector, OTLP over gRPC. Without an endpoint there are none."""

    endpoint: Address | None = None
    # The authority to check the collector with. Without one the way to it is not encrypted.
    ca: Path | None = None
    # Of the requests that arrive without a trace from a caller of the own authority.
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _complete(self) -> TraceSettings:
        if self.ca is not None and self.endpoint is None:
            raise ValueError("ca is of no use without endpoint")
        return self


class TelemetrySettings(Settings):
    """What a daemon shows of itself: /metrics, /livez and /readyz over HTTP, and spans."""

    listen: Address | None = None
    traces: TraceSettings = TraceSettings()

    def beside(self, folder: Path) -> TelemetrySettings:
        """The same with relative paths taken from `folder`."""
        if self.traces.ca is None:
            return self
        traces = self.traces.model_copy(update={"ca": folder / self.traces.ca})
        return self.model_copy(update={"traces": traces})


_S = TypeVar("_S", bound=Settings)


def load_settings(
    kind: type[_S], path: Path, environment: Mapping[str, str], secrets: Mapping[str, str]
) -> _S:
    """Reads and checks a file. `secrets` maps environment variables to the settings they override.

    Relative paths in the file are the caller's to resolve, against the file's folder.
    """
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: expected settings, one a line")
    found = _without_blanks(found)
    for variable, setting in secrets.items():
        if environment.get(variable):
            _put(found, setting.split("."), environment[variable])
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: {_explain(error)}") from None


def read_yaml(path: Path) -> Any:
    """A YAML document of at most 256 KiB; raises CONFIG_INVALID with the line."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: {error.strerror}") from error
    if len(text) > MAX_FILE_BYTES:
        raise MeshError(Reason.CONFIG_INVALID, f"{path}: expected at most {MAX_FILE_BYTES} bytes")
    try:
        return yaml.load(text, Loader=_NoDuplicates)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise MeshError(
            Reason.CONFIG_INVALID, f"{path}: not YAML{where}: {getattr(error, 'problem', '')}"
        ) from None


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets a key appear twice and takes the last one; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, if every key is there once."""
        plain = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in plain]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, "a setting appears twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _without_blanks(settings: dict[str, Any]) -> dict[str, Any]:
    """A setting without a value, or a group whose lines are all commented out, means the default."""
    return {
        key: _without_blanks(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if value is not None
    }


def _put(settings: dict[str, Any], path: list[str], value: str) -> None:
    for part in path[:-1]:
        inner = settings.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # of the wrong type anyway; validation will say so
        settings = inner
    settings[path[-1]] = value


def _explain(error: ValidationError) -> str:
    """Every problem as "path: what was expected", without the values."""
    problems = []
    for problem in error.errors(include_input=False, include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            what = "no such setting"
        elif problem["type"] == "missing":
            what = "missing"
        else:
            what = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {what}" if where else what)
    return "; ".join(problems[:10])
