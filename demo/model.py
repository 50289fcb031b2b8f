"""Which model the demo's nodes run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class DemoModel:
    """A model by its folder or hub id. `reads`: whether it can answer from passages."""

    path: Path | str
    name: str
    reads: bool
    about: str = ""


def named(model: str) -> DemoModel:
    """The model that somebody asked for."""
    return DemoModel(model, Path(model).name, reads=True)


def shipped(folder: Path) -> DemoModel:
    """What the demo runs unless told otherwise: a tiny model with random weights, built in seconds if it is
    not there yet."""
    command = [sys.executable, "-m", "node.engine.tiny_model", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return DemoModel(folder, "tiny", reads=False, about="a tiny one with random weights: it speaks nonsense")
