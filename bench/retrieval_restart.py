"""How long a node with 100,000 chunks is away when it is killed: from its start to its first answer.

It is killed with SIGKILL right after it said that it stored a document, which its vector store has not on
disk yet, and started again at once, as whatever supervises it would. The first answer must have that
document. The time includes the interpreter, the board, the certificate and the open connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Row
from bench.retrieval_data import spec
from bench.retrieval_mesh import ASKED, started, until_whole
from mesh.client import MeshClient
from mesh.core.documents import DocumentInfo
from mesh.core.errors import MeshError
from mesh.sdk.documents import IndexClient
from mesh.sdk.files import files_under
from mesh.sdk.placers import Server
from mesh.sdk.questions import collect_search
from tests.support.node_process import mesh_on_etcd

_DEADLINE_S = 120.0


async def restart_rows(folder: Path, index: Path, texts: list[str], rounds: int) -> list[Row]:
    """Kills and starts it again, so many times."""
    took = []
    async with mesh_on_etcd(folder, "DE") as (mesh, etcd):
        await mesh["DE"].publish_collection(await spec("whole"))
        admin = mesh["DE"].caller("/admin/bench")
        async with started(mesh, etcd, folder, "DE", "de-1", index) as holder:
            await until_whole(holder, "whole", 1)
            process, server = holder.process, Server(holder.process.id, holder.process.endpoint)
            for number in range(rounds):
                word = f"quixotic{number}"
                new = _written(folder / f"{word}.txt", f"{word} {texts[number]}")
                async with IndexClient(admin.source, server) as client:
                    files, _ = files_under([new])
                    async for _ in client.ingest("whole", files, DocumentInfo(classes=("public",))):
                        pass
                process.process.send_signal(signal.SIGKILL)
                await process.ended()
                began = time.perf_counter()
                process.start()
                await _until_found(holder.new_client, word)
                took.append(time.perf_counter() - began)
    return [
        Row(
            "kill -9 with 100,000 chunks: from the start to the first answer",
            statistics.median(took),
            "s",
            5.0,
        ),
        Row("... the longest", max(took), "s"),
    ]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def _until_found(make_client: Callable[[], MeshClient], word: str) -> None:
    """Asks again and again, as somebody would who does not know that the node is away."""
    async with asyncio.timeout(_DEADLINE_S):
        while True:
            async with make_client() as client:
                stream = client.search(word, "whole", context=ASKED, mode="keyword", timeout_s=2.0)
                with contextlib.suppress(MeshError):
                    if (await collect_search(stream)).hits:
                        return
            await asyncio.sleep(0.02)
