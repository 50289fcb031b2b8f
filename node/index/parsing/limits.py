"""How much one file may cost, and how large it may be."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20

BLOCK_CHARACTERS = 100_000  # longer blocks are given in several
FRAME_BYTES = 4 * _MIB  # of one message from a worker
FRAME_AIM = _MIB // 4  # what a worker aims at: the node's event loop reads one in a moment


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Bytes, seconds and counts. The defaults suit office documents; a worker's own start is not counted.

    `cpu_s` and `wall_s` hold for each document, and so for each row of a file with many.
    """

    file_bytes: int = 64 * _MIB  # a file that is one document
    stream_bytes: int = 8192 * _MIB  # JSONL and CSV, which are read row by row
    row_bytes: int = 4 * _MIB
    rows: int = 1_000_000
    text_bytes: int = 64 * _MIB  # UTF-8, of one document
    blocks: int = 200_000
    pages: int = 5_000
    members: int = 4_096  # files inside a DOCX
    inflated_bytes: int = 128 * _MIB  # all of them together
    inflated_ratio: int = 200  # of any that is more than 1 MiB; office XML reaches some 30
    memory_bytes: int = 512 * _MIB  # of a worker's address space; some 80 MiB of it are its code
    cpu_s: int = 60
    wall_s: float = 90.0
    start_s: float = 60.0
    open_files: int = 32
    files_per_worker: int = 200
