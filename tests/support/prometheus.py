"""Prometheus' own programs, where they can be had: PATH's, or Debian's package (tools/fetch_promtool.sh)."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/sovereign-mesh/files/rules/sovereign-mesh.yaml"


@functools.cache
def _folder() -> Path | str:
    """Where they are, or why they are nowhere."""
    script = ROOT / "tools/fetch_promtool.sh"
    found = subprocess.run([str(script)], capture_output=True, text=True, timeout=180, check=False)
    if found.returncode == 3:
        return found.stderr.strip().splitlines()[-1]
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())


def program(name: str) -> Path:
    """promtool or prometheus; skips the test, with the reason, where there is none."""
    folder = _folder()
    if isinstance(folder, str):
        pytest.skip(folder)
    path = folder / name
    if not path.exists():
        pytest.skip(f"there is promtool here, but no {name} beside it")
    return path


def promtool(*arguments: object, cwd: Path = ROOT) -> str:
    """What it prints; fails with that if it finds fault."""
    command = [str(program("promtool")), *map(str, arguments)]
    found = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr
