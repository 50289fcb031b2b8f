"""The process that holds a lab's namespaces and works on its cables. Started by lab.py, one a lab.

    unshare [--map-root-user] --net -- python -m tests.support.hosts.holder HOST=ADDRESS...

It starts in the namespace of the bridge, says in one line of JSON which descriptors the hosts' namespaces
have, then does what the lines on its standard input ask and answers each. It ends when that ends or its
parent does, and the kernel then takes namespaces and cables away: nothing is left, whoever was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from tests.support.hosts import namespaces
from tests.support.hosts.wire import Wire


def main() -> None:
    namespaces.die_with_parent(signal.SIGKILL)
    # Ctrl-C is for the test to deal with.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hosts = {}
        for word in sys.argv[1:]:
            name, _, address = word.partition("=")
            hosts[name] = (namespaces.new_network(), address)
        wire = Wire(hosts)
        switch = namespaces.current()
    except Exception as error:
        _say({"error": _words(error)})
        raise
    held = {"": switch, **{name: descriptor for name, (descriptor, _) in hosts.items()}}
    _say({"pid": os.getpid(), "namespaces": held})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            _say({"done": getattr(wire, asked.pop("do"))(**asked)})
        except Exception as error:  # the test gets it, whatever it is
            _say({"error": _words(error)})


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
