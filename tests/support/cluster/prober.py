"""The kubelet's probes: takes {"url": ...} or {"connect": [host, port]}, answers {"passes": bool}."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 2.0


def passes(asked: dict[str, Any]) -> bool:
    """Whether what is asked for answers; for HTTP with 200 to 399."""
    try:
        if "url" in asked:
            with urllib.request.urlopen(asked["url"], timeout=TIMEOUT_S) as answer:
                return 200 <= answer.status < 400
        socket.create_connection(tuple(asked["connect"]), TIMEOUT_S).close()
        return True
    except (OSError, urllib.error.URLError):
        return False


def main() -> None:
    for line in sys.stdin:
        print(json.dumps({"passes": passes(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
