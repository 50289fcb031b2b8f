"""The walk-through of docs/retrieval.md, run as it stands on the demo's mesh.

Only two things differ: the engines are scripted ones, so answers are quoted, and the folders are temporary
ones. Documents, embeddings, policies and processes are the demo's own.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.asking import documents_are_taken_in
from demo.model import DemoModel
from demo.node import DemoNode
from demo.telling import Teller
from demo.world import World
from node.engine.embedder import embedder_digest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "retrieval.md"
# The demo's own, so that the model is not exported for every test.
EMBEDDER = ROOT / ".state" / "embedder"
TIMEOUT_S = 200


class Scripted(World):
    """The demo's mesh without Ray and vLLM."""

    async def add_node(
        self, country: str, name: str, *, controller: str | None = None, scripted: bool = True
    ) -> DemoNode:
        return await super().add_node(country, name, controller=controller, scripted=True)

    async def meshctl(self, *arguments: str, profile: Path | None = None) -> dict[str, Any]:
        """A scripted engine does not serve the embedder that the documents are embedded with, so its digest
        is stated."""
        stated: tuple[str, ...] = ()
        if arguments[:2] == ("collection", "apply"):
            stated = ("--embedder-digest", embedder_digest(EMBEDDER / "digests.json"))
        return await super().meshctl(*arguments, *stated, profile=profile)


def script(mesh: Path, scratch: Path) -> str:
    """The blocks of the last section, with these folders."""
    _, section = DOCUMENT.read_text().split("\n## Walk through it\n")
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S))
    for old, new in (
        ("make demo KEEP=1\nsource .venv/bin/activate\n", ""),
        ("make stop\n", ""),
        (".state/demo", str(mesh)),
        (".state/walk", str(scratch)),
    ):
        assert old in text, f"the walk-through no longer says {old!r}: adapt this test"
        text = text.replace(old, new)
    return text


async def said_by(text: str) -> tuple[int | None, str]:
    """Exit code and output of the script, which is ended after a while."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", text,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode, said.decode()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_every_line_of_the_walkthrough_works(tmp_path: Path) -> None:
    """I1, I3 and I7 as somebody meets them who runs documents."""
    mesh, scratch = tmp_path / "demo", tmp_path / "walk"
    EMBEDDER.mkdir(parents=True, exist_ok=True)
    (tmp_path / "embedder").symlink_to(EMBEDDER)
    model = DemoModel(tmp_path / "none", "tiny", reads=False)
    async with Scripted.open(mesh, model) as world:
        teller = Teller()
        with teller.step(1, "documents"):
            await documents_are_taken_in(world, teller)
        assert teller.held, [e for step in teller.results for e in step.expectations]
        code, said = await said_by(script(mesh, scratch))
    assert code == 0, said[-6000:]
    check(said)
    assert not scratch.exists()


def check(said: str) -> None:
    """What the text around the blocks promises."""

    def count(pattern: str) -> int:
        return len(re.findall(pattern, said))

    assert count(r"handbook +\w\w\.mesh\.example .*fra-1 \(DE\), par-1 \(FR\), iad-1 \(US\) +-") == 3, said
    assert count(r"POLICY_SENDER_DENIES") >= 1, said
    assert count(r"\bcomplete: 3 of 3 nodes answered") >= 3, said
    assert count(r"not complete: 2 of 3 nodes answered") >= 1, said
    # Fetched by the clinic, by the bank, by the agency; and by the bank once Germany has closed.
    assert count(r"passage from spiffe://de\.mesh\.example/node/fra-1: de-power-failure") == 1, said
    assert count(r"snippet from spiffe://de\.mesh\.example/node/fra-1") == 1, said
    assert (count("REFERENCE_UNKNOWN"), count("RELEASE_DENIED")) == (1, 1), said
    assert (count("exit code 1"), count("exit code 3")) == (1, 1), said
    for cited in (r"de\.mesh\.example/fra-1", r"fr\.mesh\.example/par-1"):
        assert count(rf"(?m)^\[[12]\] {cited}/handbook/[0-9a-f]{{32}}$") == 1, said
    assert count("3 documents were there already") == 1, said
    before, after = said.split("2 documents of files that are gone were deleted")
    assert "begins at 22:15" in before
    assert "carries 1600 kg" in before
    assert "1 of 1 documents were there, and are gone" in after
    assert not re.search(r"1600 kg|22:15|lift", after), after
    assert count(r"handbook on fra-1 is written anew: \d+ chunks") == 1, said
    assert count(r" release +clinic-a/desk \(de\) +handbook ") == 2, said
