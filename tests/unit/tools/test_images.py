"""The Dockerfile: linted, pinned, non-root, built by the steps and from the files of `make setup`."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.chart_tools import run_tool

ROOT = Path(__file__).parents[3]
TARGETS = {"cpu": "cpu", "gpu": "gpu", "control": "control"}  # target: its lock


@dataclass
class Stage:
    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for found, rest in self.instructions if found == word]


def stages() -> dict[str, Stage]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            stage = found.setdefault(name, Stage(name, base))
        elif word:
            stage.instructions.append((word, rest.strip()))
    return found


def ancestry(name: str) -> list[Stage]:
    all_stages = stages()
    chain = []
    while name in all_stages:
        chain.append(all_stages[name])
        name = all_stages[name].base
    return chain


def test_hadolint_has_nothing_to_say() -> None:
    result = run_tool("hadolint", "Dockerfile")
    assert result.returncode == 0, result.stdout


def test_the_base_is_pinned_by_digest() -> None:
    all_stages = stages()
    outside = {stage.base for stage in all_stages.values()} - set(all_stages)
    assert len(outside) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", outside.pop())


@pytest.mark.parametrize("target", TARGETS)
def test_it_runs_as_nobody_special(target: str) -> None:
    stage = stages()[target]
    assert stage.all("USER") == ["10001:10001"]
    assert [word for word, _ in stage.instructions].index("USER") > max(
        i for i, (word, _) in enumerate(stage.instructions) if word in {"RUN", "COPY"}
    )
    assert stage.all("HEALTHCHECK") == ["NONE"]
    assert stage.all("COPY") == [f"--from=build-{target} /opt/sovereign-mesh /opt/sovereign-mesh"]


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_gpu_image_has_a_compiler(target: str) -> None:
    installs = " ".join(run for stage in ancestry(target) for run in stage.all("RUN") if "apt-get" in run)
    assert ("gcc" in installs) == (target == "gpu")
    assert "libnuma1" in installs or target == "control"


@pytest.mark.parametrize(("target", "lock"), TARGETS.items())
def test_it_is_built_by_the_steps_of_make_setup(target: str, lock: str) -> None:
    steps = [
        step
        for stage in reversed(ancestry(f"build-{target}"))
        for run in stage.all("RUN")
        for step in run.split("&&")
    ]
    said = [step[step.index("tools/") :].strip() for step in steps if "tools/install.sh" in step]
    assert said == [
        f"tools/install.sh packages /opt/sovereign-mesh requirements/{lock}.lock",
        "tools/install.sh project /opt/sovereign-mesh",
        "tools/install.sh strip /opt/sovereign-mesh",
        "tools/install.sh bytecode /opt/sovereign-mesh",
    ]
    assert not [step for step in steps if "pip install" in step]
    setup = (ROOT / "tools" / "setup.sh").read_text()
    assert "pip install" not in setup
    for step in ("packages", "project", "bytecode"):
        assert f"tools/install.sh {step}" in setup


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the builder: the last line that matches decides."""
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        parts = path.split("/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if any(fnmatch.fnmatch(prefix, pattern.removeprefix("**/")) for prefix in prefixes) or any(
            pattern.startswith("**/") and fnmatch.fnmatch(part, pattern[3:]) for part in parts
        ):
            result = not line.startswith("!")
    return result


def test_what_is_copied_is_there_and_sent() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = tracked.stdout.splitlines()
    sources = {
        source
        for stage in stages().values()
        for copy in stage.all("COPY")
        if not copy.startswith("--from")
        for source in copy.split()[:-1]
    }
    assert {"sovereign", "mesh", "node", "control", "pyproject.toml", "tools/install.sh"} <= sources
    for source in sources:
        held = [name for name in files if name == source or name.startswith(f"{source}/")]
        assert held, f"{source} is not in the repository"
        assert not [name for name in held if ignored(name)], f".dockerignore keeps {source} away"
    sent = [name for name in files if not ignored(name)]
    assert {name.split("/")[0] for name in sent} <= {source.split("/")[0] for source in sources}


def test_every_package_is_copied() -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    for target in TARGETS:
        copied = {copy.split()[0] for copy in stages()[f"build-{target}"].all("COPY")}
        assert {pattern.removesuffix("*") for pattern in included["include"]} <= copied


def test_build_image_names_the_targets_and_gives_the_time(tmp_path: Path) -> None:
    script = ROOT / "tools" / "build_image.sh"
    refused = subprocess.run([script, "other"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "cpu|gpu|control" in refused.stderr
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$BUILDX_NO_DEFAULT_ATTESTATIONS" "$@"\n')
    docker.chmod(0o755)
    for target in TARGETS:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": "1700000000"}
        said = subprocess.run(
            [script, target, "--pull"], capture_output=True, text=True, check=True, env=environment
        ).stdout
        assert said.startswith("1 buildx build ")
        assert f"--target {target} " in said
        assert "--build-arg SOURCE_DATE_EPOCH=1700000000 " in said
        assert said.rstrip().endswith("--pull .")
