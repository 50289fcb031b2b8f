"""Bytes that a TCP port has carried, as the kernel counts them: payload of TCP, both ways, TLS included.

Asked for with `ss`; where that is not installed, there is no figure.
"""

from __future__ import annotations

import re
import shutil
import subprocess

_COUNTS = re.compile(r"bytes_(sent|received):(\d+)")


def available() -> bool:
    """Whether this machine can tell."""
    return shutil.which("ss") is not None


def carried(port: int) -> int:
    """Bytes sent and received over the connections that are open to this port of the machine."""
    command = [
        "ss",
        "--tcp",
        "--numeric",
        "--info",
        "--no-header",
        "state",
        "established",
        f"( sport = :{port} )",
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sum(int(count) for _, count in _COUNTS.findall(said))
