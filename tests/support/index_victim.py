"""A process that changes an index until it is killed at a given step, and says what was acknowledged.

Run as a script: for each line of JSON on stdin it forks a child (imports are paid once) that opens or
makes the index and carries out `work(seed)`; the child writes "<n>\n" to stdout after its n-th piece of
work was acknowledged, and kills itself with SIGKILL the `nth` time that it passes `step`. Then the
parent writes "dead <signal or 0>\n".
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mesh.core.errors import MeshError
from node.index import index as index_module
from node.index.index import DocumentIndex
from tests.support.document_index import SECRET, SPEC, Day, Oracle, a_document, settings

PIECES = 12


def work(seed: int) -> list[Callable[[DocumentIndex | Oracle], object]]:
    """The pieces, each of which an index and an oracle carry out alike."""
    rng = random.Random(seed)
    pieces: list[Callable[[DocumentIndex | Oracle], object]] = []
    for number in range(PIECES):
        kind = "rebuild" if number == PIECES // 2 else rng.choice(("put", "put", "delete"))
        documents = [a_document(rng, most_chunks=6) for _ in range(rng.randrange(1, 5))]
        pieces.append(_piece(kind, documents))
    return pieces


def _piece(kind: str, documents: list[object]) -> Callable[[DocumentIndex | Oracle], object]:
    def piece(on: DocumentIndex | Oracle) -> object:
        if kind == "delete":
            ids = [each.meta.id for each in documents]  # type: ignore[attr-defined]
            return on.delete(*ids) if isinstance(on, Oracle) else on.delete(ids)
        if kind == "put":
            return on.put(*documents) if isinstance(on, Oracle) else on.put_many(documents)  # type: ignore
        return None if isinstance(on, Oracle) else on.rebuild()

    return piece


def run(folder: Path, seed: int, kind: str, step: str, nth: int, file_limit: int) -> None:
    """One life. With `file_limit`, no file can grow beyond so many bytes: a full disk, as far as files go."""
    passed = 0

    def failpoint(name: str) -> None:
        nonlocal passed
        passed += name == step
        if name == step and passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    index_module.FLUSH_AFTER = 7
    index = DocumentIndex.create(folder, SPEC, SECRET, settings(kind), Day(), failpoint=failpoint)
    if file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    os.write(1, b"0\n")
    for number, piece in enumerate(work(seed), 1):
        try:
            piece(index)
        except MeshError as error:
            os.write(1, f"{-number} {error.reason.name}\n".encode())
        else:
            os.write(1, f"{number}\n".encode())
    if not file_limit:
        index.close()
    os._exit(0)


def main() -> None:
    """Reads orders until stdin ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                order = json.loads(line)
                run(Path(order.pop("folder")), **order)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        os.write(1, f"dead {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
