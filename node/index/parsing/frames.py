"""What a worker and the pool say to each other: JSON arrays, each behind its length in four bytes.

    to the worker       its media type, with the file's descriptor beside it
    from the worker     ["ready", whether it has no network]
                        ["document", row], ["blocks", [[kind, level, text], ...]] ...,
                        ["end", overrides or null if they are too long, hints]
                        ["bad", row, complaint]
                        ["failed", complaint] or ["done"], after which it waits for the next file

Only shapes; what may be said when, and how much, is intake.py's to judge.
"""

from __future__ import annotations

import json
import struct

from node.index.parsing.limits import FRAME_BYTES

HEADER = struct.Struct(">I")


def encode(frame: list[object]) -> bytes:
    """A frame with its length; ValueError if it is too long."""
    body = json.dumps(frame, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(body) > FRAME_BYTES:
        raise ValueError("a frame is too long")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes | bytearray) -> int:
    """How long the body is that follows; ValueError if that is too long."""
    (length,) = HEADER.unpack(header)
    if length > FRAME_BYTES:
        raise ValueError("a frame is too long")
    return int(length)


def decode(body: bytes | bytearray) -> list[object]:
    """The frame; ValueError if it is none."""
    try:
        frame = json.loads(body)
    except RecursionError:
        raise ValueError("a frame is too deep") from None
    if not isinstance(frame, list) or not frame:
        raise ValueError("a frame is an array")
    return frame
