"""The programs in .venv-chart that check the chart, the Dockerfile and the workflows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-chart" / "bin"


def tool(name: str) -> Path:
    """The path of a program there; the test is skipped where the environment was not set up."""
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"{name} is not in .venv-chart: run make setup")
    return path


def run_tool(
    name: str, *arguments: str | Path, input_text: str | None = None, seconds: float = 110
) -> subprocess.CompletedProcess[str]:
    """Run it in the repository's root, with nothing but a PATH and without the network's proxies."""
    return subprocess.run(
        [str(tool(name)), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, input=input_text, timeout=seconds, check=False,
        env={"PATH": f"{TOOLS}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/tmp")},
    )  # fmt: skip
