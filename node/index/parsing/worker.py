"""The process that reads files: `python -m node.index.parsing.worker PARENT LIMITS`, started by the pool.

Its standard input is a socket to the pool: a file's descriptor comes in, frames go out (frames.py). Before
that it shuts itself in (sandbox.py). It prints nothing: what a library would say of a file might repeat it
(I1). After anything that may have left it in a bad state it ends, and the pool starts another.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import BinaryIO

from node.index.parsing import media, sandbox
from node.index.parsing.complaints import Complaint, ParseFailure
from node.index.parsing.formats import BadRow, Parser, RawDocument
from node.index.parsing.frames import encode
from node.index.parsing.limits import FRAME_AIM, ParseLimits

_MODULES = {
    media.TEXT: "plain", media.MARKDOWN: "markdown", media.HTML: "html", media.PDF: "pdf",
    media.DOCX: "docx", media.JSONL: "jsonl", media.CSV: "csv",
}  # fmt: skip
_METADATA = 16_384  # characters of JSON
_DOWN = 3  # exit status after memory ran out


def main() -> int:
    """Serves files until the pool hangs up."""
    logging.disable()
    limits = ParseLimits(**json.loads(sys.argv[2]))
    isolated = sandbox.enter(limits, int(sys.argv[1]))
    with socket.socket(fileno=os.dup(0)) as line:
        line.sendall(encode(["ready", isolated]))
        while True:
            request, descriptors, _, _ = socket.recv_fds(line, 256, 1)
            if not request or not descriptors:
                return 0
            sandbox.arm_clock(limits.cpu_s)
            with os.fdopen(descriptors[0], "rb", buffering=1 << 16) as file:
                try:
                    _serve(line, request.decode(), file, limits)
                except MemoryError:
                    return _out_of_memory(line)


def _serve(line: socket.socket, kind: str, file: BinaryIO, limits: ParseLimits) -> None:
    try:
        for frame in _frames(kind, file, limits):
            line.sendall(frame)
        line.sendall(encode(["done"]))
    except ParseFailure as failure:
        line.sendall(encode(["failed", failure.complaint.name]))
    except (MemoryError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception:  # a parser's bug or a file's malice: to the pool it is all the same
        line.sendall(encode(["failed", Complaint.BROKEN.name]))


def _out_of_memory(line: socket.socket) -> int:
    with contextlib.suppress(OSError, MemoryError):
        line.sendall(encode(["failed", Complaint.MEMORY.name]))
    return _DOWN


def _frames(kind: str, file: BinaryIO, limits: ParseLimits) -> Iterator[bytes]:
    parser: Parser = importlib.import_module(f"node.index.parsing.{_MODULES[kind]}").parse
    for found in parser(file, limits):
        if isinstance(found, BadRow):
            yield encode(["bad", found.row, found.complaint.name])
        else:
            yield from _document(found)
        if kind in media.STREAMED:
            sandbox.arm_clock(limits.cpu_s)


def _document(found: RawDocument) -> Iterator[bytes]:
    yield encode(["document", found.row])
    waiting: list[object] = []
    size = 0
    for block in found.blocks:
        waiting.append([block.kind, block.level, block.text])
        size += len(block.text) + 32
        if size > FRAME_AIM:
            yield encode(["blocks", waiting])
            waiting, size = [], 0
    if waiting:
        yield encode(["blocks", waiting])
    too_long = len(json.dumps(found.overrides)) > _METADATA
    yield encode(["end", None if too_long else found.overrides, found.hints])


if __name__ == "__main__":
    sys.exit(main())
