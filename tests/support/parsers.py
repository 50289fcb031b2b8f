"""Reading files with a pool, and looking at its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mesh.core.errors import MeshError
from mesh.core.types import DataClass
from node.index.documents import MetaDefaults, ParsedDocument
from node.index.parsing.intake import Skipped
from node.index.parsing.pool import ParserPool

DEFAULTS = MetaDefaults(id="f", classes=frozenset({DataClass.INTERNAL}), locked=frozenset({"tenant"}))

Outcome = list[ParsedDocument | Skipped] | MeshError


async def read(pool: ParserPool, path: Path, media: str, data: bytes | None = None) -> Outcome:
    """What became of a file, which is written first if `data` is given: its documents, or its refusal."""
    if data is not None:
        path.write_bytes(data)  # noqa: ASYNC240 - nobody else waits here
    try:
        return [found async for found in pool.parse(path, media, DEFAULTS)]
    except MeshError as error:
        return error


def texts(outcome: Outcome) -> list[str]:
    """All texts of all documents; fails if the file was refused."""
    assert isinstance(outcome, list), outcome
    return [block.text for found in outcome if isinstance(found, ParsedDocument) for block in found.blocks]


def worker_pids(pool: ParserPool) -> list[int]:
    return [worker.pid for worker in (*pool._idle, *pool._busy)]


def proc(pid: int, name: str) -> str:
    """What the kernel says of a process."""
    return Path(f"/proc/{pid}/{name}").read_text()


def start_parent(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Another Python that runs this code of ours; its output is a pipe."""
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
