"""What the documents name exists: paths, make targets, commands, Python names, policies, error codes."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from control.cli.main import app
from mesh.core.errors import Reason
from mesh.core.expectations import read_table, run_table
from mesh.core.policy import validate_policy
from mesh.telemetry.metrics import CATALOGUE
from node.models.cli import app as mesh_model
from tools import config_reference, errors_table, metrics_table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "runbooks").glob("*.md")),
    ROOT / "requirements/README.md",
    ROOT / "helm/sovereign-mesh/README.md",
    *sorted((ROOT / "helm" / "examples").glob("*/README.md")),
]
TOP = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}

_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH = re.compile(r"[A-Za-z0-9_.*/-]+")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_MESHCTL = re.compile(r"(?<![\w/.-])meshctl ([^|;&<>)\n]*)")
_DAEMON = re.compile(r"(?<![\w/.-])(mesh-node|mesh-control) (--[^|;&<>)\n]*)")
_MESH_MODEL = re.compile(r"(?<![\w/.-])mesh-model ([^|;&<>)\n]*)")


def documents() -> Any:
    return pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))


def blocks(path: Path, language: str) -> list[str]:
    return [body for name, body in _FENCE.findall(path.read_text()) if name == language]


def inline(path: Path) -> list[str]:
    return _INLINE.findall(_FENCE.sub("", path.read_text()))


def commands(path: Path) -> Iterator[list[str]]:
    """Every meshctl command line of the code blocks, as arguments."""
    for body in blocks(path, "bash"):
        for found in _MESHCTL.findall(body.replace("\\\n", " ")):
            yield shlex.split(found)


@functools.cache
def meshctl() -> Any:
    return typer.main.get_command(app)


def resolve(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the rest."""
    command = meshctl()
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"meshctl has no {' '.join(arguments)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def test_the_scan_sees_the_documents() -> None:
    names = {path.name for path in DOCUMENTS}
    assert {"README.md", "ARCHITECTURE.md", "LIMITATIONS.md", "getting-started.md", "errors.md"} <= names
    assert {"sovereign-mesh", "laptop", "federation"} <= {path.parent.name for path in DOCUMENTS}
    assert sum(len(list(commands(path))) for path in DOCUMENTS) > 40


@documents()
def test_paths_in_backticks_exist(path: Path) -> None:
    for text in inline(path):
        named = text.removesuffix("/")
        if not _PATH.fullmatch(named) or named.startswith("/") or "/" not in named:
            if not re.fullmatch(r"[A-Z]+\.md", named):
                continue
        elif named.split("/")[0] not in TOP:
            continue
        assert list(ROOT.glob(named)), f"{path.name} names {text}"


@documents()
def test_links_lead_somewhere(path: Path) -> None:
    for target in _LINK.findall(path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@documents()
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    spoken = inline(path) + [line for body in blocks(path, "bash") for line in body.splitlines()]
    spoken += [line for body in blocks(path, "") for line in body.splitlines()]
    for text in spoken:
        if text.startswith("make "):
            words = [w for w in shlex.split(text.partition("#")[0])[1:] if "=" not in w]
            assert set(words) <= targets, f"{path.name} says {text}"


@documents()
def test_command_lines_parse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MESHCTL_JOIN_TOKEN", "as in the line before it")
    for arguments in commands(path):
        command, rest = resolve(arguments)
        try:
            command.make_context(command.name, rest)
        except typer.TyperException as error:
            pytest.fail(f"{path.name}: meshctl {shlex.join(arguments)}: {error.format_message()}")
    for body in blocks(path, "bash"):
        for name, options in _DAEMON.findall(body):
            assert set(re.findall(r"--[a-z-]+", options)) <= {"--config", "--check"}, f"{name} {options}"


@documents()
def test_commands_in_sentences_exist(path: Path) -> None:
    for text in inline(path):
        if not text.startswith("meshctl ") or "|" in text:
            continue
        command, rest = resolve(shlex.split(text)[1:])
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, f"{path.name} says {text}"


def test_command_lines_of_mesh_model_parse() -> None:
    command = typer.main.get_command(mesh_model)
    found = [
        line for path in DOCUMENTS for body in blocks(path, "bash") for line in _MESH_MODEL.findall(body)
    ]
    assert len(found) >= 4
    for line in found:
        name, *rest = shlex.split(line)
        chosen = command.commands[name]  # type: ignore[attr-defined]
        chosen.make_context(name, rest)


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    for name in meshctl().commands:
        assert f"`{name}`" in text, name


def test_the_readmes_program_uses_what_exists() -> None:
    (source,) = blocks(ROOT / "README.md", "python")
    lines = source.splitlines()
    assert len([line for line in lines if line.strip()]) <= 20
    tree = ast.parse(source)
    compile(tree, "README.md", "exec")
    known: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {name for alias in node.names for name in dir(importlib.import_module(alias.name))}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                known |= set(dir(getattr(module, alias.name)))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used <= known, used - known


def test_the_table_of_errors_is_current() -> None:
    assert set(errors_table.words()) == set(Reason)
    assert (ROOT / "docs" / "errors.md").read_text() == errors_table.render(), (
        "run python -m tools.errors_table"
    )


def test_every_setting_is_in_the_reference() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == config_reference.render(), (
        "run python -m tools.config_reference"
    )


def test_the_table_of_metrics_is_current() -> None:
    names = [metric.name for metric in metrics_table.sectioned()]
    assert sorted(names) == sorted(metric.name for metric in CATALOGUE)
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_table.render(), (
        "run python -m tools.metrics_table"
    )


def test_policies_in_the_documents_hold() -> None:
    path = ROOT / "docs" / "policies.md"
    example, addition = blocks(path, "cedar")
    outcomes = run_table(read_table(yaml.safe_load(blocks(path, "yaml")[0])), example)
    assert [outcome.problem for outcome in outcomes if outcome.problem] == []
    validate_policy((ROOT / "examples" / "policies" / "de.cedar").read_text() + addition)


def test_policies_quoted_for_documents_are_the_examples() -> None:
    quoted = blocks(ROOT / "docs" / "retrieval.md", "cedar")
    example = (ROOT / "examples" / "policies" / "de.cedar").read_text()
    assert len(quoted) == 2
    assert all(policy in example for policy in quoted)


def test_every_policy_attribute_is_documented() -> None:
    schema = (ROOT / "mesh/core/data/mesh.cedarschema").read_text()
    text = (ROOT / "docs" / "policies.md").read_text()
    for name in re.findall(r"^\s+(\w+): [A-Z]", schema, re.M):
        assert f".{name}`" in text, name


@documents()
def test_nothing_is_called_compliant(path: Path) -> None:
    sentences = re.findall(r"[^.\n]*\bcomplian\w*[^.\n]*", path.read_text(), re.I)
    assert all("Nothing here may be called" in sentence for sentence in sentences), sentences
