"""The locks: what the project asks for is pinned, and the smaller locks agree with the one that is tested."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")


def pins(name: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / "requirements" / f"{name}.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            match = _PIN.fullmatch(line)
            assert match, f"{name}.lock: {line} is no exact pin"
            package = canonicalize_name(match[1])
            assert package not in found, f"{name}.lock pins {package} twice"
            found[package] = match[2]
    return found


def wanted(package: str, extras: set[str]) -> list[Requirement]:
    """What a package asks for on this platform, with these extras."""
    if package == "sovereign-mesh":
        # As it is written, and not as it was when it was installed.
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        own = project["optional-dependencies"]
        texts = [*project["dependencies"], *(text for extra in extras for text in own.get(extra, []))]
        return [Requirement(text) for text in texts]
    asked = [Requirement(text) for text in requires(package) or []]
    return [
        requirement
        for requirement in asked
        if not requirement.marker
        or any(requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""}))
    ]


def extras_of(name: str) -> set[str]:
    """The extras of this project that a lock is made with."""
    line = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()[0]
    match = re.fullmatch(r"-e \.\[([a-z,-]+)\]", line)
    assert match, f"{name}.in opens with this project"
    return set(match[1].split(","))


@pytest.mark.parametrize("name", ["cpu", "dev", "control", "gpu", "chart-tools"])
def test_every_line_is_an_exact_pin(name: str) -> None:
    assert len(pins(name)) > 20


def test_the_control_lock_is_what_the_core_needs_and_no_more() -> None:
    locked = pins("control")
    everything = pins("cpu")
    needed: set[str] = {"setuptools"}
    queue = [
        (canonicalize_name(r.name), frozenset(r.extras))
        for r in wanted("sovereign-mesh", extras_of("control"))
    ]
    seen = set()
    while queue:
        package, extras = queue.pop()
        if (package, extras) in seen:
            continue
        seen.add((package, extras))
        needed.add(package)
        queue += [(canonicalize_name(r.name), frozenset(r.extras)) for r in wanted(package, set(extras))]
    assert set(locked) == needed, "run tools/lock.sh"
    differing = {name: (locked[name], everything.get(name)) for name in locked}
    assert all(ours == tested for ours, tested in differing.values()), differing


@pytest.mark.parametrize("lock", ["cpu", "gpu", "control"])
def test_a_lock_satisfies_what_the_project_asks_for(lock: str) -> None:
    locked = pins(lock)
    extras = extras_of(lock) | ({"retrieval"} if lock != "control" else set())
    for requirement in wanted("sovereign-mesh", extras):
        name = canonicalize_name(requirement.name)
        if name != "sovereign-mesh":
            assert name in locked, f"{requirement}: run tools/lock.sh"
            assert requirement.specifier.contains(locked[name], prereleases=True), requirement


def test_the_gpu_lock_has_the_tested_core() -> None:
    """Where a control plane and a node on GPUs share code, they share versions."""
    locked = pins("gpu")
    assert {name: locked[name] for name in pins("control")} == pins("control")


def test_control_plane_and_meshctl_import_nothing_that_their_lock_lacks() -> None:
    """The image `control` is made of that lock, and runs the control plane, meshctl and the chart's Jobs."""
    distributions = packages_distributions()
    locked = set(pins("control"))
    files = [path for package in ("mesh", "control", "sovereign") for path in (ROOT / package).rglob("*.py")]
    files += (ROOT / "helm" / "sovereign-mesh" / "files" / "scripts").glob("*.py")
    missing = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                found = {canonicalize_name(distribution) for distribution in distributions.get(name, [])}
                if name not in {"mesh", "control", "sovereign"} and not found & locked:
                    missing.add((str(path.relative_to(ROOT)), name))
    assert not missing
